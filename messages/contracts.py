"""What is in the bytes: every message between firmware, edge and cloud.

Times are integers, microseconds since 1970 UTC (`Micros`), so that a value has one spelling and exact
arithmetic; the `at` columns are microseconds after their `t0`. A *reading* is one cell of a column: one
metric of one device at one time. Golden examples in `tests/golden/` must decode for ever; change by
adding optional fields.
"""

from __future__ import annotations

from itertools import islice, pairwise
from operator import lt
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from messages.message import Message
from messages.plan import Measure, Plan

Micros = Annotated[int, Field(ge=0, lt=2**53, description="µs since 1970 UTC")]
Offset = Annotated[int, Field(gt=-(2**53), lt=2**53)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Metric = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
External = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]
"""A name from outside: any text of one line."""
Mint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,32}$")]
Seq = Annotated[int, Field(ge=0, lt=2**53)]
Range = Annotated[tuple[Seq, Seq], Field(description="first and last, both inside")]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""A term of a list that newer peers may extend: whoever does not know it leaves it aside."""
Count = Annotated[int, Field(ge=0, le=10**12)]
Lane = Literal["alarm", "record", "live", "backlog"]

MAX_SAMPLES = 10_000
"""Samples per column of one burst or batch series."""
MAX_COLUMNS = 256
MAX_RANGES = 32
MAX_RECORDS = 1_000
MAX_SERIES = 4_096
MAX_AHEAD = 10 * 366 * 86_400 * 1_000_000
"""µs an order may look ahead."""
MAX_EPOCHS = 16
"""Epochs a StoredThrough speaks of: those last active."""


class _Ranges(Message):
    @model_validator(mode="after")
    def _ordered(self) -> _Ranges:
        last = -2
        for low, high in getattr(self, "ranges", ()):
            if low > high or low <= last + 1:
                raise ValueError("ranges must be ascending, apart and not empty")
            last = high
        return self


# --- the machine and its node -------------------------------------------------------------------


class MachineEvent(Message):
    """Something that happened at a machine, as its firmware saw it."""

    at: Micros
    kind: Word = Field(
        description="part_identified, part_removed (from its input), part_left (a finished one, from its output), "
        "started, finished, interrupted, breakdown, repaired, serviced (its wear is counted anew), refused (it did not "
        "obey an action, see detail), state (it changed state); others are left aside"
    )
    job: External | None = Field(None, description="the part's tag, as read at the machine")
    op: int | None = Field(None, ge=0)
    action: External | None = Field(None, description="id of the action this answers")
    state: Word | None = Field(
        None, description="the state entered: off, preheat, idle, work, setup, down, or a newer one"
    )
    energy_kwh: float | None = Field(None, description="metered over the operation, at its end")
    repair_at: Micros | None = Field(None, description="of a breakdown: when it is expected to run again")
    recovered: dict[External, int] | None = Field(
        None, max_length=64, description="of a finished disassembly: component → how many were found good"
    )
    detail: str | None = Field(None, max_length=500)


STATE_CODES: dict[str, int] = {"off": 0, "preheat": 1, "idle": 2, "work": 3, "setup": 4, "down": 5}
"""Integer codes of machine states in telemetry (metric `state`)."""


class Burst(Message):
    """Columnar readings of one device since its last burst, and what happened there."""

    boot: Mint = Field(description="minted at random whenever the device starts")
    seq: Seq = Field(description="+1 per burst of one boot")
    floor: Seq | None = Field(None, description="oldest burst the device still holds; absent: it keeps none")
    first: Seq = Field(description="readings this boot sent before this burst: a jump tells how many are lost")
    t0: Micros = Field(description="device clock")
    at: list[Offset] = Field(max_length=MAX_SAMPLES, description="µs after t0, one per sample, as sampled")
    columns: dict[Metric, list[float | None]] = Field(
        max_length=MAX_COLUMNS, description="per metric one value per sample; null: the sensor gave none"
    )
    units: dict[Metric, Annotated[str, StringConstraints(max_length=16)]]
    events: list[MachineEvent] = Field(default_factory=list, max_length=MAX_RECORDS)

    @property
    def readings(self) -> int:
        """Cells of all columns, nulls included."""
        return len(self.at) * len(self.columns)

    @model_validator(mode="after")
    def _rectangular(self) -> Burst:
        for metric, column in self.columns.items():
            if len(column) != len(self.at):
                raise ValueError(f"column {metric!r} has {len(column)} values for {len(self.at)} samples")
            if metric not in self.units:
                raise ValueError(f"column {metric!r} has no unit")
        return self


class Taken(_Ranges):
    """These bursts are on the node's disk; the device may forget them. Only what is listed is meant."""

    boot: Mint
    ranges: list[Range] = Field(max_length=MAX_RANGES)


