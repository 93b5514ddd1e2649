"""The contract net: offer, bid, award, acknowledgement, and who may award.

    offer (judge → able nodes)  →  bid  →  award (retained until done)  →  acknowledgement  →  records of the work

A *task* is one operation of one job. Every message says of which task, in which `round` of tendering it, and by
whose authority: `term` and `session` of the judge. A node obeys only the highest pair it has heard of, so of two
judges one is fenced. An award's envelope has a counter that rises with every award or withdrawal of its task; its
`valid_until` is the time by which the work must have begun. What comes twice, late or out of order is answered with
what is in force.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from messages.contracts import External, Id, Micros, Mint, Seq, Word
from messages.errors import UsageError
from messages.message import Message
from messages.route import topic_id

MAX_MACHINES = 64
"""Machines of one node that an offer may name."""
MAX_DELEGATES = 64
"""Nodes that may judge in the judge's absence; of more, the first."""
MAX_HELD = 1_000
"""Awards a node holds at a time; it declines offers beyond."""
MAX_STEPS = 1_000
MAX_OPEN = 10_000
"""Open jobs a delegation may list; the first due ones are."""

Seconds = Annotated[float, Field(ge=0, le=1e9)]
LAST_TERM = 2**29 - 1
Term = Annotated[int, Field(ge=0, le=LAST_TERM)]
"""Counters of awards and words are made of terms, and all of a term must be counters."""
Given = Annotated[int, Field(ge=0, lt=2**53 - 2**24)]
"""A counter that a node was given: a judge that tops it must find one that is higher."""
Amount = Annotated[float, Field(ge=-1e15, le=1e15)]
Kwh = Annotated[float, Field(ge=0, le=1e12)]
Wear = Annotated[float, Field(ge=0, description="working time since the last service, as a share of its interval")]
"""Beyond 1 a service is due."""


def task_of(job: str, op: int) -> str:
    """The topic level of a task: one for each (job, op), also where the job's name is no topic level."""
    return topic_id(f"{topic_id(job)}-{op}")


class Authority(NamedTuple):
    """Who judges: a higher term was begun later; of one term the greater session wins, so that one of two does."""

    term: int
    session: str

    def followed_by(self, session: str) -> Authority:
        """The next term's. UsageError: there is none, and what to do."""
        if self.term >= LAST_TERM:
            raise UsageError(
                f"a judge of term {self.term} was heard, session {self.session!r}, and there is no higher one: no "
                "judge comes so far by itself. Find out who said it, clear the retained messages of the site's "
                "`down/judge`, `up/agenda` and `peer/judge`, and begin with new disks of judge and nodes"
            )
        return Authority(self.term + 1, session)


class _Judged(Message):
    term: Term = Field(description="of the judge that speaks")
    session: Mint = Field(description="minted at random when that judge started")

    @property
    def authority(self) -> Authority:
        """Term and session together."""
        return Authority(self.term, self.session)


class _Tendered(_Judged):
    job: External
    op: int = Field(ge=0)
    round: Seq = Field(description="+1 whenever the task is tendered again")


class JudgeInForce(_Judged):
    """Who awards work at this site, renewed before its envelope's `valid_until`; after that, the first delegate that is
    there may begin a term of its own."""

    judge: Id = Field(description="`cloud`, or the node that judges meanwhile")
    at: Micros
    delegates: list[Id] = Field(
        default=[], max_length=MAX_DELEGATES, description="nodes that judge in its absence, in order"
    )


class Offer(_Tendered):
    """Work to be had: whoever is able answers with a bid by `deadline`."""

    deadline: Micros
    seconds: dict[Id, Seconds] = Field(
        max_length=MAX_MACHINES, description="machine of this node → nominal working time"
    )
    arrives_at: dict[Id, Micros] = Field(
        default={}, max_length=MAX_MACHINES, description="machine → when the part can be there; absent: now"
    )
    due_at: Micros | None = None


