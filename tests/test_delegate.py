"""Who judges while the judge is away: the first delegate that is there, never against one that is heard, never two."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.delegate import AWAY, MAX_NODES, Standing, Word
from messages.clock import SECOND
from messages.contracts import Envelope
from messages.negotiation import LAST_TERM, Agenda, Authority, Delegation, JudgeInForce, OpenJob
from messages.pace import PATIENT

T0 = 1_700_000_000 * SECOND
STEP = 30 * SECOND
RENEW, GOOD = 600 * SECOND, 1800 * SECOND
AGENDA_S = round(PATIENT.agenda_s)
AWAY_S = AWAY * AGENDA_S
NODES = ("n1", "n2", "n3", "n4")
DELEGATES = ["n1", "n2", "n3"]
SETTLED = 4
"""Steps after which two nodes of one broker have heard each other."""


def word_of(authority: Authority, judge: str, now: int) -> Word:
    body = JudgeInForce(term=authority.term, session=authority.session, judge=judge, at=now, delegates=DELEGATES)
    return Envelope[JudgeInForce](key="judge", target="s/all", counter=now, valid_until=now + GOOD, body=body)


def jobs(revision: int = 1, term: int = 1) -> Delegation:
    open_jobs = [OpenJob(job=f"j{revision}", product="p", done=0)]
    return Delegation(term=term, session="c0000000", revision=revision, at=T0, jobs=open_jobs)


CLOUD = Authority(1, "c0000000")


@dataclass
class Site:
    """Nodes, their brokers (`group`: who hears whom; none: nobody), a cloud that some of them hear, and time."""

    now: int = T0
    cloud: Authority | None = CLOUD
    cloud_said: int = 0
    cloud_word: Word | None = None
    standings: dict[str, Standing] = field(default_factory=dict)
    group: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(NODES, 0))
    uplink: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(NODES, True))
    links: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NODES, 1))
    said: dict[str, tuple[int, object]] = field(default_factory=dict)
    words: dict[tuple[int, str], Word] = field(default_factory=dict)
    agendas: dict[tuple[int, str], Agenda] = field(default_factory=dict)
    mail: list[tuple[str, str, object]] = field(default_factory=list)
    together: dict[tuple[str, str], int] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for n, name in enumerate(NODES):
            self.standings[name] = Standing(me=name, nodes=NODES)
            if n != 1:  # one delegate was never told of jobs
                self.standings[name].on_delegation(jobs(), self.now)

    # --- what happens ---------------------------------------------------------------------------------

    def join(self, name: str, group: int | None) -> None:
        self.group[name] = group
        self.links[name] += 1
        for key in [key for key in self.together if name in key]:
            self.together[key] = 0
        if group is not None:
            standing = self.standings[name]
            for (where, other), agenda in self.agendas.items():
                if where == group and other != name:
                    standing.on_agenda(other, agenda, self.now, retained=True)
            for (where, _), word in self.words.items():
                if where == group:
                    standing.on_judge(word, self.now, cloud=False)
            self.said.pop(name, None)

    def restart(self, name: str) -> None:
        old = self.standings[name]
        kept = {"judge": old._.model_dump_json().encode()}
        if old._told is not None:
            kept["delegation"] = old._told.model_dump_json().encode()
        self.standings[name] = Standing(me=name, nodes=NODES, kept=kept, obeyed=old.obeyed)
        self.join(name, self.group[name])

    def hear_cloud(self, name: str, hears: bool) -> None:
        self.uplink[name] = hears
        if hears and self.cloud_word is not None:
            self.standings[name].on_judge(self.cloud_word, self.now, cloud=True)

    def step(self, leap: int = 1) -> None:
        self.now += leap * STEP
        self._cloud()
        mail, self.mail = self.mail, []
        for to, speaker, message in mail:
            if self.group[to] is None or self.group[to] != self.group[speaker]:
                continue
            if isinstance(message, Agenda):
                self.standings[to].on_agenda(speaker, message, self.now)
            else:
                self.standings[to].on_judge(message, self.now, cloud=False)  # type: ignore[arg-type]
        for pair in [(a, b) for a in NODES for b in NODES if a != b]:
            group = self.group[pair[0]]
            self.together[pair] = (
                self.together.get(pair, 0) + 1 if group is not None and group == self.group[pair[1]] else 0
            )
        for name in NODES:
            self._node(name)
        self._check()

    def _cloud(self) -> None:
        if self.cloud is None:
            return
        heard = max([self.standings[name].obeyed for name in NODES if self.uplink[name]], default=self.cloud)
        if heard > self.cloud:
            self.cloud, self.cloud_said = Authority(heard.term + 1, self.cloud.session), 0
        if self.now >= self.cloud_said + RENEW:
            self.cloud_said, self.cloud_word = self.now, word_of(self.cloud, "cloud", self.now)
            for name in NODES:
                self.hear_cloud(name, self.uplink[name])

    def _node(self, name: str) -> None:
        standing, group = self.standings[name], self.group[name]
        standing.on_time(self.now, self.links[name] if group is not None else -1)
        if standing.may_begin(self.now):
            self._check_begin(name)
            standing.begin(f"{NODES.index(name) + 10:08x}")
            self.begun.append(name)
        if standing.judging is not None and (standing.until < self.now + GOOD - RENEW or standing.until == 0):
            word = word_of(standing.judging, name, self.now)
            standing.on_judge(word, self.now, cloud=False)
            self._say(name, word)
        told = (standing.obeyed, standing.until, standing.ready)
        at, before = self.said.get(name, (0, None))
        if (told != before or self.now >= at + AGENDA_S * SECOND) and group is not None and standing.obeyed.session:
            self.said[name] = self.now, told
            term, session = standing.obeyed
            self._say(
                name,
                Agenda(
                    term=term,
                    session=session,
                    revision=0,
                    at=self.now,
                    judge_until=standing.until,
                    delegate=standing.ready,
                ),
            )

    def _say(self, name: str, message: Agenda | Word) -> None:
        group = self.group[name]
        if group is None:
            return
        if isinstance(message, Agenda):
            self.agendas[group, name] = message
        else:
            self.words[group, name] = message
        self.mail += [(other, name, message) for other in NODES]

    # --- what must hold -------------------------------------------------------------------------------

    def settled(self, one: str, other: str) -> bool:
        return self.together.get((one, other), 0) >= SETTLED

    def _check_begin(self, name: str) -> None:
        mine = self.standings[name]
        assert name in DELEGATES and mine.ready, "a node without a delegation judges"
        word = mine._.word
        assert word is not None and (word.body.judge == name or word.valid_until <= self.now), f"{name} hears a judge"
        assert mine._.cloud_until <= self.now, f"{name} hears the cloud"
        for other in NODES:
            theirs = self.standings[other]
            if other == name or not self.settled(name, other):
                continue
            word, since = theirs._.word, self.now - theirs._.heard_at
            if word is not None and word.body.judge != name and since >= SETTLED * STEP:
                assert theirs.until <= self.now, f"{name} begins while {other} hears a judge"
            if other in DELEGATES[: DELEGATES.index(name)]:
                assert not theirs.ready, f"{name} begins before {other}"

    def _check(self) -> None:
        judging = [name for name in NODES if self.standings[name].judging is not None]
        for one in judging:
            for other in judging:
                assert one == other or not self.settled(one, other), f"{one} and {other} judge, and hear each other"


def play(site: Site, history: Sequence[tuple[str, int, int, int]]) -> None:
    for what, n, value, steps in history:
        name = NODES[n]
        if what == "cloud":
            site.cloud = None if value else site.cloud or Authority(1, f"c{n:07x}")
        elif what == "uplink":
            site.hear_cloud(name, bool(value))
        elif what == "group":
            site.join(name, (0, 0, 1, None)[value])
        elif what == "restart":
            site.restart(name)
        elif what == "told":
            site.standings[name].on_delegation(jobs(value + 2), site.now)
        elif what == "leap":
            site.step(leap=10 * (value + 1))
        for _ in range(steps):
            site.step()


def settle(site: Site) -> None:
    """All on one broker, the cloud away for long: one judges. It goes: another does. Back, it is fenced. The cloud is
    back: nobody judges any more, and all obey it."""
    site.cloud = None
    for name in NODES:
        site.join(name, 0)
    first = alone(site)
    site.join(first, None)
    second = alone(site, without=first)
    site.join(first, 0)
    assert alone(site, steps=SETTLED) == second, "who was away and judged is fenced"
    site.cloud, site.cloud_said = CLOUD, 0
    for name in NODES:
        site.hear_cloud(name, True)
    for _ in range(SETTLED):
        site.step()
    assert [name for name in NODES if site.standings[name].judging is not None] == []
    assert all(standing.obeyed == site.cloud for standing in site.standings.values())


def alone(site: Site, *, without: str = "", steps: int = (2 * GOOD + 3 * AWAY_S * SECOND) // STEP) -> str:
    """Who, after a while, judges, obeyed by all others on the broker."""
    for _ in range(steps):
        site.step()
    there = {name: standing for name, standing in site.standings.items() if name != without}
    judging = [name for name, standing in there.items() if standing.judging is not None]
    assert len(judging) == 1
    assert all(standing.obeyed == there[judging[0]].judging for standing in there.values())
    return judging[0]


WHAT = ("cloud", "uplink", "uplink", "group", "group", "restart", "told", "leap")
EVENT = st.tuples(st.sampled_from(WHAT), st.integers(0, 3), st.integers(0, 3), st.integers(0, 40))


@settings(max_examples=40)
@given(st.lists(EVENT, max_size=25))
def test_whatever_is_cut_off_one_delegate_judges_and_the_cloud_takes_over_again(
    history: list[tuple[str, int, int, int]],
) -> None:
    site = Site()
    for _ in range(SETTLED):
        site.step()
    play(site, history)
    settle(site)


def seeded(seed: int) -> list[tuple[str, int, int, int]]:
    rng = random.Random(seed)
    return [(rng.choice(WHAT), rng.randrange(4), rng.randrange(4), rng.randrange(41)) for _ in range(25)]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param("_agrees", lambda *_: True, id="whoever hears the judge is not asked"),
        pytest.param("is_silent", lambda *_: True, id="a judge that speaks is not waited for"),
        pytest.param("obey", lambda self, authority: None, id="nobody is fenced"),
        pytest.param("is_there", lambda *_: False, id="delegates before it are not waited for"),
        pytest.param("is_there", lambda *_: True, id="a delegate that is away is waited for"),
    ],
)
def test_the_check_finds_a_broken_guard(
    name: str, fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Standing, name, fault)
    with pytest.raises(AssertionError):
        for seed in range(40):
            site = Site()
            for _ in range(SETTLED):
                site.step()
            play(site, seeded(seed))
            settle(site)


# --- one by one --------------------------------------------------------------------------------------


def standing(me: str = "n1", now: int = T0, **more: object) -> Standing:
    """A node that has listened long enough and heard the cloud, whose word ends at `T0 + GOOD`."""
    one = Standing(me=me, nodes=NODES, **more)  # type: ignore[arg-type]
    one.on_judge(word_of(Authority(3, "c0000000"), "cloud", T0), T0, cloud=True)
    one.on_delegation(jobs(term=3), T0)
    for n in range(5):
        one.on_time(now + n * AGENDA_S * SECOND, 1)
    return one


def agenda(at: int, *, until: int = 0, term: int = 3, delegate: bool = True) -> Agenda:
    return Agenda(term=term, session="c0000000", revision=1, at=at, judge_until=until, delegate=delegate)


def test_a_delegate_begins_above_all_it_heard_of_when_the_judges_word_is_over_and_not_before() -> None:
    one, over = standing(), T0 + GOOD
    assert not one.may_begin(over - 1)
    assert one.may_begin(over)
    one.on_agenda("n4", agenda(over, term=7), over)
    assert one.begin("aaaaaaaa") == Authority(8, "aaaaaaaa")
    assert not one.may_begin(over), "it judges already"


def test_above_the_highest_term_nobody_begins() -> None:
    one, over = standing(), T0 + GOOD
    one.on_agenda("n4", agenda(over, term=LAST_TERM), over)
    assert not one.may_begin(over)


def test_renewal_is_silence_postponed_and_one_node_that_hears_the_judge_is_enough_against_it() -> None:
    one, over = standing(), T0 + GOOD
    one.on_agenda("n4", agenda(over, until=over + 5 * SECOND), over)
    assert not one.may_begin(over)
    assert one.may_begin(over + 5 * SECOND)
    one.on_judge(word_of(Authority(3, "c0000000"), "cloud", over), over, cloud=True)
    assert not one.may_begin(over + 5 * SECOND)


def test_a_clock_that_was_a_year_ahead_for_one_word_or_agenda_silences_nobody_for_longer_than_a_word() -> None:
    one, year = standing(), 365 * 86_400 * SECOND
    longest = T0 + GOOD + round(PATIENT.skew_s * SECOND)
    one.on_judge(word_of(Authority(3, "c0000000"), "cloud", T0 + year), T0, cloud=True)
    one.on_agenda("n4", agenda(T0 + year, until=T0 + year + GOOD), T0)
    assert not one.may_begin(longest - 1)
    assert one.may_begin(longest)


def test_the_second_delegate_waits_for_the_first_unless_that_is_away_or_cannot() -> None:
    over = T0 + GOOD
    one = standing("n3")
    one.on_agenda("n1", agenda(over), over)
    assert not one.may_begin(over)
    one.on_agenda("n1", agenda(over + 1, delegate=False), over + 1)
    assert one.may_begin(over + 1)
    one.on_agenda("n1", agenda(over + 2), over + 2)
    for n in range(1, 8):
        at = over + n * AGENDA_S * SECOND
        one.on_time(at, 1)
        assert one.may_begin(at) == (n * AGENDA_S >= AWAY_S), n


def test_nodes_without_delegation_or_name_in_the_word_or_leave_never_judge() -> None:
    over = T0 + GOOD
    untold = Standing(me="n1", nodes=NODES)
    untold.on_judge(word_of(Authority(3, "c0000000"), "cloud", T0), T0, cloud=True)
    for n in range(5):
        untold.on_time(over + n * AGENDA_S * SECOND, 1)
    assert not untold.may_begin(over)
    assert not standing("n4").may_begin(over)
    assert not standing("n1", able=False).may_begin(over)


def test_who_has_just_connected_listens_first_and_kept_agendas_are_no_sign_of_life() -> None:
    over = T0 + GOOD
    one = standing("n3")
    one.on_agenda("n1", agenda(over - 3600 * SECOND), over, retained=True)
    assert not one.is_there("n1")
    one.on_time(over, 2)
    assert not one.may_begin(over), "the connection is new"
    one.on_time(over + 3600 * SECOND, 2)
    assert not one.may_begin(over + 3600 * SECOND), "a leap of time is no hour of listening"
    one.on_time(over + 3600 * SECOND, -1)
    assert not one.may_begin(over + 3600 * SECOND)


def test_after_a_restart_its_own_word_keeps_a_delegate_from_nothing_and_the_term_is_a_new_one() -> None:
    over = T0 + GOOD
    one = standing()
    authority = one.begin("aaaaaaaa")
    one.on_judge(word_of(authority, "n1", over), over, cloud=False)
    again = Standing(me="n1", nodes=NODES, kept=one.changed(), obeyed=one.obeyed)
    assert again.delegation == one.delegation
    for n in range(5):
        again.on_time(over + n * AGENDA_S * SECOND, 1)
    again.on_agenda(
        "n4", Agenda(term=4, session="aaaaaaaa", revision=1, at=over, judge_until=over + GOOD, delegate=False), over
    )
    assert again.may_begin(over + AWAY_S * SECOND)
    assert again.begin("bbbbbbbb") == Authority(5, "bbbbbbbb")
    assert again.changed() == {}, "what was kept need not be kept again"


def test_a_lower_word_of_the_cloud_fences_nobody_but_while_it_lasts_no_delegate_begins() -> None:
    over = T0 + GOOD
    one, other = standing("n1"), standing("n3")
    authority = one.begin("aaaaaaaa")
    other.on_judge(word_of(authority, "n1", T0), T0, cloud=False)
    late = word_of(Authority(2, "ffffffff"), "cloud", over)
    for each in (one, other):
        each.on_judge(late, over, cloud=True)
        assert each.obeyed == authority
    assert one.judging == authority and one.fenced == 0
    assert not other.may_begin(over)
    assert other.may_begin(over + GOOD)
    one.on_judge(word_of(Authority(5, "00000000"), "cloud", over), over, cloud=True)
    assert (one.judging, one.fenced) == (None, 1)


def test_agendas_of_nodes_the_plant_does_not_have_or_beyond_the_bound_are_not_kept() -> None:
    many = [f"m{n}" for n in range(MAX_NODES + 5)]
    one = Standing(me="m0", nodes=many)
    for name in [*many, "stranger"]:
        one.on_agenda(name, agenda(T0), T0)
    assert len(one.agendas) == MAX_NODES and "stranger" not in one.agendas