class Action(Message):
    """What the node asks of a machine: repeated until an event answers or `valid_until`; idempotent by `id`."""

    id: External
    kind: Word = Field(
        description="call: bring this part to the machine; start: work on the identified part; preheat, idle, off: "
        "enter the state; a device refuses what it does not know"
    )
    job: External | None = None
    op: int | None = Field(None, ge=0)
    duration_s: float | None = Field(None, ge=0, description="of a start: nominal working time")
    last: bool = Field(default=False, description="of a start: the part leaves the floor when this is done")
    valid_until: Micros


# --- edge to cloud ------------------------------------------------------------------------------


class Series(Message):
    """Cleaned readings of one device and metric. Times are unique and ascend."""

    device: Id
    metric: Metric
    unit: Annotated[str, StringConstraints(max_length=16)]
    t0: Micros = Field(0, description="absent, as `at`, in a batch: those of the series before it")
    at: list[int] = Field(
        default_factory=list, max_length=MAX_SAMPLES, description="µs after t0; often shared by a device"
    )
    value: list[float] = Field(min_length=1, max_length=MAX_SAMPLES)
    quality: int | list[int] = Field(description="see messages.quality; one number when all are alike")
    raw: dict[int, float | None] = Field(
        default_factory=dict, description="index → what the sensor said, where it was replaced"
    )

    @model_validator(mode="after")
    def _rectangular(self) -> Series:
        n = len(self.value)
        if isinstance(self.quality, list) and len(self.quality) != n:
            raise ValueError("value and quality differ in length")
        if self.at:
            self._timed()
        if any(not 0 <= index < n for index in self.raw):
            raise ValueError("raw names an index that is not there")
        return self

    def _timed(self) -> None:
        """Times fit the values, ascend, are unique and can be told apart from each other by floats."""
        at = self.at
        if len(at) != len(self.value):
            raise ValueError("at and value differ in length")
        if not all(map(lt, at, islice(at, 1, None))):
            raise ValueError("times must ascend and be unique")
        if not -(2**53) < at[0] <= at[-1] < 2**53:
            raise ValueError("at is beyond 2^53 µs")


class _Record(Message):
    at: Micros


class Started(_Record):
    """An operation began."""

    kind: Literal["started"] = "started"
    machine: Id
    job: External
    op: int = Field(ge=0)
    plan_revision: int = Field(ge=0)
    award: Seq | None = Field(None, description="counter of the award that gave it, if one did")


class Finished(_Record):
    """An operation ended well."""

    kind: Literal["finished"] = "finished"
    machine: Id
    job: External
    op: int = Field(ge=0)
    started_at: Micros
    energy_kwh: float | None = None
    recovered: dict[External, int] | None = Field(
        None, max_length=64, description="of a disassembly: component → how many were found good"
    )


class Interrupted(_Record):
    """An operation ended before it was done."""

    kind: Literal["interrupted"] = "interrupted"
    machine: Id
    job: External
    op: int = Field(ge=0)
    started_at: Micros
    energy_kwh: float | None = None
    detail: str | None = None