class MachineBid(Message):
    """What one machine promises."""

    machine: Id
    start_at: Micros
    end_at: Micros
    energy_kwh: Kwh = Field(description="of the work, and of what the machine needs to be warm for it")
    carbon_kg: Amount | None = None
    cost: Amount | None = Field(
        None, description="of that energy by the tariff, and of the wear; absent: not all of it is known"
    )
    waiting: int = Field(default=0, ge=0, description="awards before this one")
    load_s: Seconds = Field(default=0.0, description="working time done and awarded, for fair shares")
    wear: Wear | None = Field(None, description="as the bid is made; absent: its plant states no interval")
    places_in: int | None = Field(
        None, ge=0, description="places before it where no part lies or is expected; absent: any number"
    )
    places_out: int | None = Field(
        None, ge=0, description="parts it can finish before one must be fetched, 0: it stands still; absent: any number"
    )

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.end_at < self.start_at:
            raise ValueError(f"{self.machine}: end_at={self.end_at} is before start_at={self.start_at}")
        return self


class Bid(_Tendered):
    """A node's answer to an offer: what its machines promise, and why others of them do not."""

    at: Micros
    valid_until: Micros
    bids: list[MachineBid] = Field(max_length=MAX_MACHINES)
    declined: dict[Id, str] = Field(default={}, max_length=MAX_MACHINES, description="machine → reason")


class Award(_Tendered):
    """A task is a machine's. Without a machine it is nobody's any more: the award before is withdrawn."""

    machine: Id | None = None
    not_before: Micros = Field(
        default=0, description="waiting may be cleaner or cheaper; 0: as soon as part and machine are ready"
    )
    seconds: Seconds = Field(default=0.0, description="nominal working time")
    last: bool = Field(default=False, description="the job is done with it, its part leaves the floor")
    ahead: int = Field(
        default=0, ge=0, description="so many operations of the job just before it were not done yet, as the judge knew"
    )
    fetch_at: Micros | None = Field(
        None, description="its part is called for then, though places be taken: they will be free when it comes"
    )
    cancelled: bool = Field(
        default=False,
        description="of a withdrawal: nobody wants the job any more; its part is put aside if it is at an output here",
    )


class AwardAck(Message):
    """What a node makes of an award or a withdrawal; the same answer to the same counter, however often it comes."""

    job: External
    op: int = Field(ge=0)
    counter: Seq
    term: Term = Field(default=0, description="of the judge whose award this answers")
    session: Mint | None = Field(None, description="of that judge: rivals of one term may use the same counters")
    accepted: bool
    at: Micros
    reason: str | None = Field(None, max_length=500)
    held: Given | None = Field(None, description="of a refusal: the counter this node obeys, to be topped")
    state: Literal["none", "held", "started", "finished"] = Field(
        default="none", description="what this node knows of the task"
    )


class Held(Message):
    """One award as its node has it."""

    job: External
    op: int = Field(ge=0)
    machine: Id
    counter: Given
    state: Literal["held", "started", "finished"]
    at: Micros = Field(description="since when")
    valid_until: Micros = Field(description="held: it is given up unless begun by then")
    ahead: int = Field(default=0, ge=0, description="as its award said")
    recovered: dict[External, int] | None = Field(
        None, max_length=64, description="of a finished disassembly: component → how many were found good"
    )


class Output(Message):
    """Finished parts behind a machine where places are counted, as its node knows."""

    at: Micros = Field(description="when the last work there ended of which its node has heard; 0: it does not know")
    jobs: list[External] = Field(default=[], max_length=MAX_HELD, description="whose parts lie there")


