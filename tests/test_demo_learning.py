"""The demo's learning: what is shown comes from the bus, poison is refused, the verdict says in words what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import eventually
from learning_rig import Heard, Node, cloud, running, settings

from cloud.learning_settings import LearningSettings
from cloud.registry import FILE, Registry
from cloud.release_state import State
from cloud.settings import CloudSettings
from cloud.trials import Trial
from cloud.versions import Draft, Event, Version
from edge.graphs import checked
from edge.policy import Policy
from edge.settings import EdgeSettings
from firmware_sim.settings import SimSettings
from messages.broker import Broker
from messages.carbon import day_of_carbon
from messages.cells import ACTIONS, INTERFACE, METRICS, NETWORK
from messages.errors import ShoalError
from messages.learning import Artefact, Closed, Release, Round, Update, UpdateHead
from messages.plant import load_plant
from messages.settings import Settings, describe, load
from shoal.demo import FAULTS, PLANTS
from shoal.demo_learning import BAD_ACTION, STRANGER, DemoLearning, bad_graph
from shoal.demo_learning_outcome import Learned
from shoal.demo_learning_report import as_json, figure, sections, table
from shoal.demo_learning_view import LONGEST_H, ROUNDS, LearningView
from shoal.outcome import Files
from shoal.poisoned import Poisoned
from shoal.remanufacture import Play

PLANT = PLANTS / "remanufacturing.toml"
T0 = 1_800_000_000_000_000
HONEST = ("robot-1", "robot-2", "robot-3", "robot-4")
BASE = Artefact.of(b"base")


def closed(number: int, *, refused: bool = True, quarantined: bool = True) -> Closed:
    return Closed(
        at=T0 + number,
        version=number + 1,
        taken=dict.fromkeys(HONEST, 100.0),
        refused={STRANGER: "not_finite: 9 of 9 numbers are none"} if refused else {},
        quarantined=[STRANGER] if quarantined else [],
    )


def asked(number: int, done: Closed | None = None) -> Round:
    return Round(
        model="cell", round=number, base_version=number, base=BASE, network=NETWORK, interface=INTERFACE,
        shared=NETWORK.shared, opened_at=T0, deadline=T0 + 1, closed=done,
    )  # fmt: skip


def version(number: int, stage: str = "former") -> Version:
    return Version(
        model="cell", version=number, graph=BASE, interface=INTERFACE, origin=f"round {number}", made_at=T0, stage=stage
    )


def history(*lines: tuple[int, str, str, str]) -> tuple[Event, ...]:
    return tuple(Event(T0 + k, "cell", number, what, by, why) for k, (number, what, by, why) in enumerate(lines))


SOUND = Learned(
    rounds={k: closed(k) for k in range(1, 6)},
    returns={1: -4.0, 2: 3.0, 3: 12.0, 4: 14.0, 5: 1.0},
    costs={1: 0.5, 2: 2.0, 3: 2.4, 4: 2.3, 5: 1.0},
    spoilt=frozenset({5}),
    versions=(version(2), version(6, "fleet"), version(7, "rolled_back")),
    history=history(
        (7, "canary", "shoal", "beside version 6 on s1/robot-1"),
        (7, "rolled_back", "shoal", "worse: 48 pairs, -400 %"),
    ),
    fleet=6,
    before=3,
    trial=None,
    running=dict.fromkeys(HONEST, 6),
    evidence={STRANGER: ("round 2, norm: 86 times the median",)},
    bad=7,
    cells={"robot-cell-1": {"steps": 500, "missed": 2}},
)


# --- the verdict ------------------------------------------------------------------------------------


def test_a_run_in_which_all_went_as_it_should_has_nothing_against_it_and_says_all_of_it() -> None:
    assert SOUND.failures == ()
    found = as_json(SOUND)
    assert found["return_by_round"] == [-4.0, 3.0, 12.0, 14.0, 1.0] and len(found["rounds"]) == 5
    assert found["rolled_back"]["version"] == 7 and "-400 %" in found["rolled_back"]["why"]
    assert found["nodes_quarantined"] == {STRANGER: ["round 2, norm: 86 times the median"]}
    assert found["rounds"][4]["bad_release_tried"] and not found["rounds"][3]["bad_release_tried"]
    text = "\n".join(f"{name}: {value}" for name, value in table(SOUND))
    for wanted in ("-4.0  +3.0  +12.0  +14.0  +1.0 (bad release tried)", "86 times", "-400 %", "robot-4: 6"):
        assert wanted in text
    assert len(figure(SOUND).data) == 3 and len(sections(SOUND)) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rounds": {1: closed(1)}}, "1 rounds of learning made a version"),
        ({"versions": (version(2), version(6, "refused"))}, "1 versions that were learned reached all; 2 should have"),
        ({"returns": {1: 4.0, 2: 3.0}}, "the cells learned nothing"),
        ({"returns": {1: 4.0, 2: 9.0, 3: 5.0, 4: 2.0}}, "the cells learned nothing"),
        ({"returns": {1: 4.0, 2: 3.0, 5: 9.0}}, "the cells learned nothing"),
        ({"returns": {}}, "the cells learned nothing"),
        ({"rounds": {k: closed(k, refused=False) for k in range(1, 6)}}, f"no update of {STRANGER} was refused"),
        (
            {"rounds": {**SOUND.rounds, 6: Closed(at=T0, version=9, taken={STRANGER: 1.0})}},
            f"round 6 took the poisoned update of {STRANGER}",
        ),
        ({"evidence": {}}, f"{STRANGER} is not in quarantine"),
        ({"evidence": {**SOUND.evidence, "robot-2": ("x",)}}, "robot-2 is in quarantine, and is honest"),
        ({"bad": None}, "no bad release was tried"),
        ({"history": history((7, "canary", "shoal", "x"))}, "version 7 is bad, and was not rolled back: x"),
        ({"history": history((7, "rolled_back", "anna", "too loud"))}, "not rolled back by itself, but by anna"),
        (
            {"history": history((7, "fleet", "shoal", "as good"), (7, "rolled_back", "shoal", "x"))},
            "version 7 is bad, and was released to all",
        ),
        ({"running": {"robot-1": 5}}, "robot-1 runs version 5, and 6 is released to all"),
    ],
)
def test_what_went_wrong_is_said_in_words(wrong: dict[str, object], said: str) -> None:
    found = dataclasses.replace(SOUND, **wrong)  # type: ignore[arg-type]
    assert any(said in failure for failure in found.failures), found.failures


# --- the view ---------------------------------------------------------------------------------------


def view() -> LearningView:
    plant = load_plant(PLANT)
    return LearningView(plant, T0, now=T0, learns=frozenset(HONEST), stranger=STRANGER)


def release(number: int, stage: str = "fleet", instead_of: int | None = None) -> Release:
    return Release(
        model="cell", version=number, stage=stage, instead_of=instead_of, interface=INTERFACE, graph=BASE, made_at=T0
    )


def update(node: str, number: int, earned: float) -> Update:
    head = UpdateHead(
        model="cell", round=number, base=BASE.sha256, at=T0, codec="float16", samples=9, mean_return=earned
    )
    return Update(head=head, data=b"")


def test_the_view_follows_rounds_releases_and_who_is_locked_out() -> None:
    seen = view()
    seen.updates = {
        1: {node: update(node, 1, k) for k, node in enumerate(HONEST)} | {STRANGER: update(STRANGER, 1, 1e6)}
    }
    seen.on_round(asked(1))
    seen.on_round(asked(1, closed(1)))
    seen.on_round(asked(1, closed(1)))  # said again
    assert seen.returns == {1: 1.5}, "what the stranger claims counts nothing"
    seen.on_release("robot-1", release(2))
    seen.bad = 7
    seen.on_release("robot-1", release(7, "canary"))
    seen.on_round(asked(2, closed(2)))
    seen.on_release("robot-1", release(2, instead_of=7))
    seen.on_round(asked(3, closed(3)))
    seen.on_round(asked(4, closed(4)))
    assert seen.spoilt == {2, 3} and seen.fleet == 2 and seen.taken_back == {7} and seen.tried == {7: {"robot-1"}}
    said = [text for _, text in seen.told]
    assert said.count(f"{STRANGER} is in quarantine") == 1
    assert "version 7 is taken back, version 2 runs again" in said and "version 2 is for all" in said
    assert any("round 1: version 2 by 4 nodes; a decision earned +1.5" in text for text in said)
    seen.draw()


def test_the_demo_ends_when_all_was_shown_or_had_its_time() -> None:
    seen = view()
    assert seen.finished is False
    for number in range(1, ROUNDS + 1):
        seen.on_round(asked(number, closed(number)))
    assert not seen.finished, "the bad release is still to come"
    seen.on_release("robot-1", release(1))
    seen.on_release("robot-1", release(2))
    seen.bad = 7
    seen.on_release("robot-1", release(7, "canary"))
    assert not seen.finished
    seen.on_release("robot-1", release(2, instead_of=7))
    assert not seen.finished, "one version that was learned reached all, and the first one was made of the seed"
    seen.on_release("robot-1", release(6))
    assert seen.finished
    late = view()
    late.now = T0 + round((LONGEST_H + 1) * 3.6e9)
    assert late.finished


# --- who plays --------------------------------------------------------------------------------------


def test_every_process_of_the_demo_can_read_its_settings_back_and_cells_have_nodes_of_their_own(tmp_path: Path) -> None:
    plant = load_plant(PLANT)
    play = Play(Files(tmp_path), PLANT, plant, 3, T0, day_of_carbon(T0), FAULTS)
    cast = play.script().cast(1883, "127.0.0.1:99")
    assert set(cast) == {"sim", "cloud", *plant.nodes} and len(plant.nodes) == 7
    kinds: dict[str, type[Settings]] = {"sim": SimSettings, "edge": EdgeSettings, "cloud": CloudSettings}
    for name, (command, wanted) in cast.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(describe(wanted))
        assert load(kinds[command], path) == wanted
    learning = {name: found.learning for name, (_, found) in cast.items() if isinstance(found, EdgeSettings)}
    assert {name for name, one in learning.items() if one is not None} == set(HONEST)
    told = cast["cloud"][1]
    assert isinstance(told, CloudSettings) and told.swarm and told.learning
    assert told.swarm.delegates == ("disassembly", "refurbishing", "assembly")
    assert isinstance(told.learning, LearningSettings) and told.learning.hidden == learning["robot-1"].hidden  # type: ignore[union-attr]


def test_the_bad_model_is_a_sound_graph_that_nothing_but_its_results_betrays() -> None:
    graph = bad_graph(BAD_ACTION)
    checked(graph, inputs=len(METRICS), parameters=0, outputs=len(ACTIONS))
    policy = Policy.of(INTERFACE, graph)
    rng = np.random.default_rng(1)
    for _ in range(20):
        latest = {("c", one.metric): (T0, float(rng.uniform(one.low, one.high))) for one in INTERFACE.features}
        assert policy.choose(latest, T0, device="c").action == BAD_ACTION
    with pytest.raises(ShoalError, match="there are: disassemble_a"):
        bad_graph("dance")


async def test_poison_is_refused_for_what_it_is_and_its_node_is_locked_out(broker: Broker, tmp_path: Path) -> None:
    nodes = [Node(broker, name) for name in ("dry", "humid", "worn", "slow")]
    heard = Heard(broker)
    poisoned = Poisoned(broker.host, broker.port, site="s1", name=STRANGER, seed=1)
    wanted = settings(tmp_path, rounds={"gate": {"strikes": 2}})

    def over(test: Callable[[Closed], bool]) -> bool:
        return any(one.closed is not None and test(one.closed) for one in heard.closed)

    async with running(cloud(broker, tmp_path, wanted), heard, *nodes, poisoned._bus):
        await eventually(lambda: over(lambda one: STRANGER in one.quarantined))
        await eventually(lambda: len(poisoned.sent) >= 3)
    reasons = {one.closed.refused[STRANGER].split(":")[0] for one in heard.closed if STRANGER in one.closed.refused}  # type: ignore[union-attr]
    assert {"not_finite", "norm"} <= reasons
    assert not over(lambda one: STRANGER in one.taken)
    assert all(set(one.closed.quarantined) <= {STRANGER} for one in heard.closed if one.closed)


def test_the_operator_asks_when_nothing_else_is_tried_and_asks_again_when_it_came_to_nothing(tmp_path: Path) -> None:
    learning = DemoLearning(Files(tmp_path), load_plant(PLANT), seed=1)
    with closing(Registry(learning.files.cloud / FILE)) as registry:
        draft = Draft(model="cell", graph=bad_graph("wait"), interface=INTERFACE, origin="seed 1")
        first = registry.add(draft, now=T0, by="shoal").version
        assert learning._wish(1, T0) is None, "nothing runs yet"
        trial = Trial.of(2, against=first, nodes=["s1/robot-1"], began=T0)
        registry.keep_state("cell", State(fleet=first, trial=trial), needed=[first])
        assert learning._wish(1, T0) is None, "another version is being tried"
        registry.keep_state("cell", State(fleet=first), needed=[first])
        asked = learning._wish(1, T0)
        assert asked is not None
        (wish,) = registry.wishes("cell")
        assert (wish.kind, wish.version, wish.by) == ("canary", asked[0], "operator")
        assert not learning._came_to_nothing(*asked), "the cloud has not answered"
        registry.answer(wish.id, "refused: version 2 is being tried; roll it back first, or wait")
        assert learning._came_to_nothing(*asked)
        again = learning._wish(2, T0)
        assert again is not None and again[0] > asked[0]
        registry.answer(again[1], "done")
        assert not learning._came_to_nothing(*again)
        facts = {"now": T0, "by": "shoal", "why": "a newer one came", "metrics": {}}
        registry.mark(registry.version("cell", again[0]), "superseded", **facts)
        assert learning._came_to_nothing(*again)