class StateChanged(_Record):
    """A machine entered a state; `down` is a breakdown, with the expected repair where known."""

    kind: Literal["state"] = "state"
    machine: Id
    state: Word
    repair_at: Micros | None = None


class PartIdentified(_Record):
    """A machine read the tag of a part."""

    kind: Literal["part"] = "part"
    machine: Id
    job: External


class Refused(_Record):
    """A machine did not obey, or an action ran out unanswered."""

    kind: Literal["refused"] = "refused"
    machine: Id
    action: External
    detail: str | None = None


class Serviced(_Record):
    """A machine was serviced."""

    kind: Literal["serviced"] = "serviced"
    machine: Id
    worked_s: float = Field(ge=0, description="working time since the service before")


class Gap(_Record):
    """Readings a device sent, or meant to, that never reached the node's disk."""

    kind: Literal["gap"] = "gap"
    device: Id
    boot: Mint
    bursts: Range
    readings: Count = Field(description="0: lost, and how many cannot be known")


class Rejected(_Record):
    """Readings that reached the node and are not stored as rows, and why."""

    kind: Literal["rejected"] = "rejected"
    device: Id
    metric: Metric | None = None
    reason: External
    readings: Count = Field(description="0: a message whose readings could not be counted")
    sample: str | None = Field(None, max_length=500)


class Evicted(_Record):
    """Batches dropped at the disk budget, by the declared policy. The cloud no longer waits for them."""

    kind: Literal["evicted"] = "evicted"
    epoch: Mint
    lane: Lane
    ranges: list[Range] = Field(max_length=MAX_RECORDS)
    readings: Count


class Other(_Record):
    """A record of a newer peer: kept as it came."""

    model_config = ConfigDict(extra="allow")
    kind: str


KINDS = ("started", "finished", "interrupted", "state", "part", "refused", "serviced", "gap", "rejected", "evicted")
"""Kinds of record known here; a newer peer's are kept as they come."""


def _kind(value: object) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if kind in KINDS else "other"


Record = Annotated[
    Annotated[Started, Tag("started")]
    | Annotated[Finished, Tag("finished")]
    | Annotated[Interrupted, Tag("interrupted")]
    | Annotated[StateChanged, Tag("state")]
    | Annotated[PartIdentified, Tag("part")]
    | Annotated[Refused, Tag("refused")]
    | Annotated[Serviced, Tag("serviced")]
    | Annotated[Gap, Tag("gap")]
    | Annotated[Rejected, Tag("rejected")]
    | Annotated[Evicted, Tag("evicted")]
    | Annotated[Other, Tag("other")],
    Discriminator(_kind),
]


class Batch(Message):
    """What a node hands to the cloud, numbered per epoch and lane; its bytes never change once it has a seq."""

    epoch: Mint = Field(description="minted at random at every opening of the node's outbox")
    lane: Lane
    seq: Seq = Field(description="+1 per batch of one epoch and lane")
    floor: Seq = Field(description="oldest seq of this epoch and lane still held when this batch was made")
    made_at: Micros
    series: list[Series] = Field(default_factory=list, max_length=MAX_SERIES)
    records: list[Record] = Field(default_factory=list, max_length=MAX_RECORDS)

    @property
    def readings(self) -> int:
        """Rows of all series."""
        return sum(len(series.at) for series in self.series)

    def encode(self) -> bytes:
        """The payload; times that a series shares with the one before it (the very same list) are said once."""
        shared = {
            place: {"t0", "at"}
            for place, (before, one) in enumerate(pairwise(self.series), 1)
            if one.at is before.at and one.t0 == before.t0
        }
        return self.model_dump_json(exclude_none=True, exclude={"series": shared} if shared else None).encode()

    @model_validator(mode="after")
    def _complete(self) -> Batch:
        if self.floor > self.seq:
            raise ValueError("floor is above seq")
        before: Series | None = None
        for one in self.series:
            if not one.at:
                if before is None or len(before.at) != len(one.value):
                    raise ValueError(f"series {one.device} {one.metric} has no times, and those before do not fit")
                one.__dict__.update(t0=before.t0, at=before.at)  # frozen, but not yet in anybody's hands
            before = one
        return self


