"""Whether this node judges while the judge is away: when it begins, with whose jobs, and when it stops. Pure.

    standing = Standing(me="press-4", nodes=plant.nodes, kept=…)
    standing.on_judge(envelope, now, cloud=True); standing.on_delegation(delegation, now); standing.on_agenda(…)
    if standing.may_begin(now): authority = standing.begin(session)

A judge is silent when the time its word is good for (`valid_until`, renewed by it) is over; a clock that was wrong
for one word silences delegates no longer than that word was good for its sender (`Pace.believed`). The first delegate
in the order of that word begins a term of its own, the highest heard of plus one, when it has a delegation, every
delegate before it is away or says that it is not able, and every node that is there says that to it, too, the judge is
silent. Who is there: whoever said an agenda on the site's broker within `AWAY` agendas' time; so long a node listens
before it judges who is not. Its own word, of before a restart, keeps a delegate from nothing: it begins a new term with
what is on the disk.

Nothing of a delegate's book needs the disk: a delegate that begins, the first time or again, knows the open jobs from
the delegation, and what was held, begun and done since from the agendas of all nodes; operations that no agenda lists
any more are fenced by the part's tag. So what is kept (`changed`) is the judge's last word and the delegation; the
authority obeyed is in the executor's state.

A delegate is fenced by whoever is higher, wherever that is heard: its word, an offer, an award, an agenda. The cloud,
back, begins again above the term that the agendas tell it; before it has, its lower word is answered with an agenda.
Two delegates judge at once only if neither heard the other; when they do, one is fenced, and what both awarded is
begun once where tags tell what was done to a part.

Bounds: agendas of the nodes of the plant, at most `MAX_NODES`; open jobs, what a delegation may list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from messages.clock import SECOND
from messages.contracts import Envelope
from messages.negotiation import LAST_TERM, Agenda, Authority, Delegation, JudgeInForce
from messages.pace import PATIENT, Pace

AWAY = 3
"""A node that said nothing on the site's broker for so many agendas' time, while that was heard, is away."""
MAX_NODES = 1_000
"""Nodes whose agendas are kept; those of further ones are not, and get no work from a delegate."""

KEYS = JUDGE, DELEGATION = "judge", "delegation"
"""Keys of the state that a disk keeps."""

Word = Envelope[JudgeInForce]


class _Kept(BaseModel):
    """What was heard of the judge."""

    word: Word | None = None
    heard_at: int = 0
    cloud_until: int = 0
    """The cloud's word is good so long, whether or not a higher authority was heard of."""


class _Delegated(BaseModel):
    """The open jobs as last told, and when."""

    delegation: Delegation
    heard_at: int