class Agenda(_Judged):
    """Everything a node holds, and the judge it obeys. A judge that begins reads every agenda before it awards."""

    revision: Seq
    at: Micros
    awards: list[Held] = Field(default=[], max_length=2 * MAX_HELD)
    free_at: dict[Id, Micros] = Field(default={}, description="machine → when it will have done all it holds")
    down: dict[Id, Micros | None] = Field(default={}, description="broken machine → when it is expected back")
    warm: list[Id] = Field(default=[], max_length=MAX_MACHINES, description="machines that could begin at once")
    outputs: dict[Id, Output] = Field(
        default={}, max_length=MAX_MACHINES, description="machine → parts behind it, where its places are counted"
    )
    wear: dict[Id, Wear] = Field(
        default={}, description="machine → working time since its last service, as a share of the interval"
    )
    judge_until: Micros = Field(default=0, description="when the word of the judge it obeys ends, as far as heard here")
    delegate: bool = Field(default=False, description="this node would judge while the judge is away")


class Step(Message):
    """One thing that happened to a workpiece."""

    op: int = Field(ge=0)
    machine: Id
    start_at: Micros
    end_at: Micros | None = Field(None, description="absent: it is at work")
    interrupted: bool = False
    energy_kwh: float | None = None


class OpenJob(Message):
    """A job that is not done, as a delegate needs it."""

    job: External
    product: External
    release_at: Micros | None = None
    due_at: Micros | None = None
    done: int = Field(ge=0, description="operations known to be done: its next is the one of this number")
    place: Id | None = Field(None, description="the machine its part was last worked on")
    ready_at: Micros = Field(default=0, description="when its last operation ended")
    supplied: bool = Field(default=False, description="its components are in it already")


class Delegation(_Judged):
    """What a delegate must know to judge while the judge is away: every open job, said anew when that has changed.
    What nodes hold they say themselves, in their agendas.
    """

    revision: Seq
    at: Micros
    jobs: list[OpenJob] = Field(default=[], max_length=MAX_OPEN)
    stock: dict[External, int] = Field(
        default={}, max_length=10_000, description="component → in stock, as all jobs that are not listed left it"
    )
    begun: dict[External, Seq] = Field(
        default={}, max_length=10_000, description="product → jobs of it that the plant began itself, by number"
    )


class MachineView(Message):
    """One machine as the judge sees it."""

    node: Id
    state: Word = Field(description="off, preheat, idle, work, setup, down, or unknown: its node is away")
    job: External | None = None
    op: int | None = Field(None, ge=0)
    waiting: int = Field(default=0, ge=0, description="awards it holds and has not begun")
    free_at: Micros | None = None
    repair_at: Micros | None = None
    worked_s: Seconds = 0.0
    wear: Wear | None = None


class ShopView(_Judged):
    """The monitoring agent's view of a whole site, at most once a second and whenever somebody may have to act."""

    revision: Seq
    at: Micros
    machines: dict[Id, MachineView] = Field(max_length=10_000)
    nodes: dict[Id, bool] = Field(default={}, max_length=1_000, description="node → online")
    jobs: dict[Word, int] = Field(default={}, description="state of workpieces → how many")
    tasks: dict[Word, int] = Field(default={}, description="state of tasks → how many")
    stuck: list[External] = Field(default=[], max_length=1_000, description="jobs whose parts block each other")
    twice: list[External] = Field(
        default=[], max_length=1_000, description="jobs of which an operation was done more than once; the first ones"
    )
    inventory: dict[External, int] = Field(default={}, max_length=10_000, description="recovered component → in stock")


class Workpiece(Message):
    """The baton: a workpiece with its whole history, kept current until it is done."""

    job: External
    revision: Seq
    at: Micros
    product: External | None = None
    state: Literal["waiting", "tendered", "awarded", "working", "done", "unknown", "cancelled"]
    place: External | None = Field(None, description="the machine it was last seen at; absent: where it began")
    op: int | None = Field(None, ge=0, description="its next or present operation")
    steps: list[Step] = Field(default=[], max_length=MAX_STEPS)
    why: str | None = Field(None, max_length=500, description="of `unknown`: what is known")