class LaneStored(_Ranges):
    """What the store holds of one epoch and lane: all ≤ through (−1: none yet), and the ranges above."""

    through: int = Field(ge=-1)
    ranges: list[Range] = Field(default=[], max_length=MAX_RANGES)


class StoredThrough(Message):
    """What the store holds of one node. Only this frees an outbox; an epoch not named is not spoken of."""

    revision: Seq
    epochs: dict[Mint, dict[Lane, LaneStored]] = Field(max_length=MAX_EPOCHS)


class LatestValue(Message):
    """The newest value of a metric."""

    at: Micros
    value: float
    quality: int
    unit: str


class Latest(Message):
    """Last known values of a device."""

    values: dict[Metric, LatestValue] = Field(max_length=MAX_COLUMNS)


class Presence(Message):
    """Whether a node's connection is up; the broker says offline for those who cannot."""

    online: bool
    session: Mint = Field(description="minted at random when the process starts")
    at: Micros | None = Field(None, description="absent in the will, which is written beforehand")


class DeviceCapability(Message):
    """What one device measures and can make."""

    device: Id
    kind: Word = Field(description="machine, meter, cell, or a newer one")
    metrics: dict[Metric, str] = Field(description="metric → unit")
    stage: External | None = None


class Capability(Message):
    """What a node measures, can make and runs."""

    revision: Seq
    software: str
    devices: list[DeviceCapability]
    public_key: str | None = Field(None, max_length=64, description="Ed25519, base64url: what the node signs with")


class Health(Message):
    """Counters of a node since its start, and gauges."""

    at: Micros
    session: Mint
    counters: dict[str, float]


# --- orders, signals, the plan ------------------------------------------------------------------


class OrderedJob(Message):
    """One batch of a product to be made."""

    job: External
    product: External
    release_at: Micros | None = None
    due_at: Micros | None = None


class Order(Message):
    """What is to be produced. The same order again changes nothing; a higher revision replaces what has not begun,
    and one without jobs withdraws the order. A job's name is its identity for ever: no later order may use it again.
    """

    order: External
    revision: Seq = 0
    placed_at: Micros
    jobs: list[OrderedJob] = Field(max_length=1_000)

    @model_validator(mode="after")
    def _in_our_time(self) -> Order:
        for job in self.jobs:
            for at in (job.release_at, job.due_at):
                if at is not None and abs(at - self.placed_at) > MAX_AHEAD:
                    raise ValueError(f"job {job.job!r}: release and due lie within ten years of placed_at")
        return self


class Signal(Message):
    """A forecast or series that plans depend on: carbon intensity, tariff, …"""

    name: Id
    revision: Seq
    unit: Annotated[str, StringConstraints(max_length=16)]
    start: Micros
    step_s: float = Field(ge=1, le=31_536_000)
    values: list[float] = Field(min_length=1, max_length=MAX_SAMPLES)


Body = TypeVar("Body", bound=Message)


class Envelope(Message, Generic[Body]):
    """Authority to act: nothing inside may be acted on after `valid_until` (plant time).

    `sig` comes last in the bytes. What a signature covers are these very bytes with an empty `sig`, so that fields of
    newer peers are covered too and nobody has to write the same JSON again.
    """

    key: External = Field(description="what this is about")
    target: External = Field(description="`<site>/<node>`, or `<site>/all`")
    counter: Seq = Field(description="a higher one of the same key replaces a lower, whatever was lost in between")
    valid_until: Micros
    body: Body
    sig: str = Field("", description="empty until signatures are built")