@dataclass
class Standing:
    """What one node knows of who judges. `able`: it would judge; `kept`: state by key, as `changed` gave it once."""

    me: str
    nodes: Iterable[str]
    able: bool = True
    pace: Pace = PATIENT
    kept: Mapping[str, bytes] = field(default_factory=dict)
    obeyed: Authority = field(default_factory=lambda: Authority(0, ""))
    """The highest authority heard of."""
    judging: Authority | None = None
    agendas: dict[str, Agenda] = field(default_factory=dict)
    begun: int = 0
    fenced: int = 0

    def __post_init__(self) -> None:
        self._agenda_us = round(self.pace.agenda_s * SECOND)
        self._known = frozenset(list(self.nodes)[:MAX_NODES])
        self._ = _Kept.model_validate_json(self.kept[JUDGE]) if JUDGE in self.kept else _Kept()
        told = self.kept.get(DELEGATION)
        self._told = _Delegated.model_validate_json(told) if told else None
        self._unkept: set[str] = set()
        self._heard: dict[str, int] = {}
        self._at, self._listened = 0, 0
        self._link, self._linked_at = -1, 0

    def changed(self) -> dict[str, bytes]:
        """What must be on the disk from here on, by key: what has changed since this was last asked."""
        unkept, self._unkept = self._unkept, set()
        whole = {JUDGE: self._, DELEGATION: self._told}
        return {key: one.model_dump_json().encode() for key in unkept if (one := whole[key]) is not None}

    # --- what is heard -------------------------------------------------------------------------------

    def obey(self, authority: Authority) -> None:
        """Hear of an authority. A higher one fences a delegate that judges."""
        if authority <= self.obeyed:
            return
        self.obeyed = authority
        if self.judging is not None:
            self.judging, self.fenced = None, self.fenced + 1

    def on_judge(self, word: Word, now: int, *, cloud: bool) -> None:
        """Who judges, or that he still does. What a lower authority says binds nobody here."""
        kept, authority = self._, word.body.authority
        word = word.model_copy(update={"valid_until": self.pace.believed(word.valid_until, at=word.body.at, now=now)})
        if cloud and word.valid_until > kept.cloud_until:
            kept.cloud_until = word.valid_until
            self._unkept.add(JUDGE)
        self.obey(authority)
        known = kept.word
        if known is None or (authority, word.valid_until) > (known.body.authority, known.valid_until):
            kept.word, kept.heard_at = word, now
            self._unkept.add(JUDGE)

    def on_delegation(self, delegation: Delegation, now: int) -> None:
        """The open jobs; one said earlier changes nothing."""
        known = self.delegation
        if known is None or (delegation.authority, delegation.revision) > (known.authority, known.revision):
            self._told = _Delegated(delegation=delegation, heard_at=now)
            self._unkept.add(DELEGATION)

    def on_agenda(self, node: str, agenda: Agenda, now: int, *, retained: bool = False) -> None:
        """What a node of the site holds and hears; the judge it obeys may fence us.

        One the broker kept says that its node was there when it was made, not that it is.
        """
        if node not in self._known:
            return
        known = self.agendas.get(node)
        if known is None or agenda.at >= known.at:
            until = self.pace.believed(agenda.judge_until, at=agenda.at, now=now)
            self.agendas[node] = agenda.model_copy(update={"judge_until": until})
        age = max(0, now - agenda.at) if retained else 0
        self._heard[node] = max(self._heard.get(node, -age), self._listened - age)
        self.obey(agenda.authority)

    def on_time(self, now: int, link: int) -> None:
        """Time goes by on a connection to the site's broker; `link` is its number, negative: there is none.

        A step of time counts as one agenda's at most: when a whole plant leaps ahead, nobody was silent meanwhile.
        """
        if link == self._link and link >= 0:
            self._listened += min(max(0, now - self._at), self._agenda_us)
        elif link != self._link:
            self._link, self._linked_at = link, self._listened
        self._at = now

    # --- what follows --------------------------------------------------------------------------------

    @property
    def until(self) -> int:
        """When the word of the judge obeyed here ends, and the cloud's, as far as heard."""
        word = self._.word
        own = word.valid_until if word is not None and word.body.authority == self.obeyed else 0
        return max(own, self._.cloud_until)

    @property
    def late_us(self) -> int:
        """How late messages come, by the word of the last judge: whoever judges next is as patient."""
        word = self._.word
        if word is None:
            return 0
        return max(0, word.valid_until - word.body.at - round(self.pace.word_s * SECOND))

    @property
    def delegates(self) -> list[str]:
        """Who judges when the judge is silent, in order."""
        return self._.word.body.delegates if self._.word is not None else []

    @property
    def delegation(self) -> Delegation | None:
        """The open jobs, as last told."""
        return self._told.delegation if self._told is not None else None

    @property
    def ready(self) -> bool:
        """Whether this node would judge if its turn came: it says so in its agenda."""
        return self.able and self._told is not None

    def is_there(self, node: str) -> bool:
        """Whether a node was heard of on the site's broker lately."""
        return node == self.me or (node in self._heard and self._listened - self._heard[node] < AWAY * self._agenda_us)

    def is_silent(self, now: int) -> bool:
        """Whether the word of the judge is over here; our own of before a restart is."""
        return now >= (self._.cloud_until if self._own_word() else self.until)

    def may_begin(self, now: int) -> bool:
        """Whether it is for this node to judge from now on."""
        if self.judging is not None or not self.ready or self.me not in self.delegates or not self.is_silent(now):
            return False
        if self.obeyed.term >= LAST_TERM:
            return False  # nobody can follow it; the cloud says so
        if self._link < 0 or self._listened - self._linked_at < AWAY * self._agenda_us:
            return False
        there = [node for node in self.agendas if node != self.me and self.is_there(node)]
        first = self.delegates[: self.delegates.index(self.me)]
        if any(node in there and self.agendas[node].delegate for node in first):
            return False
        return all(self._agrees(self.agendas[node], now) for node in there)

    def begin(self, session: str) -> Authority:
        """Begin a term above all that were heard of."""
        self.judging = self.obeyed = self.obeyed.followed_by(session)
        self.begun += 1
        return self.judging

    def _own_word(self) -> bool:
        word = self._.word
        return word is not None and word.body.judge == self.me and word.body.authority == self.obeyed

    def _agrees(self, agenda: Agenda, now: int) -> bool:
        """A node that obeys an older judge than we do has its reasons to; it only must not hear one."""
        ours = self._own_word() and agenda.authority == self.obeyed and agenda.judge_until <= self.until
        return ours or agenda.judge_until <= now
