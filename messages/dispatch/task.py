"""One operation of one job as a judge's book has it, and the messages a book sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from messages.message import Message
from messages.negotiation import MachineBid

Key = tuple[str, int]
State = Literal["waiting", "open", "tendered", "awarded", "held", "working", "done", "unknown", "cancelled"]

GIVEN: tuple[State, ...] = ("awarded", "held", "unknown")
"""States in which a node has, or may have, a task's award."""


class Carried(BaseModel):
    """How the judge foresaw that the part comes to its machine, µs."""

    vehicle: int = Field(-1, description="-1: none is needed, or they are not counted")
    departs_at: int = Field(description="the vehicle leaves for the part")
    leaves_at: int = Field(description="the part is gone from where it was")
    arrives_at: int


class Task(BaseModel):
    """One operation of one job in the judge's book."""

    job: str
    op: int
    seconds: dict[str, float] = Field(description="able machine → nominal working time")
    due_at: int | None = None
    last: bool = Field(False, description="the job is done with it")
    state: State = "waiting"
    cancelled: bool = Field(False, description="nobody wants it any more: it ends once nobody can begin it")
    round: int = 0
    deadline: int = 0
    asked: list[str] = Field([], description="nodes that were offered it in this round and have not answered")
    bids: dict[str, MachineBid] = {}
    good_until: dict[str, int] = Field({}, description="machine → when its bid is good no more")
    declined: dict[str, str] = {}
    machine: str | None = None
    counter: int = 0
    settled: str = Field("", description="session of the judge that awarded it last: it knew that nobody else had it")
    withdrawn: bool = Field(False, description="that counter is of a withdrawal its node has not acknowledged")
    clearing: str | None = Field(
        None, description="of a cancelled one: the machine that is, or was, told to put its part aside"
    )
    lease: int = 0
    sent_at: int = 0
    awarded_at: int = 0
    not_before: int = 0
    not_sooner: int = Field(0, description="no offer before")
    carried: Carried | None = None
    fetch_at: int | None = Field(None, description="when its node is to call for the part, whatever places are taken")
    ahead: int = Field(0, description="awarded when so many operations just before it were not done")
    began_at: int | None = None
    ended_at: int | None = Field(None, description="of what is done; none: only that it is done is known")
    twice: bool = Field(False, description="done, and done again by another machine or in another run: see `why`")
    lost: dict[str, int] = Field({}, description="machine → when it was last interrupted: what it began before is past")
    let_go: dict[str, int] = Field({}, description="node → counter under which it said last that it has it not")
    listed: int = Field(0, description="the counter under which its node said that it has it")
    listed_at: int = Field(0, description="when its node said so last, by its own clock")
    why: str = ""

    @property
    def key(self) -> Key:
        """Job and operation."""
        return self.job, self.op

    @property
    def over(self) -> bool:
        """Whether nothing will be done for it any more."""
        return self.state in ("done", "cancelled")

    @property
    def begun(self) -> bool:
        """Whether a machine works on it, as far as is known."""
        return self.state == "working" or (self.state == "unknown" and self.began_at is not None)


@dataclass(frozen=True)
class Send:
    """One message to one node; to `all` of the site where node is empty."""

    what: Literal["judge", "offer", "award"]
    node: str
    task: str
    message: Message
