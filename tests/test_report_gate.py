"""Releases follow from what nodes say of their models: only what a node's own key signed counts, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_rig import CLOUD, key_of, settings
from structlog.testing import capture_logs
from test_early_reports import FACE, on_time, told

from cloud.early_reports import MODELS, MOST_BYTES
from cloud.report_gate import MOST, MOST_COUNT, MOST_M2
from cloud.site_learning import UNKNOWN_S, SiteLearning
from cloud.trials import ReleaseSettings, Trial
from cloud.versions import Draft
from messages.clock import SECOND
from messages.learning import Arm, ModelReport, Paired
from messages.signing import SigningKey, sign

T0 = 1_000 * SECOND
NODES = ("dry", "humid", "worn")
CANARIES = ("s1/dry", "s1/humid")


class Site:
    """A cloud without a bus, three nodes with keys of their own, and version 1 on all of them."""

    def __init__(self, folder: Path, **given: Any) -> None:
        self.folder, self.given, self.now = folder, given, T0
        self.core = self.begin()

    def begin(self) -> SiteLearning:
        releases = {"named": CANARIES, **self.given.pop("releases", {})}
        self.given["releases"] = releases
        return SiteLearning(settings(self.folder, **self.given), site="s1", data=self.folder, key=CLOUD)

    def crash(self) -> None:
        self.core.close()
        self.core = self.begin()
        for node in NODES:
            self.core.on_presence(node, online=True)

    def enrol(self, *nodes: str) -> None:
        for node in nodes:
            self.core.on_capability(node, key_of(node).public, self.now)
            self.core.on_presence(node, online=True)

    def add(self) -> int:
        draft = Draft(model="detector", graph=b"graph %d" % self.now, interface=FACE, origin=f"file {self.now}")
        made = self.core.registry.add(draft, now=self.now, by="ann")
        self.tick()
        self.tick()
        return made.version

    def tick(self, seconds: int = 1) -> set[tuple[str, str, int]]:
        self.now += seconds * SECOND
        return told(on_time(self.core, self.now))

    def payload(self, node: str, *, key: SigningKey | None = None, name: str | None = None, **facts: Any) -> bytes:
        """What a node says now, signed."""
        self.now += SECOND
        base = {"model": "detector", "at": self.now, "session": "0" * 8, "seq": self.now, "running": 1}
        return sign(ModelReport.model_validate(base | facts), key or key_of(node), name=name or node)

    def hear(self, node: str, payload: bytes) -> None:
        self.core.on_reports([(node, ModelReport.decode(payload), payload)], self.now)

    def say(self, node: str, **facts: Any) -> bytes:
        payload = self.payload(node, **facts)
        self.hear(node, payload)
        return payload

    def pairs(self, node: str, pairs: int) -> bytes:
        """So many pairs of the trial, all a little better."""
        mean, m2 = 0.01, 0.001 * pairs
        arms = [Arm(version=one, decisions=pairs, blocks=pairs, mean=1.0) for one in (1, 2)]
        paired = [Paired(version=2, against=1, pairs=pairs, mean=mean, m2=m2)]
        return self.payload(node, arms=arms, pairs=paired)

    def tried(self) -> int:
        """Version 2, with its canaries."""
        self.enrol(*NODES)
        for node in NODES:
            self.say(node, running=None)
        assert self.add() == 1
        for node in NODES:
            self.say(node)
        assert self.add() == 2 and self.stage == "canary"
        return 2

    @property
    def stage(self) -> str:
        return self.core.registry.version("detector", 2).stage

    @property
    def counted(self) -> dict[str, int]:
        """Pairs of each canary."""
        trial = self.core._releases["detector"].state.trial
        assert trial is not None
        return {node: tally.pairs for node, tally in trial.tallies.items()}

    @property
    def refused(self) -> float:
        return self.core.figures()["learning_reports_refused"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.core.close()


def of(said: list[Any]) -> list[tuple[str, str]]:
    return [(line["node"], line["reason"]) for line in said if line["event"] == "learning.report_refused"]


BAD = {"arms": [Arm(version=2, decisions=1, trips=1)]}
"""What would take a candidate back at once."""


def spoilt(site: Site, how: str) -> bytes:
    if how == "unsigned":
        return ModelReport.decode(site.payload("dry", **BAD)).model_copy(update={"sig": ""}).encode()
    if how == "another's key":
        return site.payload("dry", key=key_of("worn"), **BAD)
    if how == "another's name":
        return site.payload("worn", **BAD)
    if how == "a key nobody knows":
        return site.payload("dry", key=SigningKey.generate(), **BAD)
    if how == "changed":
        return site.payload("dry", arms=[Arm(version=2, decisions=1)]).replace(b'"trips":0', b'"trips":1')
    return site.payload("dry", note="x" * MOST_BYTES, **BAD) + b" " * MOST_BYTES


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("unsigned", "unsigned"),
        ("another's key", "signature"),
        ("another's name", "signer"),
        ("a key nobody knows", "signature"),
        ("changed", "signature"),
        ("too long", "size"),
    ],
)
def test_what_the_nodes_own_key_did_not_sign_takes_nothing_back_and_is_told_once(
    site: Site, how: str, reason: str
) -> None:
    site.tried()
    with capture_logs() as said:
        for _ in range(40):
            site.hear("dry", spoilt(site, how))
    assert site.stage == "canary" and of(said) == [("dry", reason)] and site.refused == 40
    site.say("dry", **BAD)
    assert site.stage == "rolled_back", "the same, signed"


@pytest.mark.parametrize("crashes", [False, True])
def test_a_report_that_was_recorded_and_is_sent_again_says_nothing_also_to_a_cloud_that_just_began(
    site: Site, crashes: bool
) -> None:
    site.enrol(*NODES)
    recorded = site.payload("dry", running=7, at=2**52)  # of a time when its clock was years ahead
    site.hear("dry", recorded)
    site.tried()
    if crashes:
        site.crash()
    with capture_logs() as said:
        site.hear("dry", recorded)
        site.hear("dry", recorded)
    assert of(said) == [("dry", "replay")] and site.refused == 2
    releases = site.core._releases["detector"]
    assert "s1/dry" not in releases._rollout.run(7)


def test_what_the_broker_retains_is_said_again_and_counts_once(site: Site) -> None:
    site.tried()
    newest = site.pairs("dry", 10)
    for _ in range(3):
        site.hear("dry", newest)
        site.crash()
        site.hear("dry", newest)
    assert site.counted["s1/dry"] == 10 and site.refused == 0


def test_a_clock_that_is_set_back_silences_no_node(site: Site) -> None:
    site.tried()
    site.say("dry", at=2**52)
    site.say("dry", at=5, **BAD)
    assert site.stage == "rolled_back"


def test_a_report_waits_for_its_nodes_key_and_one_that_none_comes_for_is_told_once(site: Site) -> None:
    assert site.add() == 1
    with capture_logs() as said:
        site.say("dry", running=None)
        site.hear("humid", site.payload("humid", key=key_of("worn")))  # in its name
        assert site.tick() == set() and of(said) == [] and site.refused == 0
        site.enrol("dry", "humid")
        assert site.tick() == {("dry", "detector", 1)}
        assert of(said) == [("humid", "signature")]
        site.say("worn", running=None)
        for _ in range(5):
            assert site.tick(UNKNOWN_S) == set()
    assert of(said)[1:] == [("worn", "unknown")]
    assert "[learning.keys]" in str([line["why"] for line in said if line.get("reason") == "unknown"])


def test_where_only_keys_of_the_settings_count_others_are_told_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, enrol="settings", keys={"dry": key_of("dry").public})
    with closing(site.core):
        site.enrol(*NODES)
        for node in NODES:
            site.say(node, running=None)
        site.core.registry.add(
            Draft(model="detector", graph=b"graph", interface=FACE, origin="a file"), now=site.now, by="ann"
        )
        assert site.tick() | site.tick() == {("dry", "detector", 1)}


def test_a_node_with_a_new_disk_counts_again_when_its_new_key_is_named_and_its_numbers_begin_anew(
    tmp_path: Path,
) -> None:
    site, new = Site(tmp_path), SigningKey.generate()
    site.tried()
    site.core.on_capability("dry", new.public, site.now)
    with capture_logs() as said:
        site.say("dry", key=new, seq=1, **BAD)
    assert of(said) == [("dry", "signature")] and '[learning.keys] "dry"' in str(said[0]["why"])
    assert site.stage == "canary"
    site.given["keys"] = {"dry": new.public}
    site.crash()
    site.say("dry", key=new, seq=1, **BAD)
    assert site.stage == "rolled_back"
    site.core.close()


def test_numbers_of_a_node_that_retired_stay_as_long_as_its_key_is_known(tmp_path: Path) -> None:
    site = Site(tmp_path, keys={"dry": key_of("dry").public})
    site.enrol(*NODES)
    site.add()
    recorded = [site.say(node) for node in NODES]
    for node in NODES:
        site.say(node)
        site.core.on_retired(node, site.now)
    site.crash()
    site.enrol(*NODES)
    with capture_logs() as said:
        for node, payload in zip(NODES, recorded, strict=True):
            site.hear(node, payload)
    assert of(said) == [("dry", "replay")], "the others are new nodes"
    site.core.close()


def test_of_a_quarantined_canary_nothing_counts_and_the_trial_goes_on_without_it(site: Site) -> None:
    site.tried()
    site.hear("dry", site.pairs("dry", 10))
    site.core.schedule.rounds.put_away("dry", why="by hand")
    site.say("dry", **BAD)
    assert site.stage == "canary" and site.counted == {"s1/humid": 0}
    assert [one.what for one in site.core.registry.history("detector", 2)][-1] == "canary_left"
    assert site.core._releases["detector"].state.aim("s1/dry") == (1, "fleet"), "it gets the incumbent"
    site.core.schedule.rounds.put_away("humid", why="by hand")
    site.tick()
    assert site.stage == "inconclusive"


def test_who_is_in_quarantine_becomes_no_canary(site: Site) -> None:
    site.enrol(*NODES)
    site.core.schedule.rounds.put_away("dry", why="by hand")
    site.tried()
    assert site.counted == {"s1/humid": 0}
    assert "canary_left" not in [one.what for one in site.core.registry.history("detector")]


def test_a_node_of_ever_new_models_and_ever_new_nodes_take_no_more_than_their_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.report_gate.NODES", 5)
    site.enrol("dry")
    for number in range(3 * MODELS):
        said = ModelReport.decode(site.payload("dry", model=f"m{number}"))
        site.core.reports.believes("dry", said, sign(said, key_of("dry"), name="dry"))
    assert len(site.core.reports._heard["dry"]) == MODELS
    with capture_logs() as logs:
        for number in range(50):
            for _ in range(3):
                site.core.reports.refuse(f"n{number}", "unsigned", "")
    assert len(of(logs)) == 4


@pytest.mark.parametrize(
    "facts",
    [
        {"pairs": [Paired(version=2, against=1, pairs=100, mean=1e200)]},
        {"pairs": [Paired(version=2, against=1, pairs=100, m2=1e300)]},
        {"pairs": [Paired(version=2, against=1, pairs=10**400)]},
        {"pairs": [Paired(version=2, against=1, pairs=100, cost=-1e308, cost_m2=1.0)], "cost_limit": 1.0},
        {"arms": [Arm(version=1, mean=1e308)]},
        {"cost_limit": 1e300},
    ],
)
def test_figures_that_no_cell_can_have_do_not_count(site: Site, facts: dict[str, Any]) -> None:
    site.tried()
    with capture_logs() as said:
        site.say("dry", **facts)
    assert of(said) == [("dry", "figures")] and site.counted["s1/dry"] == 0
    site.crash()
    assert site.stage == "canary"


FIGURE = st.floats(-MOST, MOST)
SQUARES = st.floats(0, MOST_M2)
COUNT = st.one_of(st.integers(0, 100), st.integers(0, MOST_COUNT))
SAID = st.tuples(st.sampled_from(CANARIES), COUNT, FIGURE, SQUARES, FIGURE, FIGURE, SQUARES, st.booleans())


@given(st.lists(SAID, min_size=1, max_size=6))
def test_whatever_passes_is_judged_without_an_error_and_is_kept_as_it_is(said: list[Any]) -> None:
    """One canary may say anything: it decides on its release at most, and never ends the cloud or keeps it from
    beginning again."""
    trial, ruled = Trial.of(2, against=1, nodes=CANARIES, began=T0), ReleaseSettings()
    for number, (node, pairs, mean, m2, level, cost, cost_m2, limited) in enumerate(said):
        report = ModelReport(
            model="detector",
            at=T0,
            session=f"{number // 2:08x}",
            arms=[Arm(version=one, decisions=pairs, blocks=pairs, mean=level, cost=cost) for one in (1, 2)],
            pairs=[Paired(version=2, against=1, pairs=pairs, mean=mean, m2=m2, cost=cost, cost_m2=cost_m2)],
            cost_limit=abs(level) if limited else None,
        )
        trial = trial.having(node, report, T0)
        trial.ended(node, report, ruled, T0, told=None)
        trial.late(ruled, T0 + 10**15)
        assert Trial.model_validate_json(trial.model_dump_json()) == trial