class Hold(Message):
    """An operation that changed nodes: its new owner waits for the old one's word, or for its lease to end."""

    job: External
    op: int = Field(ge=0)
    owner: Id = Field(description="the node that had it before")
    until: Micros = Field(description="when the old owner's authority to start it ends in any case")


MAX_ALTERNATIVES = 100
"""Plans of a front that are offered for choice."""


class PlanInForce(Message):
    """The whole plan of a site. A node obeys the parts of its machines; `plan.t0` and `tick_s` give times."""

    plan: Plan
    tick_s: float = Field(gt=0)
    frozen_until: Micros = Field(description="what starts earlier was decided before this revision")
    started: list[tuple[External, int]] = Field(
        default=[], description="(job, op) begun or done as the planner knows: nobody starts these"
    )
    holds: list[Hold] = Field(default=[], max_length=10_000)
    why: str = Field("", max_length=500, description="what made the planner plan")
    policy: str = Field("", max_length=500, description="what it was planned for, and by whose preference")
    signals: dict[str, Seq] = Field(default={}, description="forecasts it was planned by: name → revision")
    moved: float | None = Field(
        None, ge=0, le=1, description="share of released operations it moved; none: a first plan"
    )


class Alternative(Message):
    """One plan of a front, by what it costs; absent: the plant does not know it."""

    choice: int = Field(ge=0, lt=MAX_ALTERNATIVES)
    ends_at: Micros = Field(description="end of its last operation")
    tardiness_s: float = Field(0.0, ge=0, description="summed over orders with a due date")
    energy_kwh: float | None = None
    carbon_kg: float | None = None
    cost: float | None = None
    peak_kw: float | None = None


class Choices(Message):
    """The plans that no other beats, when the planner last planned, and the one it put in force."""

    revision: Seq = Field(description="of the plan in force")
    at: Micros
    objectives: list[Measure] = Field(max_length=7, description="what the front is about, the planner's order")
    in_force: int | None = Field(None, ge=0, description="the alternative in force; none: a plan that came after them")
    chosen_by: str = Field("", max_length=128, description="who prefers it; empty: the planner's settings")
    alternatives: list[Alternative] = Field(max_length=MAX_ALTERNATIVES)


class Choice(Message):
    """An operator prefers another alternative; the planner plans again with that preference, and keeps it."""

    revision: Seq = Field(description="of the choices it was made from; with a later revision in force it is refused")
    choice: int = Field(ge=0, lt=MAX_ALTERNATIVES)
    by: str = Field("", max_length=128, description="who chose, for the record")


class PlanAck(Message):
    """A node's answer to a plan: from here on it starts only what this revision gives it."""

    revision: Seq
    counter: Seq
    accepted: bool
    at: Micros
    started: list[tuple[External, int]] = Field(
        default=[], description="(job, op) the node began though the plan gives them to another or to later"
    )
    reason: str | None = Field(None, max_length=500)
    held: Seq | None = Field(None, description="of a refusal: the counter this node obeys, to be topped")


class Progress(Message):
    """How the floor does against the plan in force, as the monitor sees it."""

    at: Micros
    revision: Seq
    why: str = Field("", max_length=500, description="what made the planner plan this revision")
    solver: str = ""
    replans: int = Field(ge=0, description="revisions that answered a disturbance")
    operations_done: int = Field(ge=0)
    operations: int = Field(ge=0)
    jobs_done: int = Field(ge=0)
    jobs: int = Field(ge=0)
    planned_end: Micros | None = Field(None, description="end of the last operation by the plan in force")
    expected_end: Micros | None = Field(None, description="the same with the delays seen so far")
    late_s: float = Field(0.0, description="greatest delay of an operation against the plan in force")
    energy_planned_kwh: float = Field(0.0, description="by the plan in force, up to `at`")
    energy_metered_kwh: float = Field(0.0, description="by the machines' meters, up to `at`")
    down: list[Id] = Field(default=[], description="machines that are broken down")
