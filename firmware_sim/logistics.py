"""Where the parts are: the store, on the way, at a machine's input, in work, at its output, finished, scrapped.

A call brings a part to a machine once its earlier stages are finished; it arrives `transport_s` later. The
newest call for an operation wins and older ones lapse, as does a call whose `valid_until` has passed before
the part could leave. Bounds: MAX_PARTS parts, of which finished and scrapped ones are forgotten first; one
waiting call per operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from messages.contracts import MachineEvent

MAX_PARTS = 10_000

Place = Literal["store", "moving", "input", "work", "output", "finished", "scrapped"]


@dataclass(slots=True)
class Part:
    """One job's part: `done` stages are finished; `machine` is where it is, or where it is heading."""

    job: str
    done: int = 0
    place: Place = "store"
    machine: str | None = None
    arrives_at: int = 0
    call: Call | None = None
    starts: dict[int, int] = field(default_factory=dict)
    """How often each operation was started."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who wants a part, for which operation."""

    action: str
    machine: str
    op: int
    valid_until: int


@dataclass(slots=True)
class Told:
    """An event and the machine that sees it."""

    machine: str
    event: MachineEvent


@dataclass
class Logistics:
    """All parts of a plant with `stages` stages."""

    stages: int
    transport_us: int
    parts: dict[str, Part] = field(default_factory=dict)
    calls: dict[tuple[str, int], Call] = field(default_factory=dict)
    moving: dict[str, Part] = field(default_factory=dict)

    def call(self, at: int, job: str, call: Call) -> list[Told] | str:
        """Bring `job` to a machine: what was seen at once, or a text why not."""
        part = self.parts.get(job)
        if part is None:
            if len(self.parts) >= MAX_PARTS and not self._forget_one():
                return f"the floor holds {MAX_PARTS} parts at most"
            part = self.parts[job] = Part(job)
        if part.place == "scrapped":
            return "the part was scrapped"
        if part.done > call.op:
            return f"op {call.op} of this part is done"
        if part.done == call.op and part.machine == call.machine and part.place in ("input", "work"):
            return [self._identified(at, part, call.action)]
        if part.done == call.op and part.place == "work":
            return f"the part is in work at {part.machine}"
        self.calls[job, call.op] = call
        return self._leave(at, part)

    def ready(self, machine: str, job: str, op: int) -> str | None:
        """None if `op` of this part can start at `machine`, else why not."""
        part = self.parts.get(job)
        if part is None or part.machine != machine or part.place != "input":
            return "the part is not identified at this machine"
        if part.done != op:
            return f"the part is ready for op {part.done}, not for op {op}"
        return None

    def started(self, job: str, op: int) -> None:
        """The part went from the input into the machine."""
        part = self.parts[job]
        part.place = "work"
        part.starts[op] = part.starts.get(op, 0) + 1

    def finished(self, at: int, job: str) -> list[Told]:
        """The part lies at the machine's output, and leaves when its next stage has called."""
        part = self.parts[job]
        part.done += 1
        part.place = "output" if part.done < self.stages else "finished"
        return self._leave(at, part)

    def interrupted(self, at: int, job: str, *, scrap: bool) -> list[Told]:
        """The part is back at the machine's input, or lost."""
        part = self.parts[job]
        part.place = "scrapped" if scrap else "input"
        return [] if scrap else self._leave(at, part)

    def next_arrival(self) -> int | None:
        """When the next part arrives somewhere."""
        return min((part.arrives_at for part in self.moving.values()), default=None)

    def arrive(self, at: int) -> list[Told]:
        """Parts that have arrived by `at` are identified."""
        seen = []
        for part in [part for part in self.moving.values() if part.arrives_at <= at]:
            del self.moving[part.job]
            part.place = "input"
            seen.append(self._identified(at, part, part.call.action if part.call else None))
            part.call = None
        return seen

    def _identified(self, at: int, part: Part, action: str | None) -> Told:
        event = MachineEvent(at=at, kind="part_identified", job=part.job, op=part.done, action=action)
        return Told(part.machine or "", event)

    def _leave(self, at: int, part: Part) -> list[Told]:
        """Set off for the machine that called for the next stage, if one did and the part can move."""
        call = self.calls.get((part.job, part.done))
        if call is None or part.place in ("work", "finished", "scrapped"):
            return []
        del self.calls[part.job, part.done]
        if at > call.valid_until:
            return []
        if part.place == "moving" and part.machine == call.machine:
            part.call = call  # the same way under a new action id
            return []
        seen = []
        if part.place == "input" and part.machine:
            seen = [Told(part.machine, MachineEvent(at=at, kind="part_removed", job=part.job, op=part.done))]
        part.place, part.machine, part.call = "moving", call.machine, call
        part.arrives_at = at + self.transport_us
        self.moving[part.job] = part
        return seen

    def _forget_one(self) -> bool:
        """Make room by dropping the oldest part that will not move again."""
        for job, part in self.parts.items():
            if part.place in ("finished", "scrapped"):
                del self.parts[job]
                for key in [key for key in self.calls if key[0] == job]:
                    del self.calls[key]
                return True
        return False
