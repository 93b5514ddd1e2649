"""What a node takes of releases: what is signed, whole, newer and sound; old or new after a power cut, never mixed."""

from __future__ import annotations

import queue
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arms import CanarySettings
from edge.files import Files
from edge.models import Models
from edge.policy import F32, NONE
from messages.errors import StoreDown
from messages.learning import MAX_ARTEFACT, PART_BYTES, Artefact, Release
from messages.network import Network
from messages.signing import SigningKey
from tests.hostile import call, whole
from tests.hostile import model as plain
from tests.releasing import INTERFACE, LONG, NET, NOW, Card, PowerCut, Released, graph, node, vector, wanting

STATE = np.float32([0.2, 0.4, 0.6])


def runs(models: Models) -> tuple[int, bytes] | None:
    """Version and parameters of what decides next."""
    turn = models.turn("cell")
    return None if turn is None else (turn.policy.version, turn.policy.parameters.tobytes())


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return node(Files(tmp_path))


def test_a_release_runs_when_its_last_part_is_here_and_again_after_a_restart(tmp_path: Path) -> None:
    models = node(Files(tmp_path))
    release = Released(4, counter=1)
    assert models.on_release("cell", release.payload, NOW) == []
    assert {one.sha256 for one in models.wanted} == {Artefact.of(data).sha256 for data in release.artefacts}
    assert models.turn("cell") is None
    report = release.to(models)
    assert (report.running, report.counter, report.refused) == (4, 1, None)
    assert report.sha256 == Artefact.of(release.artefacts[1]).sha256
    assert runs(models) == runs(node(Files(tmp_path))) == (4, release.theta.tobytes())
    assert models.wanted == []


def test_what_is_on_the_disk_is_not_asked_for_again(models: Models) -> None:
    Released(4, counter=1).to(models)
    models.on_release("cell", Released(5, counter=2).payload, NOW)
    assert [one.sha256 for one in models.wanted] == [Artefact.of(Released(5, counter=2).artefacts[1]).sha256]


def test_parts_may_come_in_any_order_and_more_than_once(tmp_path: Path) -> None:
    network = Network(inputs=3, hidden=(400, 400), outputs=2)
    release = Released(4, vector(1, network), counter=1, network=network, code=graph(network))
    assert len(release.parts()) > 3
    for seed in range(5):
        models = node(Files(tmp_path / str(seed)))
        models.on_release("cell", release.payload, NOW)
        parts = release.parts() * 2
        random.Random(seed).shuffle(parts)
        for part in parts:
            models.on_part(*part, NOW)
        assert runs(models) == (4, release.theta.tobytes())


