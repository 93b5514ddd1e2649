"""Releases: a candidate proves itself in simulation and on a few nodes, then the fleet has it, or nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from cloud.canary import CanaryTest
from cloud.registry import Registry
from cloud.releases import Releases
from cloud.saying import Say, parts
from cloud.trials import ReleaseSettings
from cloud.validation import answer
from cloud.versions import Draft, Version
from messages.contracts import Envelope
from messages.errors import BadMessage
from messages.learning import PART_BYTES, Arm, Artefact, Feature, Interface, ModelReport, Paired, Release
from messages.network import Network
from messages.routes import MODEL
from messages.signing import SigningKey, public_key, verify

KEY = SigningKey.from_seed(bytes(32))
KEYS = {"cloud": public_key(KEY.public)}
NET = Network(inputs=1, hidden=(2,), outputs=2)
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"])
NODES = ("s1/dry", "s1/humid", "s1/slow", "s1/worn")
DAY = 86_400 * 10**6


def candidate(number: int, model: str = "cell") -> Draft:
    vector = np.full(NET.size, number, "<f4").tobytes()
    return Draft(
        model=model, graph=b"graph", parameters=vector, network=NET, interface=FACE, shared=4, origin=f"round {number}"
    )


class Plant:
    """Nodes that run what they are told, and say so; a cloud that may be killed between any two of its steps."""

    def __init__(self, path: Path, settings: ReleaseSettings | None = None) -> None:
        self.path, self.settings = path, settings or ReleaseSettings(test=CanaryTest(margin=0.1))
        self.now = 0
        self.scores: dict[int, float] = {}
        self.bus: dict[str, Say] = {}
        self.pairs: dict[str, int] = dict.fromkeys(NODES, 0)
        self.runs: dict[str, int] = {}
        self.refused: dict[str, bool] = {}
        self.away: set[str] = set()
        self.said: dict[str, ModelReport] = {}
        self.counters: dict[str, list[int]] = {node: [] for node in NODES}
        self.revive()

    def revive(self) -> None:
        self.registry = Registry(self.path)
        self.releases = Releases(self.registry, "cell", self.settings, key=KEY)
        for say in self.releases.all():
            self.bus[say.node] = say

    def crash(self) -> None:
        self.registry.close()
        self.revive()

    def hear(self, says: list[Say]) -> None:
        for say in says:
            assert verify(say.payload, KEYS) == "cloud"
            envelope = Envelope[Release].decode(say.payload)
            assert envelope.target == say.node
            self.counters[say.node].append(envelope.counter)
            self.bus[say.node] = say
        self.obey()

    def obey(self) -> None:
        """As a node does: a lower version only in place of the very one it runs."""
        for node in self.bus.keys() - self.away:
            body, runs = self.release(node), self.runs.get(node, 0)
            self.refused[node] = body.version < runs and body.instead_of != runs
            if not self.refused[node] and (body.stage == "fleet" or not runs):
                self.runs[node] = body.version

    def release(self, node: str) -> Release:
        return Envelope[Release].decode(self.bus[node].payload).body

    def running(self) -> dict[str, tuple[int, str]]:
        return {node: (self.release(node).version, self.release(node).stage) for node in self.bus}

    def simulate(self, version: Version) -> Mapping[str, float]:
        return {"mean_return": self.scores.get(version.version, 10.0)}

    def tick(self) -> None:
        self.now += 60 * 10**6
        self.hear(self.releases.on_time(self.now))
        question = self.releases.to_validate()
        if question is not None:
            self.hear(self.releases.on_validated(question, answer(question, self.simulate), self.now))

    def report(self, node: str, **facts: object) -> None:
        self.now += 10**6
        said = self.bus.get(node)
        told = Envelope[Release].decode(said.payload) if said else None
        base: dict[str, object] = {"model": "cell", "at": self.now, "session": "0" * 16, "seq": self.now}
        if told:
            base |= {"counter": told.counter, "running": self.runs[node]}
        report = self.said[node] = ModelReport.model_validate(base | facts)
        self.hear(self.releases.on_report(node, report, self.now))

    def blocks(self, node: str, difference: float, *, trips: int = 0, non_finite: int = 0, more: int = 10) -> None:
        """`more` pairs that differ by so much, all alike but for a little."""
        told = self.release(node)
        before = self.releases.state.trial
        assert before is not None
        self.pairs[node] += more
        count = self.pairs[node]
        self.report(
            node,
            arms=[
                Arm(version=before.against, decisions=8 * count, blocks=count, mean=10.0),
                Arm(version=told.version, decisions=8 * count, blocks=count, trips=trips, non_finite=non_finite),
            ],
            pairs=[Paired(version=told.version, against=before.against, pairs=count, mean=difference, m2=count * 1.0)],
        )

    def canaries(self) -> list[str]:
        return [node for node, (_, stage) in self.running().items() if stage == "canary"]

    def add(self, number: int) -> int:
        return self.registry.add(candidate(number), now=self.now, by="shoal").version

    def fleet_of(self, number: int) -> None:
        """All nodes run a first version."""
        for node in NODES:
            self.report(node)
        self.add(number)
        self.tick()
        self.tick()
        for node in NODES:
            self.report(node)

    def last(self, version: int) -> tuple[str, str, str]:
        event = self.registry.history("cell", version)[-1]
        return event.what, event.by, event.why


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "models.db")
    yield made
    made.registry.close()


def tried(plant: Plant) -> list[str]:
    """Version 1 runs, version 2 is tried."""
    plant.fleet_of(1)
    plant.add(2)
    plant.tick()
    return plant.canaries()


def test_the_first_validated_version_is_the_fleets_and_every_node_is_told_by_name(plant: Plant) -> None:
    plant.fleet_of(1)
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    assert MODEL.topic(**plant.bus["s1/dry"].ids) == "shoal/v1/s1/dry/down/model/cell"


def test_a_candidate_that_is_as_good_goes_from_two_nodes_to_all(plant: Plant) -> None:
    canaries = tried(plant)
    assert len(canaries) == 2
    while plant.canaries():
        for node in canaries:
            plant.blocks(node, 0.5)
    assert plant.running() == dict.fromkeys(NODES, (2, "fleet"))
    assert plant.last(2)[:2] == ("fleet", "shoal") and "as good" in plant.last(2)[2]
    assert [event.what for event in plant.registry.history("cell", 2)] == ["candidate", "validated", "canary", "fleet"]
    assert plant.last(1)[0] == "former"


def test_a_worse_candidate_is_taken_back_and_no_other_node_ever_had_it(plant: Plant) -> None:
    canaries = tried(plant)
    seen = set()
    while plant.canaries():
        for node in canaries[: len(plant.canaries())]:
            plant.blocks(node, -2.0)
            seen |= {node for node, (version, _) in plant.running().items() if version == 2}
            if not plant.canaries():
                break
    assert seen == set(canaries)
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    assert {plant.release(node).instead_of for node in canaries} == {2}
    assert plant.last(2)[0] == "rolled_back" and "-20.0%" in plant.last(2)[2]


@pytest.mark.parametrize("facts", [{"trips": 1}, {"non_finite": 1}])
def test_a_trip_or_a_number_that_is_none_ends_it_at_once(plant: Plant, facts: dict[str, int]) -> None:
    canaries = tried(plant)
    plant.blocks(canaries[0], 5.0, **facts)
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    assert plant.last(2)[0] == "rolled_back" and canaries[0] in plant.last(2)[2]


def test_a_refusal_ends_it_at_once_but_not_one_of_an_older_release(plant: Plant) -> None:
    canaries = tried(plant)
    plant.report(canaries[0], counter=1, refused="too old")
    assert plant.canaries() == canaries
    plant.report(canaries[0], refused="parameters are not finite")
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    assert "not finite" in plant.last(2)[2]


def test_a_canary_that_says_nothing_lets_nothing_through(plant: Plant) -> None:
    canaries = tried(plant)
    for _ in range(100):
        plant.blocks(canaries[0], 0.5)
    assert plant.canaries() == canaries
    plant.now += 31 * DAY
    plant.tick()
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    assert plant.last(2)[0] == "inconclusive"


def test_what_does_not_hold_in_simulation_reaches_no_node(plant: Plant) -> None:
    plant.fleet_of(1)
    plant.scores = {1: 10.0, 2: 9.0, 3: float("nan"), 4: 9.6}
    for number in (2, 3):
        plant.add(number)
        plant.tick()
        assert plant.last(number)[0] == "refused" and not plant.canaries()
    plant.add(4)
    plant.tick()
    assert plant.last(4)[0] == "canary"


def test_of_several_candidates_only_the_newest_is_tried(plant: Plant) -> None:
    plant.fleet_of(1)
    for number in (2, 3, 4):
        plant.add(number)
    plant.tick()
    assert [plant.last(number)[0] for number in (2, 3, 4)] == ["superseded", "superseded", "canary"]


def test_after_a_crash_at_any_commit_everything_goes_on_and_counters_only_rise(tmp_path: Path) -> None:
    outcomes = []
    for every in (1, 2, 3, 1000):
        plant = Plant(tmp_path / f"{every}.db")
        step = 0

        def maybe(plant: Plant = plant, every: int = every) -> None:
            nonlocal step
            step += 1
            if step % every == 0:
                plant.crash()
                for node in NODES:
                    plant.report(node)

        plant.fleet_of(1)
        maybe()
        for number, difference in ((2, -2.0), (3, 0.5)):
            plant.pairs = dict.fromkeys(NODES, 0)
            plant.add(number)
            maybe()
            plant.tick()
            maybe()
            while plant.canaries():
                for node in plant.canaries():
                    if plant.canaries():
                        plant.blocks(node, difference)
                    maybe()
            for node in NODES:
                plant.report(node)
        outcomes.append([event[2:5] for event in plant.registry.history("cell")])
        assert plant.running() == dict.fromkeys(NODES, (3, "fleet"))
        for told in plant.counters.values():
            assert told == sorted(set(told))
        plant.registry.close()
    assert all(one == outcomes[0] for one in outcomes)


def test_what_was_said_before_a_crash_is_said_again_with_the_same_bytes(plant: Plant) -> None:
    tried(plant)
    before = {node: say.payload for node, say in plant.bus.items()}
    plant.bus.clear()
    plant.crash()
    assert {node: say.payload for node, say in plant.bus.items()} == before


def test_a_report_that_comes_again_late_counts_once(plant: Plant) -> None:
    canary = tried(plant)[0]
    plant.blocks(canary, 0.1)
    old = plant.said[canary]
    plant.blocks(canary, 0.1)
    plant.crash()
    plant.hear(plant.releases.on_report(canary, old, plant.now))
    plant.blocks(canary, 0.1)
    trial = plant.releases.state.trial
    assert trial is not None and trial.tallies[canary].pairs == 30


def test_a_release_is_renewed_before_it_may_no_longer_be_taken_up(plant: Plant) -> None:
    plant.fleet_of(1)
    until = Envelope[Release].decode(plant.bus["s1/dry"].payload).valid_until
    plant.tick()
    assert Envelope[Release].decode(plant.bus["s1/dry"].payload).valid_until == until
    plant.now += 16 * DAY
    plant.tick()
    assert Envelope[Release].decode(plant.bus["s1/dry"].payload).valid_until > until


def wish(plant: Plant, kind: str, version: int | None = None, node: str | None = None) -> str:
    number = plant.registry.wish("cell", kind, version=version, node=node, by="eva", why="I say so")  # type: ignore[arg-type]
    plant.tick()
    return plant.registry.answered(number) or ""


def test_a_pinned_node_keeps_its_version_and_is_no_canary(plant: Plant) -> None:
    plant.fleet_of(1)
    plant.settings = plant.settings.model_copy(update={"canaries": 9})
    plant.crash()
    for node in NODES:
        plant.report(node)
    assert wish(plant, "pin", 1, "s1/dry") == "done"
    plant.add(2)
    plant.tick()
    assert "s1/dry" not in plant.canaries() and len(plant.canaries()) == 3
    assert wish(plant, "release", 2) == "done"
    assert plant.running() == {**dict.fromkeys(NODES, (2, "fleet")), "s1/dry": (1, "fleet")}
    assert wish(plant, "unpin", node="s1/dry") == "done"
    assert plant.running()["s1/dry"] == (2, "fleet")
    assert [event.what for event in plant.registry.history("cell", 1)][-3:] == ["pinned", "former", "unpinned"]


def test_an_operator_takes_back_what_the_fleet_runs_by_name_and_reason(plant: Plant) -> None:
    plant.fleet_of(1)
    plant.add(2)
    assert wish(plant, "release", 2) == "done"
    assert wish(plant, "rollback") == "done"
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    assert {plant.release(node).instead_of for node in NODES} == {2}
    assert plant.last(2) == ("rolled_back", "eva", "I say so")
    assert wish(plant, "rollback").startswith("refused: there is no version before it")


def test_an_operator_ends_a_trial(plant: Plant) -> None:
    tried(plant)
    assert wish(plant, "rollback") == "done"
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    assert plant.last(2) == ("rolled_back", "eva", "I say so")


@pytest.mark.parametrize(
    ("kind", "version", "node", "cure"),
    [
        ("release", 9, None, "kept are 1, 2"),
        ("pin", 1, "s1/moon", "there are: s1/dry"),
        ("unpin", None, "s1/dry", "not pinned"),
        ("try", 1, None, "only a higher one is tried"),
    ],
)
def test_a_wish_that_cannot_be_is_answered_with_the_cure(
    plant: Plant, kind: str, version: int | None, node: str | None, cure: str
) -> None:
    plant.fleet_of(1)
    plant.scores = {2: 0.0}
    plant.add(2)
    plant.tick()
    found = wish(plant, kind, version, node)
    assert found.startswith("refused: ") and cure in found


def test_a_node_that_was_away_for_a_while_is_brought_back_to_what_the_fleet_runs(plant: Plant) -> None:
    plant.fleet_of(1)
    plant.add(2)
    plant.away = {"s1/dry"}
    assert wish(plant, "release", 2) == "done"
    assert wish(plant, "rollback") == "done"
    plant.away = set()
    plant.obey()
    plant.report("s1/dry")
    plant.add(3)
    assert wish(plant, "release", 3) == "done"
    plant.away = {"s1/dry"}
    for node in NODES:
        plant.report(node, running=3)
    assert wish(plant, "rollback") == "done" and plant.runs["s1/dry"] == 3
    plant.crash()
    plant.now += 16 * DAY
    plant.tick()  # the release is renewed before the node is heard of again
    plant.away = set()
    plant.obey()
    plant.report("s1/dry", refused="older than what runs")
    assert plant.runs == dict.fromkeys(NODES, 1) and not any(plant.refused.values())


def test_a_node_that_runs_a_version_nobody_remembers_is_told_ours_in_its_place(plant: Plant) -> None:
    plant.now = 10**15 - DAY
    plant.fleet_of(1)
    plant.runs["s1/dry"] = 7
    plant.report("s1/dry", counter=10**15)
    envelope = Envelope[Release].decode(plant.bus["s1/dry"].payload)
    assert (envelope.body.version, envelope.body.instead_of) == (1, 7) and envelope.counter > 10**15
    plant.report("s1/humid", running=7, counter=2**53 - 1)
    ahead = Envelope[Release].decode(plant.bus["s1/humid"].payload).counter
    assert plant.now < ahead <= plant.now + 31 * DAY, "a report that lies about counters does not use them up"
    assert plant.add(2) == 8, "numbers that others know are not used for other bytes"
    plant.report("s1/dry", running=2**53 - 1, counter=2**53 - 1)
    plant.report("s1/dry")
    assert plant.add(3) == 9, "a node that lies does not use up the numbers"


def test_artefacts_travel_in_parts_and_those_on_the_bus_are_those_that_run(plant: Plant) -> None:
    tried(plant)
    versions = [plant.registry.version("cell", number) for number in (1, 2)]
    assert plant.releases.artefacts() == {one for version in versions for one in version.artefacts}
    data = bytes(range(256)) * 1024 * 5
    sent = list(parts(data))
    assert b"".join(part.data for _, part in sent) == data and len(sent) == Artefact.of(data).parts
    assert max(len(part.data) for _, part in sent) == PART_BYTES


def test_a_node_that_is_no_more_is_forgotten(plant: Plant) -> None:
    plant.fleet_of(1)
    plant.releases.forget("s1/dry", plant.now)
    plant.crash()
    assert {say.node for say in plant.releases.all()} == set(NODES) - {"s1/dry"}


def test_more_nodes_than_are_remembered_are_refused(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.rollout.NODES", 3)
    for node in NODES[:3]:
        plant.report(node)
    with pytest.raises(BadMessage, match="3 nodes"):
        plant.report(NODES[3])


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_in_whatever_order_every_node_ends_where_it_should(tmp_path: Path, seed: int) -> None:
    """Candidates, reports, wishes, crashes and nodes that are away, at random; then quiet."""
    plant = Plant(tmp_path / "models.db", ReleaseSettings(canaries=2, test=CanaryTest(margin=0.1), trial_s=3600))
    rng = np.random.default_rng(seed)
    plant.fleet_of(1)
    origin, kinds = 1, ("release", "rollback", "pin", "unpin", "try")
    for _ in range(120):
        event, node = int(rng.integers(8)), str(rng.choice(NODES))
        if event == 0:
            origin += 1
            plant.add(origin)
        elif event == 1:
            plant.crash()
        elif event == 2:
            plant.away ^= {node}
            plant.obey()
        elif event == 3 and rng.random() < 0.5:
            version = int(rng.integers(1, origin + 1)) if rng.random() < 0.8 else None
            wish(plant, str(rng.choice(kinds)), version, node)
        elif event == 4 and node in plant.canaries() and node not in plant.away:
            plant.blocks(node, float(rng.choice([-2.0, 0.5])), trips=int(rng.random() < 0.1))
        elif node not in plant.away:
            plant.report(node)
        else:
            plant.tick()
        state, trial = plant.releases.state, plant.releases.state.trial
        proven = {event.version for event in plant.registry.history("cell") if event.what in ("fleet", "pinned")}
        assert {node for node, (version, _) in plant.running().items() if version not in proven} <= set(
            plant.canaries()
        )
        assert len(plant.canaries()) <= 2 and set(plant.canaries()) == set(trial.tallies if trial else ())
        assert all(plant.running()[node][0] == version for node, version in state.pins.items())
    plant.away = set()
    plant.now += 2 * 3600 * 10**6
    for _ in range(3):
        plant.tick()
        plant.obey()
        for node in NODES:
            plant.report(node, refused="older" if plant.refused[node] else None)
    state = plant.releases.state
    tried = state.trial.tallies if state.trial else {}
    assert {node: plant.runs[node] for node in NODES} == {
        node: state.fleet if node in tried else state.pins.get(node, state.fleet) for node in NODES
    }
    for told in plant.counters.values():
        assert told == sorted(set(told))
    plant.registry.close()
