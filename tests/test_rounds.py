"""Rounds: quorum, deadline, late ones by policy, hostile ones named, and a crash that forgets nothing it answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cloud.aggregation import Mean
from cloud.gate import GateSettings, Taken
from cloud.quarantine import Refused
from cloud.round_updates import LOOKS
from cloud.roundbook import KEPT_ROUNDS, RoundBook
from cloud.rounds import Candidate, Rounds, RoundSettings
from cloud.rows import Rows
from messages.contracts import Envelope
from messages.errors import BrokenInvariant, UsageError
from messages.learning import Feature, Interface, Round, Training, Update, UpdateHead
from messages.network import Network
from messages.signing import SigningKey, public_key
from messages.updates import signed

NET = Network(inputs=3, hidden=(8,), outputs=2)
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"])
NODES = [f"node-{k}" for k in range(8)]
SECRET = {node: SigningKey.from_seed(bytes([k]) * 32) for k, node in enumerate(NODES)}
KEYS = {node: public_key(key.public) for node, key in SECRET.items()}
SECOND = 1_000_000
PLAIN = RoundSettings(
    deadline_s=100,
    quorum=2,
    experience=0,
    training=Training(steps=50),
    codec="float32",
    whole=False,
    aggregate=Mean(),
)
BASE = np.arange(NET.size, dtype=np.float32)


class Cloud:
    """Rounds with a registry that is a list, and a clock that is a number."""

    def __init__(self, path: Path, settings: RoundSettings = PLAIN, keys: Iterable[str] = NODES) -> None:
        self.path, self.settings, self.keys = path, settings, list(keys)
        self.made: list[Candidate] = []
        self.now = 1_000 * SECOND
        self.start()

    def start(self) -> None:
        self.book = RoundBook(self.path / "rounds.db")
        self.rounds = Rounds(
            self.settings, self.book, keys={name: KEYS[name] for name in self.keys}, register=self.register
        )

    def crash(self) -> None:
        self.book.close()
        self.start()

    def register(self, candidate: Candidate) -> int:
        self.made = [one for one in self.made if one.round != candidate.round] + [candidate]
        return len(self.made)

    def open(self, *expected: str) -> Round:
        return self.rounds.open(self.now, network=NET, interface=FACE, expected=expected)

    def send(self, node: str, value: float = 1.0, *, number: int | None = None, **head: object) -> Taken | Refused:
        return self.put(node, self.update(node, value, number=number, **head), number=number)

    def update(self, node: str, value: float = 1.0, *, number: int | None = None, **head: object) -> Update:
        asked = self.rounds.current
        assert asked
        facts = {"samples": 100, "base": asked.base.sha256, "at": self.now, "round": number or asked.round, **head}
        delta = np.full(NET.shared, value, np.float32)
        return signed(UpdateHead(model="cell", codec="float32", **facts), delta, SECRET[node], name=node)  # type: ignore[arg-type]

    def put(self, node: str, update: Update, *, number: int | None = None) -> Taken | Refused:
        asked = self.rounds.current
        assert asked
        return self.rounds.on_updates([(node, number or asked.round, update)], self.now)[0]

    def after(self, seconds: float) -> Round | None:
        self.now += round(seconds * SECOND)
        return self.rounds.on_time(self.now)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    one = Cloud(tmp_path)
    one.rounds.rebase(BASE, version=0)
    yield one
    one.book.close()


Start = Callable[..., Cloud]


@pytest.fixture
def cloud_with(tmp_path: Path) -> Iterator[Start]:
    made: list[Cloud] = []

    def start(**settings: object) -> Cloud:
        made.append(Cloud(tmp_path, PLAIN.model_copy(update=settings)))
        made[-1].rounds.rebase(BASE, version=0)
        return made[-1]

    yield start
    for one in made:
        one.book.close()


def test_what_the_nodes_learned_is_averaged_by_samples_into_a_version_and_heads_stay_as_they_were(cloud: Cloud) -> None:
    asked = cloud.open()
    assert asked.base_version == 0 and asked.shared == NET.shared and asked.base.size == 4 * NET.size
    cloud.send("node-0", 1.0, samples=300)
    cloud.send("node-1", -1.0, samples=100)
    assert cloud.after(99) is None
    done = cloud.after(1)
    assert done and done.closed and done.closed.version == 1
    assert done.closed.taken == {"node-0": 300, "node-1": 100}
    (candidate,) = cloud.made
    assert (candidate.parent, candidate.round) == (0, 1)
    assert np.allclose(candidate.parameters[: NET.shared], BASE[: NET.shared] + 0.5)
    assert (candidate.parameters[NET.shared :] == BASE[NET.shared :]).all()
    assert cloud.open().base_version == 1 and np.allclose(cloud.rounds.base, candidate.parameters)


def test_the_rate_is_how_far_the_base_goes(cloud_with: Start) -> None:
    cloud = cloud_with(rate=0.5)
    cloud.open()
    cloud.send("node-0", 1.0)
    cloud.send("node-1", 1.0)
    cloud.after(100)
    assert np.allclose(cloud.made[0].parameters[: NET.shared], BASE[: NET.shared] + 0.5)


def test_the_head_is_learned_together_too_if_the_whole_is_asked_for(cloud_with: Start) -> None:
    cloud = cloud_with(whole=True)
    assert cloud.open().shared == NET.size
    refused = cloud.send("node-2")
    assert isinstance(refused, Refused) and refused.reason == "shape"
    for node in ("node-0", "node-1"):
        asked = cloud.rounds.current
        assert asked
        head = UpdateHead(model="cell", round=1, base=asked.base.sha256, at=cloud.now, codec="float32", samples=1)
        cloud.put(node, signed(head, np.ones(NET.size, np.float32), SECRET[node], name=node))
    cloud.after(100)
    assert np.allclose(cloud.made[0].parameters, BASE + 1)


def test_fewer_than_the_quorum_make_no_version_and_the_base_stays(cloud: Cloud) -> None:
    cloud.open("node-0", "node-1")
    cloud.send("node-0")
    done = cloud.after(100)
    assert done and done.closed and done.closed.version is None and done.closed.late == ["node-1"]
    assert not cloud.made and (cloud.rounds.base == BASE).all()
    assert cloud.open().base_version == 0


def test_a_round_closes_as_soon_as_everybody_expected_was_heard_and_once(cloud: Cloud) -> None:
    cloud.open("node-0", "node-1")
    cloud.send("node-0")
    assert cloud.after(1) is None
    cloud.send("node-1", float("nan"))
    done = cloud.after(1)
    assert done and done.closed and set(done.closed.refused) == {"node-1"} and not done.closed.late
    assert cloud.after(1_000) is None and cloud.rounds.due is None


def test_without_anybody_expected_a_round_is_open_until_its_deadline(cloud: Cloud) -> None:
    asked = cloud.open()
    for node in NODES:
        cloud.send(node)
    assert cloud.after(1) is None and cloud.rounds.due == asked.deadline


def test_the_same_bytes_again_get_the_same_answer_and_count_once(cloud: Cloud) -> None:
    cloud.open()
    update = cloud.update("node-0")
    first = cloud.put("node-0", update)
    cloud.now += SECOND
    assert cloud.put("node-0", update) is first
    cloud.send("node-1", 3.0)
    done = cloud.after(100)
    assert done and done.closed and done.closed.taken == {"node-0": 100, "node-1": 100}


def test_a_second_other_update_is_refused_and_named_while_the_first_counts(cloud: Cloud) -> None:
    cloud.open()
    cloud.send("node-0", 1.0)
    again = cloud.send("node-0", 9.0)
    assert isinstance(again, Refused) and again.reason == "changed"
    cloud.send("node-1", 1.0)
    cloud.crash()
    done = cloud.after(100)
    assert done and done.closed and "changed" in done.closed.refused["node-0"]
    assert np.allclose(cloud.made[0].parameters[: NET.shared], BASE[: NET.shared] + 1)
    assert "changed" in cloud.rounds.evidence("node-0")[0]


def test_what_somebody_else_could_have_sent_does_not_take_a_nodes_place(cloud: Cloud) -> None:
    cloud.open()
    forged = cloud.update("node-1")
    assert isinstance(cloud.put("node-0", forged), Refused)
    cloud.rounds.on_bad("node-0", "no safetensors file", cloud.now)
    assert isinstance(cloud.send("node-0"), Taken)
    cloud.rounds.on_bad("node-0", "no safetensors file", cloud.now)
    assert isinstance(cloud.put("node-0", forged), Refused)
    cloud.send("node-1")
    done = cloud.after(100)
    assert done and done.closed and not done.closed.refused and set(done.closed.taken) == {"node-0", "node-1"}


def test_bytes_that_are_no_update_are_named_if_nothing_better_came(cloud: Cloud) -> None:
    cloud.open()
    cloud.rounds.on_bad("node-0", "no safetensors file", cloud.now)
    done = cloud.after(100)
    assert done and done.closed and done.closed.refused == {"node-0": "undecodable: no safetensors file"}


def test_a_node_without_a_key_is_told_the_cure_and_leaves_nothing(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, keys=NODES[:2])
    cloud.rounds.rebase(BASE, version=0)
    cloud.open()
    verdict = cloud.send("node-5")
    assert isinstance(verdict, Refused) and "tell the cloud its public key" in verdict.evidence
    cloud.rounds.on_bad("node-6", "noise", cloud.now)
    assert cloud.rounds.strangers == 1 and not cloud.book.arrivals()
    cloud.book.close()


def test_rounds_that_were_not_opened_and_stale_ones_are_refused(cloud: Cloud) -> None:
    cloud.open()
    base = cloud.rounds.current
    assert base
    for number, reason in ((9, "unknown"), (0, "stale")):
        verdict = cloud.put("node-0", cloud.update("node-0", number=number or None), number=number or None)
        if number:
            assert isinstance(verdict, Refused) and verdict.reason == reason
    for _ in range(2):
        cloud.after(100)
        cloud.open()
    verdict = cloud.send("node-0", number=1, base=base.base.sha256)
    assert isinstance(verdict, Refused) and verdict.reason == "stale" and not verdict.strike
    replayed = cloud.update("node-0", number=2)
    verdict = cloud.put("node-0", replayed)  # signed for round 2, sent for round 3
    assert isinstance(verdict, Refused) and verdict.reason == "replay" and not verdict.strike


@pytest.mark.parametrize("first", [True, False], ids=["before the node answers", "after it"])
def test_recorded_updates_that_anybody_sends_again_neither_silence_their_node_nor_are_held_against_it(
    cloud: Cloud, first: bool
) -> None:
    recorded: Update | None = None
    for _ in range(5):
        cloud.open("node-0", "node-1")
        good = cloud.update("node-0")
        for update in (recorded, good) if first else (good, recorded):
            if update is not None:
                cloud.put("node-0", update)
        cloud.send("node-1")
        recorded, done = good, cloud.after(100)
        assert done and done.closed and set(done.closed.taken) == {"node-0", "node-1"}
    assert not cloud.rounds.evidence("node-0")


def test_what_is_signed_for_less_experience_than_is_asked_for_is_not_counted_and_a_later_answer_is(
    cloud_with: Start,
) -> None:
    cloud = cloud_with(experience=200)
    assert cloud.open("node-0", "node-1").experience == 200
    early = cloud.send("node-0", samples=199)
    assert isinstance(early, Refused) and early.reason == "experience"
    assert cloud.rounds.waited_for == {"node-0", "node-1"}
    assert isinstance(cloud.send("node-0", samples=200), Taken)
    cloud.send("node-1", samples=9)
    done = cloud.after(100)
    assert done and done.closed and set(done.closed.taken) == {"node-0"}
    assert "200 are asked for" in done.closed.refused["node-1"] and not cloud.rounds.evidence("node-1")


def test_rounds_that_train_nothing_ask_for_no_experience(cloud_with: Start) -> None:
    assert cloud_with(experience=200, training=Training(steps=0)).open().experience == 0


# --- late ones ----------------------------------------------------------------------------------------


def test_with_policy_drop_a_late_update_is_stale(cloud_with: Start) -> None:
    cloud = cloud_with(late="drop")
    cloud.open()
    update = cloud.update("node-0")
    cloud.after(100)
    verdict = cloud.put("node-0", update)
    assert isinstance(verdict, Refused) and verdict.reason == "stale"


@pytest.mark.parametrize("when", ["between", "within"])
def test_a_late_update_of_what_was_shared_before_the_settings_changed_is_stale_and_the_cloud_starts_again(
    cloud: Cloud, when: str
) -> None:
    before = cloud.open()
    late = cloud.update("node-3")
    for node in NODES[:3]:
        cloud.send(node)
    cloud.after(100)
    if when == "between":
        assert isinstance(cloud.put("node-3", late, number=before.round), Taken)
    cloud.settings = cloud.settings.model_copy(update={"whole": True})
    cloud.crash()
    asked = cloud.open()
    assert asked.shared > before.shared
    if when == "within":
        verdict = cloud.put("node-3", late, number=before.round)
        assert isinstance(verdict, Refused) and verdict.reason == "stale" and not verdict.strike
    cloud.crash()
    assert cloud.rounds.is_open and "node-3" not in cloud.rounds.quarantined
    assert cloud.after(100) is not None


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("when", ["between", "within"])
def test_with_policy_next_a_late_update_counts_less_in_the_next_round(cloud: Cloud, when: str, crash: bool) -> None:
    cloud.open()
    late = cloud.update("node-0", 4.0)
    cloud.send("node-1")
    cloud.send("node-2")
    cloud.after(100)
    if when == "between":
        assert isinstance(cloud.put("node-0", late), Taken)
        if crash:
            cloud.crash()
    cloud.open()
    if when == "within":
        assert isinstance(cloud.put("node-0", late, number=1), Taken)
        if crash:
            cloud.crash()
    cloud.send("node-1")
    done = cloud.after(100)
    assert done and done.closed and done.closed.taken == {"node-0": 50, "node-1": 100}
    assert np.allclose(cloud.made[-1].parameters[: NET.shared], BASE[: NET.shared] + 1 + 2)


def test_a_nodes_update_for_the_open_round_replaces_its_late_one(cloud: Cloud) -> None:
    cloud.open()
    late = cloud.update("node-0", 4.0)
    cloud.after(100)
    cloud.put("node-0", late)
    cloud.open()
    cloud.send("node-0", 1.0)
    again = cloud.put("node-0", late, number=1)
    assert isinstance(again, Refused) and again.reason == "counted"
    cloud.send("node-1", 1.0)
    done = cloud.after(100)
    assert done and done.closed and done.closed.taken == {"node-0": 100, "node-1": 100}


def test_an_update_that_was_counted_is_not_counted_again_as_a_late_one(cloud: Cloud) -> None:
    cloud.open()
    update = cloud.update("node-0")
    cloud.put("node-0", update)
    cloud.send("node-1")
    cloud.after(100)
    cloud.open()
    verdict = cloud.put("node-0", update, number=1)
    assert isinstance(verdict, Refused) and verdict.reason == "counted" and not verdict.strike


def test_a_late_update_is_not_pushed_out_by_what_anybody_could_have_sent_nor_by_another_late_one(cloud: Cloud) -> None:
    cloud.open()
    late, other, forged = cloud.update("node-0", 4.0), cloud.update("node-0", 9.0), cloud.update("node-1", 9.0)
    cloud.after(100)
    cloud.put("node-0", late)
    assert isinstance(cloud.put("node-0", other), Refused)
    cloud.open()
    assert isinstance(cloud.put("node-0", forged), Refused)
    cloud.rounds.on_bad("node-0", "no safetensors file", cloud.now)
    cloud.send("node-2", 4.0)
    done = cloud.after(100)
    assert done and done.closed and done.closed.taken == {"node-0": 50, "node-2": 100}
    assert np.allclose(cloud.made[-1].parameters[: NET.shared], BASE[: NET.shared] + 4)


def test_a_node_that_is_only_late_is_still_waited_for(cloud: Cloud) -> None:
    cloud.open()
    late = cloud.update("node-0", 4.0)
    cloud.after(100)
    cloud.put("node-0", late)
    cloud.open("node-0")
    assert cloud.after(1) is None
    cloud.send("node-0")
    assert cloud.after(1)


# --- crashes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash_after", range(6))
def test_a_crash_at_any_step_of_a_round_changes_nothing_of_what_comes_out(tmp_path: Path, crash_after: int) -> None:
    sent: dict[tuple[str, str], Update] = {}

    def season(path: Path, crash: int) -> tuple[str, bytes]:
        cloud = Cloud(path)

        def send(node: str, value: float) -> None:
            cloud.put(node, sent.setdefault((node, str(value)), cloud.update(node, value)))

        cloud.rounds.rebase(BASE, version=0)
        steps: list[Callable[[], object]] = [
            lambda: cloud.open("node-0", "node-1", "node-2"),
            lambda: send("node-0", 1.0),
            lambda: send("node-1", float("nan")),
            lambda: send("node-1", 1.0),
            lambda: send("node-2", 2.0),
            lambda: cloud.after(100),
        ]
        for number, step in enumerate(steps):
            step()
            if number == crash:
                cloud.crash()
        said = cloud.rounds.current
        assert said
        found = said.encode().decode(), cloud.rounds.base_bytes
        cloud.book.close()
        return found

    assert season(tmp_path / "a", crash_after) == season(tmp_path / "b", -1)


def test_a_crash_between_the_registry_and_the_disk_registers_the_same_candidate_again(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    cloud.rounds.rebase(BASE, version=0)
    cloud.open()
    cloud.send("node-0", 1.0)
    cloud.send("node-1", 2.0)

    def cut(candidate: Candidate) -> int:
        cloud.register(candidate)
        raise KeyboardInterrupt

    cloud.rounds._register = cut
    with pytest.raises(KeyboardInterrupt):
        cloud.after(100)
    first = cloud.made[0]
    cloud.crash()
    (again,) = cloud.made
    assert (again.parameters == first.parameters).all() and again.taken == first.taken
    done = cloud.rounds.current
    assert done and done.closed and done.closed.version == 1
    assert (cloud.rounds.base == first.parameters).all() and cloud.book.closing() is None
    assert isinstance(cloud.send("node-2", 900.0), Taken), "what comes afterwards is late, and changes nothing of it"
    cloud.crash()
    assert cloud.rounds.current == done and len(cloud.made) == 1
    cloud.book.close()


def test_a_batch_of_updates_is_on_the_disk_together_or_not_at_all(cloud: Cloud) -> None:
    cloud.open()

    def broken() -> Iterator[tuple[str, int, Update]]:
        yield "node-0", 1, cloud.update("node-0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cloud.rounds.on_updates(broken(), cloud.now)
    assert not cloud.book.arrivals()


def test_what_is_said_can_be_said_again_after_a_restart_under_a_counter_that_never_goes_back(cloud: Cloud) -> None:
    counters = [cloud.rounds.counter]
    for _ in range(3):
        cloud.open()
        counters.append(cloud.rounds.counter)
        cloud.send("node-0")
        cloud.send("node-1")
        cloud.after(100)
        counters.append(cloud.rounds.counter)
        said, base = cloud.rounds.current, cloud.rounds.base_bytes
        cloud.crash()
        assert cloud.rounds.current == said and cloud.rounds.base_bytes == base
        assert cloud.rounds.counter == counters[-1]
    assert counters == sorted(set(counters))
    assert said
    envelope = Envelope[Round](key="cell", target="s1/all", counter=counters[-1], valid_until=1, body=said)
    assert Envelope[Round].decode(envelope.encode()).body == said
    assert [one.round for one in cloud.book.history()] == [1, 2, 3]


# --- hostile ones ---------------------------------------------------------------------------------------


def test_a_poisoning_node_is_quarantined_with_its_evidence_and_lifted_by_hand(cloud_with: Start) -> None:
    cloud = cloud_with(gate=GateSettings(strikes=2))
    for _ in range(2):
        cloud.open(*NODES)
        for node in NODES[1:]:
            cloud.send(node)
        cloud.send("node-0", samples=10**12)
        done = cloud.after(1)
        assert done and done.closed and "samples" in done.closed.refused["node-0"]
    assert done.closed.quarantined == ["node-0"] == cloud.rounds.quarantined
    assert any("1000000000000 claimed" in line for line in cloud.rounds.evidence("node-0"))
    cloud.crash()
    cloud.open(*NODES)
    for node in NODES[1:]:
        cloud.send(node)
    done = cloud.after(1)  # nobody waits for a node in quarantine
    assert done and done.closed and "node-0" not in done.closed.taken
    cloud.rounds.lift("node-0")
    cloud.crash()
    cloud.open(*NODES)
    for node in NODES:
        cloud.send(node)
    done = cloud.after(1)
    assert done and done.closed and "node-0" in done.closed.taken


def test_a_node_put_away_by_hand_is_not_averaged(cloud: Cloud) -> None:
    cloud.rounds.put_away("node-0", why="its robot is being rebuilt")
    cloud.open()
    cloud.send("node-0", 50.0)
    cloud.send("node-1")
    cloud.send("node-2")
    done = cloud.after(100)
    assert done and done.closed and done.closed.quarantined == ["node-0"]
    assert np.allclose(cloud.made[0].parameters[: NET.shared], BASE[: NET.shared] + 1)


def test_a_turned_update_is_left_out_of_the_version_it_came_for(cloud: Cloud) -> None:
    cloud.open(*NODES)
    for node in NODES[1:]:
        cloud.send(node)
    cloud.send("node-0", -1.0)
    done = cloud.after(1)
    assert done and done.closed and "against" in done.closed.refused["node-0"]
    assert np.allclose(cloud.made[0].parameters[: NET.shared], BASE[: NET.shared] + 1)


# --- wrong use ------------------------------------------------------------------------------------------


def test_wrong_use_is_told_what_to_do(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    with pytest.raises(UsageError, match="rounds begin with a version"):
        cloud.open()
    cloud.rounds.rebase(BASE[:5], version=0)
    with pytest.raises(UsageError, match="the base has 5 parameters, the network 50"):
        cloud.open()
    cloud.rounds.rebase(BASE, version=0)
    cloud.open()
    with pytest.raises(UsageError, match="round 1 is open"):
        cloud.open()
    with pytest.raises(UsageError, match="when it is closed"):
        cloud.rounds.rebase(BASE, version=1)
    with pytest.raises(BrokenInvariant):
        cloud.book.end(cloud.book.state(), base=None)
    cloud.book.close()


def test_a_book_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    book = RoundBook(tmp_path / "rounds.db")
    book._db.execute("PRAGMA user_version=99")
    book.close()
    with pytest.raises(UsageError, match="newer Shoal"):
        RoundBook(tmp_path / "rounds.db")


def test_the_book_keeps_the_last_rounds_only(cloud: Cloud) -> None:
    asked = cloud.open()
    done = cloud.after(100)
    assert done
    state = cloud.book.state()
    for number in (2, KEPT_ROUNDS + 1, KEPT_ROUNDS + 2):
        cloud.book.end(state.model_copy(update={"current": done.model_copy(update={"round": number})}), base=None)
    assert [one.round for one in cloud.book.history()] == [KEPT_ROUNDS + 1, KEPT_ROUNDS + 2]
    assert asked.round == 1


def test_deltas_are_gathered_as_they_come_and_a_second_one_takes_the_place_of_the_first() -> None:
    rows, names = Rows(3), [f"node-{k}" for k in range(40)]
    for k, name in enumerate(names):
        rows.put(name, np.full(3, k, np.float32))
    rows.put("node-7", np.full(3, -1, np.float32))
    assert rows.names == names
    assert rows.of(names)[:, 0].tolist() == [-1.0 if k == 7 else float(k) for k in range(40)]
    assert np.shares_memory(rows.of(names), rows.of(names[:2])) and rows.of(["node-9", "node-7"])[:, 0].tolist() == [
        9,
        -1,
    ]
    assert rows.of([]).shape == (0, 3)


def test_a_round_that_a_clock_of_the_future_opened_is_closed_and_the_next_one_is_as_ever(cloud: Cloud) -> None:
    year = 365 * 86_400
    cloud.now += year * SECOND
    cloud.open("node-0", "node-1")
    cloud.now -= year * SECOND
    cloud.crash()
    done = cloud.after(1)
    assert done and done.closed and not done.closed.taken
    cloud.open("node-0", "node-1")
    assert isinstance(cloud.send("node-0"), Taken) and isinstance(cloud.send("node-1"), Taken)
    done = cloud.after(1)
    assert done and done.closed and done.closed.version


@pytest.mark.parametrize("value", [60_000.0, 1e18])
def test_in_a_fleet_of_two_nobody_ruins_the_base_with_a_first_update(cloud: Cloud, value: float) -> None:
    cloud.open("node-0", "node-1")
    cloud.send("node-0", 1.0)
    cloud.send("node-1", value)
    done = cloud.after(1)
    assert done and done.closed and done.closed.refused["node-1"].startswith("norm: ")
    assert "times the norm of the base" in done.closed.refused["node-1"]
    assert np.array_equal(cloud.rounds.base, BASE)


def test_a_base_whose_bytes_were_changed_on_the_disk_is_not_begun_with(cloud: Cloud) -> None:
    cloud.open("node-0", "node-1")
    cloud.book._db.execute("UPDATE state SET document = zeroblob(length(document)) WHERE name = 'base'")
    with pytest.raises(UsageError, match=r"rounds\.db.*restore a backup"):
        cloud.crash()


def test_a_flood_in_the_name_of_a_node_is_not_looked_at_and_one_too_long_is_not_either(cloud: Cloud) -> None:
    cloud.open("node-0", "node-1")
    assert isinstance(cloud.send("node-1"), Taken)
    long = Update(head=cloud.update("node-0").head, data=bytes(4 * NET.shared + 65_537))
    said = cloud.put("node-0", long)
    assert isinstance(said, Refused) and said.reason == "size" and not said.strike
    for _ in range(LOOKS):
        said = cloud.put("node-0", cloud.update("node-1"))
    assert isinstance(said, Refused) and said.reason == "rate" and not said.strike
    done = cloud.after(100)
    assert done and done.closed and set(done.closed.taken) == {"node-1"}
    cloud.open("node-0", "node-1")
    assert isinstance(cloud.send("node-0"), Taken)