NAN = wanting(1)
NAN[5] = np.nan
REFUSED = {
    "not signed by": Released(5, counter=9, key=SigningKey.from_seed(bytes(32))),
    "whose key is not known": Released(5, counter=9, name="stranger"),
    "not for this node": Released(5, counter=9, target="s1/other"),
    "no longer valid": Released(5, counter=9, valid_until=NOW),
    "not newer than": Released(5, counter=3),
    "is older than 4": Released(3, counter=9),
    "is older than": Released(3, counter=9, instead_of=5),
    "with other bytes": Released(4, vector(99), counter=9),
    "not known here": Released(5, counter=9, stage="everywhere"),
    "are not finite": Released(5, NAN, counter=9),
    "answers are not finite": Released(5, np.full(NET.size, 3e38, np.float32), counter=9),
    "parameters of": Released(5, vector(1)[:-1], counter=9),
    "cut short": Released(5, counter=9, code=graph()[:-1] + b"\x80"),
    "its inputs must be": Released(5, counter=9, code=graph(Network(inputs=4, hidden=(4,), outputs=2))),
    "interface": Released(5, counter=9, interface=INTERFACE.model_copy(update={"features": INTERFACE.features[:2]})),
    "something else": Released(5, counter=9, code=graph().replace(b"Relu", b"Tanh")),
    "named twice": Released(5, counter=9, interface=INTERFACE.model_copy(update={"actions": ["wait", "wait"]})),
    "under the name": Released(5, counter=9, model="oven"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_may_not_run_is_refused_with_the_reason_and_what_runs_goes_on(models: Models, why: str) -> None:
    good = Released(4, counter=3)
    good.to(models)
    bad = REFUSED[why]
    bad.model = "cell"
    report = bad.to(models)
    assert report.refused is not None and (why in report.refused or why == "interface"), report.refused
    assert report.running == 4
    assert runs(models) == (4, good.theta.tobytes())
    assert models.wanted == []
    assert Released(6, counter=10).to(models).running == 6


def test_a_release_may_go_back_only_from_the_version_it_names(models: Models) -> None:
    Released(4, counter=3).to(models)
    assert Released(3, counter=4, instead_of=4).to(models).running == 3


def test_the_same_release_again_changes_nothing_and_another_with_its_counter_is_refused(models: Models) -> None:
    release = Released(4, counter=3)
    first = release.to(models)
    assert models.on_release("cell", release.payload, NOW + 1) == [first.model_copy(update={"at": NOW + 1})]
    assert "not newer" in str(Released(5, counter=3).to(models).refused)


def test_an_answer_names_the_counter_of_the_release_only_if_its_signature_was_good(models: Models) -> None:
    Released(4, counter=3).to(models)
    assert Released(5, counter=11, key=SigningKey.from_seed(bytes(32))).to(models).counter == 0
    assert models.report("cell", NOW).counter == 3
    assert REFUSED["are not finite"].to(models).counter == 9
    assert models.report("cell", NOW).counter == 9


def test_an_old_release_that_comes_again_does_not_make_the_newest_one_look_refused(models: Models) -> None:
    old = Released(4, counter=3)
    old.to(models)
    Released(5, counter=4).to(models)
    report = old.to(models)
    assert (report.counter, "not newer" in str(report.refused)) == (3, True)
    assert (models.report("cell", NOW).counter, models.report("cell", NOW).refused) == (4, None)


def test_each_flipped_byte_of_a_document_or_of_an_artefact_is_refused(tmp_path: Path) -> None:
    models = node(Files(tmp_path))
    Released(4, counter=1).to(models)
    release = Released(5, vector(5), counter=2)
    document = bytearray(release.payload)
    for k in range(len(document)):
        document[k] ^= 1 << k % 8
        (report,) = models.on_release("cell", bytes(document), NOW)
        assert report.refused and report.running == 4
        assert models.wanted == []
        document[k] ^= 1 << k % 8
    flipped = 0
    for data in release.artefacts:
        digest = Artefact.of(data).digest
        for k in range(len(data)):
            models.on_release("cell", release.payload, NOW)
            if not any(one.digest == digest for one in models.wanted):
                continue  # the graph is here already
            broken = bytearray(data)
            broken[k] ^= 1 << k % 8
            (report,) = models.on_part(digest, 0, bytes(broken), NOW)
            assert report.refused and report.running == 4
            flipped += 1
    assert flipped == len(release.artefacts[1])
    assert release.to(models).running == 5


def test_each_flipped_byte_on_the_disk_is_found_and_the_version_before_runs() -> None:
    rng = random.Random(0)
    card = Card(rng)
    old, new = Released(4, counter=1), Released(5, counter=2)
    old.to(node(card))
    new.to(node(card))
    whole = dict(card.now)
    fell = 0
    for name, (data, _) in whole.items():
        for k in range(rng.randrange(23), len(data), 23):
            broken = bytearray(data)
            broken[k] ^= 1 << k % 8
            card.now = {**whole, name: (bytes(broken), True)}
            found = node(card)
            ran = runs(found)
            if name == f"{Artefact.of(graph()).digest}.bin":
                assert ran is None
            else:
                assert ran in ((4, old.theta.tobytes()), (5, new.theta.tobytes()))
            if ran != (5, new.theta.tobytes()):
                fell += 1
                assert new.to(found).running == 5
                assert runs(found) == runs(node(card)) == (5, new.theta.tobytes())
    assert fell > 25


@pytest.mark.parametrize("seed", range(100))
def test_the_power_may_go_at_any_step_and_the_old_or_the_new_version_runs(seed: int) -> None:
    rng = random.Random(seed)
    old, new = Released(4, counter=1), Released(5, counter=2, stage=rng.choice(["fleet", "canary"]))
    card = Card(rng)
    old.to(node(card))
    states = {(4, None), (5, None), (4, 5)}
    cut = 0
    while True:
        cut += rng.choice([1, 2, 3])
        trial = card.after_the_cut()
        models = node(trial)
        trial.cut_at = trial.steps + cut
        try:
            new.to(models)
        except PowerCut:
            pass
        else:
            break
        found = node(trial.after_the_cut())
        pair = found._models["cell"].pair
        assert pair.running is not None
        assert (pair.running.version, pair.candidate and pair.candidate.version) in states
        for active in pair:
            if active is not None:
                right = old if active.version == 4 else new
                assert active.policy.parameters.tobytes() == right.theta.tobytes()
        assert found.report("cell", NOW).refused is None
        if cut % 4 == seed % 4:
            assert new.to(found).refused is None
            again = node(found._shelf._files.after_the_cut())._models["cell"].pair
            assert 5 in [active.version for active in again if active is not None]
    assert cut > 12


def test_memory_is_bounded_by_two_releases_in_flight_and_the_oldest_gives_way(models: Models) -> None:
    for k, name in enumerate(("cell", "oven", "press")):
        release = Released(1, vector(k), counter=1, model=name)
        reports = models.on_release(name, release.payload, NOW)
    (report,) = reports
    assert (report.model, report.counter) == ("cell", 1)
    assert report.refused == "gave way to newer releases; release it again"
    assert len(models.wanted) == 3
    with pytest.raises(ValueError, match="size"):
        Artefact(sha256="0" * 64, size=MAX_ARTEFACT + 1)
    assert models.on_part(models.wanted[0].digest, 10**6, b"x", NOW) == []
    assert models.on_part("0" * 32, 0, b"x" * PART_BYTES, NOW) == []


def test_a_release_whose_artefacts_do_not_come_in_time_is_given_up(models: Models) -> None:
    models.on_release("cell", Released(4, counter=1, valid_until=NOW + 9).payload, NOW)
    assert models.on_time(NOW + 8) == []
    (report,) = models.on_time(NOW + 9)
    assert "in time" in str(report.refused)
    assert models.wanted == []


def test_what_runs_goes_on_after_its_release_is_no_longer_valid(tmp_path: Path) -> None:
    Released(4, counter=1, valid_until=NOW + 9).to(node(Files(tmp_path)))
    models = node(Files(tmp_path))
    models.on_time(NOW + LONG)
    assert runs(models) is not None


class Half:
    """Makes of a version what lies half way to a vector of its own, in `left` steps."""

    def __init__(self, parameters: F32, own: F32, known: int) -> None:
        self.left, self.known = 3, known
        self.vector = ((parameters + own) / 2).astype(np.float32)

    def work(self, steps: int) -> None:
        self.left -= min(steps, self.left)


class Cell:
    """What a cell knows; each of its adaptations comes to another vector."""

    def __init__(self, known: int = 40) -> None:
        self.known = known
        self.asked: list[int] = []
        self.own: F32 | None = None

    def __call__(self, release: Release, parameters: F32, known: int) -> Half | None:
        if self.known < max(10, 2 * known):
            return None
        self.asked.append(release.version)
        return Half(parameters, vector(100 + len(self.asked)) if self.own is None else self.own, self.known)


def half(release: Released, number: int) -> bytes:
    """What decides after the adaptation of this number."""
    return ((release.theta + vector(100 + number)) / 2).astype(np.float32).tobytes()


def adapt(models: Models) -> None:
    """All there is to do, in slices."""
    for _ in range(20):
        models.adapt(1)
        models.on_time(NOW)
        if not models.adapting:
            return
    raise AssertionError("it has no end")


def adaptable(version: int, theta: F32 | None = None, *, counter: int, stage: str = "fleet") -> Released:
    return Released(version, theta, counter=counter, shared=NET.size, stage=stage)


def test_a_version_is_adapted_in_slices_before_it_decides_and_what_runs_goes_on_meanwhile(tmp_path: Path) -> None:
    cell = Cell()
    models = node(Files(tmp_path), adapt=cell)
    old, new = Released(3, counter=1), adaptable(4, counter=2)
    old.to(models)
    models.on_release("cell", new.payload, NOW)
    for part in new.parts():
        assert models.on_part(*part, NOW) == []
    for _ in range(2):
        models.adapt(1)
        assert models.on_time(NOW) == [] and models.adapting and runs(models) == (3, old.theta.tobytes())
    models.adapt(1)
    (report,) = models.on_time(NOW)
    assert report.running == 4 and not models.adapting
    assert runs(models) == runs(node(Files(tmp_path), adapt=cell)) == (4, half(new, 1)) and cell.asked == [4]


def test_what_was_made_of_a_version_goes_with_it_from_its_trial_to_the_fleet_and_then_away(tmp_path: Path) -> None:
    cell = Cell()
    models = node(Files(tmp_path), adapt=cell)
    first, second = adaptable(4, counter=1), adaptable(5, counter=2, stage="canary")
    for release in (first, second):
        models.on_release("cell", release.payload, NOW)
        for part in release.parts():
            models.on_part(*part, NOW)
        adapt(models)
    assert cell.asked == [4, 5, 4], "a trial compares two versions that know the same"
    again = node(Files(tmp_path), adapt=cell)
    for found in (models, again):
        turns = [found.turn("cell") for _ in range(80)]
        decides = {turn.policy.version: turn.policy.parameters.tobytes() for turn in turns if turn is not None}
        assert decides == {4: half(first, 3), 5: half(second, 2)}
    adaptable(5, second.theta, counter=3).to(again)
    assert runs(again) == (5, half(second, 2)) == runs(node(Files(tmp_path), adapt=cell)) and len(cell.asked) == 3
    as_it_is = Released(6, counter=4)
    as_it_is.to(again)
    adapt(again)
    assert runs(again) == (6, as_it_is.theta.tobytes()) and len(cell.asked) == 3
    for version in (7, 8):
        Released(version, counter=version - 2).to(again)
    assert not list(tmp_path.glob("*.own")), "it goes with its version"


def test_a_version_decides_as_it_is_until_enough_is_known_and_is_adapted_when_twice_as_much_is(tmp_path: Path) -> None:
    cell = Cell(known=9)
    models = node(Files(tmp_path), adapt=cell)
    release = adaptable(4, counter=1)
    release.to(models)
    for known, number in ((9, 0), (10, 1), (19, 1), (20, 2), (39, 2), (40, 3)):
        cell.known = known
        adapt(models)
        decides = (4, half(release, number) if number else release.theta.tobytes())
        assert runs(models) == decides == runs(node(Files(tmp_path), adapt=None)), known
    assert cell.asked == [4] * 3
    cell.known = 79
    adapt(node(Files(tmp_path), adapt=cell))
    assert cell.asked == [4] * 3, "how much was known is kept, too"


@pytest.mark.parametrize("large", [np.inf, 3e38])
def test_what_is_broken_or_no_number_is_as_good_as_none_and_is_not_made_for_ever(tmp_path: Path, large: float) -> None:
    cell = Cell()
    cell.own = np.full(NET.size, large, np.float32)
    models = node(Files(tmp_path), adapt=cell)
    release = adaptable(4, np.abs(vector(4)), counter=1)
    models.on_release("cell", release.payload, NOW)
    for part in release.parts():
        models.on_part(*part, NOW)
    for _ in range(3):
        adapt(models)
    assert runs(models) == (4, release.theta.tobytes()) and cell.asked == [4]
    assert not list(tmp_path.glob("*.own"))
    cell.own = None
    adapt(node(Files(tmp_path), adapt=cell))
    (file,) = tmp_path.glob("*.own")
    data = bytearray(file.read_bytes())
    data[44] ^= 1
    file.write_bytes(bytes(data))
    assert runs(node(Files(tmp_path))) == (4, release.theta.tobytes())


def test_what_a_full_disk_does_not_take_does_not_decide_and_is_tried_again(tmp_path: Path) -> None:
    class Full(Files):
        full = False

        def put(self, name: str, data: bytes) -> None:
            if self.full and name.endswith(".own"):
                raise StoreDown("no room")
            super().put(name, data)

    files, cell = Full(tmp_path), Cell(known=5)
    models = node(files, adapt=cell)
    release = adaptable(4, counter=1)
    release.to(models)
    cell.known, files.full = 40, True
    for _ in range(2):
        models.adapt(1)
    for _ in range(2):
        with pytest.raises(StoreDown):
            models.adapt(1)
        assert runs(models) == (4, release.theta.tobytes()) and models.adapting
    files.full = False
    adapt(models)
    assert runs(models) == (4, half(release, 1)) and cell.asked == [4]


CANARY = CanarySettings(block=5, washout=2)
OVERFLOWS = wanting(1)
"""Its answer is a number unless the first and the last feature are large and the one between them is small."""
_BODY = OVERFLOWS[: NET.slices[0].stop].reshape(3, 4)
_BODY[:, 0] = 2e38, -2e38, 0
_BODY[:, 1] = 0, -2e38, 2e38
OVERFLOWS[NET.slices[2].start :][:4] = 1, 0, 1, 0


@pytest.mark.parametrize("fault", ["trip", "non-finite"])
def test_a_candidate_that_goes_wrong_is_taken_back_at_once_and_stays_so(tmp_path: Path, fault: str) -> None:
    models = node(Files(tmp_path), canary=CANARY)
    Released(4, counter=1).to(models)
    release = Released(5, OVERFLOWS, counter=2, stage="canary")
    assert release.to(models).refused is None
    while (turn := models.turn("cell")) is not None and turn.policy.version != 5:
        assert models.decided(turn, NOW, trip=True) == []
    assert turn is not None
    with np.errstate(all="ignore"):
        assert turn.policy.decide(np.float32([1, 0, 0]) if fault == "trip" else np.float32([1, 0, 1])) == (
            0 if fault == "trip" else NONE
        )
    (report,) = models.decided(turn, NOW, trip=fault == "trip")
    assert report.running == 4 and "version 5 was taken back" in str(report.refused)
    arm = next(arm for arm in report.arms if arm.version == 5)
    assert (arm.trips, arm.non_finite) == ((1, 0) if fault == "trip" else (0, 1))
    models.on_time(NOW)
    for again in (models, node(Files(tmp_path), canary=CANARY)):
        assert {again.turn("cell").policy.version for _ in range(40)} == {4}  # type: ignore[union-attr]
        (answer,) = again.on_release("cell", release.payload, NOW)
        assert answer.running == 4 and "version 5 was taken back" in str(answer.refused)
    assert Released(5, counter=3).to(again).running == 5


def test_a_fleet_release_ends_the_canary(models: Models) -> None:
    Released(4, counter=1).to(models)
    Released(5, counter=2, stage="canary").to(models)
    report = Released(5, counter=3).to(models)
    assert report.running == 5
    assert {models.turn("cell").policy.version for _ in range(100)} == {5}  # type: ignore[union-attr]


def test_a_full_disk_is_said_and_the_release_runs_when_there_is_room(tmp_path: Path) -> None:
    class Full(Files):
        full = True

        def write(self, name: str, data: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().write(name, data)

    files = Full(tmp_path)
    models = node(files)
    release = Released(4, counter=1)
    with pytest.raises(StoreDown, match="make room"):
        release.to(models)
    assert models.turn("cell") is None
    files.full = False
    (report,) = models.on_time(NOW)
    assert report.running == 4


def test_a_graph_with_its_own_weights_is_released_like_any_other(models: Models) -> None:
    release = Released(4, counter=1, network=None, code=plain().SerializeToString())
    report = release.to(models)
    assert (report.running, report.sha256) == (4, Artefact.of(release.artefacts[0]).sha256)
    turn = models.turn("cell")
    assert turn is not None and turn.policy.engine == "onnxruntime"
    assert turn.policy.values(STATE) == pytest.approx([0.6, 0.6])
    hostile = plain([call("Tile", ["w", "n"])], [whole("n", [10**9])]).SerializeToString()
    assert "Tile" in str(Released(5, counter=2, network=None, code=hostile).to(models).refused)


def test_the_disk_holds_three_versions_at_most_and_what_the_index_before_named(tmp_path: Path) -> None:
    models = node(Files(tmp_path))
    for k in range(1, 9):
        Released(k, counter=k, stage="canary" if k % 3 == 0 else "fleet").to(models)
        names = Files(tmp_path).names()
        assert sum(name.startswith("index") for name in names) <= 2
        assert len([name for name in names if name.endswith(".json") and not name.startswith("index")]) <= 4
        assert len([name for name in names if name.endswith(".bin")]) <= 5
        assert not [name for name in names if name.endswith(".new")]


STEP = st.one_of(
    st.tuples(
        st.just("release"), st.integers(1, 5), st.integers(1, 12), st.sampled_from(["fleet", "canary"]),
        st.sampled_from([None, 1, 2, 3, 4, 5]),
    ),
    st.tuples(st.sampled_from(["restart", "trip"])),
)  # fmt: skip


@given(st.lists(STEP, max_size=12), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_run_of_releases_restarts_and_trips_ends_where_the_rules_say(
    steps: list[tuple[Any, ...]], seed: int
) -> None:
    """The rules as one would write them on a card: counters rise, and versions too, or the release says from which."""
    card = Card(random.Random(seed))
    models, counter, running, candidate = node(card), 0, None, None
    for step in steps:
        if step[0] == "restart":
            card = card.after_the_cut()
            models = node(card)
        elif step[0] == "trip":
            for _ in range(80):
                turn = models.turn("cell")
                if turn is not None and turn.policy.version == candidate:
                    models.decided(turn, NOW, trip=True)
                    models.on_time(NOW)
                    candidate = None
        else:
            _, version, number, stage, instead_of = step
            report = Released(version, counter=number, stage=stage, instead_of=instead_of).to(models)
            taken = number > counter and (running is None or version >= running or instead_of == running)
            if taken:
                counter = number
                beside = stage == "canary" and version != running
                running, candidate = (running, version) if beside else (version, None)
            assert (report.refused is None) <= (taken or number == counter), report
        turns = {turn.policy.version for _ in range(80) if (turn := models.turn("cell")) is not None}
        assert turns == {one for one in (running, candidate) if one is not None}
        assert models.report("cell", NOW).running == running


def test_releases_may_come_from_another_thread_while_decisions_are_made() -> None:
    """Every decision is one whole version's, whatever is being installed."""
    card = Card(random.Random(1))
    models = node(card)
    Released(1, counter=1).to(models)
    right = {version: vector(version).tobytes() for version in range(1, 31)}
    done, wrong, seen, first = threading.Event(), list[str](), set[int](), queue.Queue[int]()

    def decide() -> None:
        try:
            while not done.is_set():
                turn = models.turn("cell")
                assert turn is not None and turn.policy.parameters.tobytes() == right[turn.policy.version]
                assert turn.policy.decide(STATE) != NONE
                models.decided(turn, NOW, trip=len(seen) % 7 == 3 and turn.policy.version not in seen)
                models.outcome(turn, 1.0, 1.0)
                models.report("cell", NOW)
                if turn.policy.version not in seen:
                    seen.add(turn.policy.version)
                    first.put(turn.policy.version)
        except BaseException as error:
            wrong.append(repr(error))
            first.put(0)

    thread = threading.Thread(target=decide)
    thread.start()
    try:
        for version in range(2, 31):
            stage = "canary" if version % 2 else "fleet"
            assert Released(version, counter=version, stage=stage).to(models).refused is None
            models.on_time(NOW)
            while stage == "fleet" and not wrong and first.get(timeout=60) not in (0, version):
                pass
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert seen >= set(range(2, 31, 2))
