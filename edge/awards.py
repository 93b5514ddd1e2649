"""The awards a node holds: taken once, of the highest authority only, given up when their time is over.

Pure; a part of the executor's state. Bounds: `MAX_HELD` awards held, `REMEMBERED` tasks whose last counter and end are
remembered, those held among them; a task forgotten is known from the records that the cloud has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal

from pydantic import BaseModel, PrivateAttr

from edge.orders import Key, Order
from messages.contracts import Envelope
from messages.negotiation import MAX_HELD, Authority, Award, AwardAck, Held, task_of

Awarded = Envelope[Award]

REMEMBERED = 2 * MAX_HELD


class _Task(BaseModel):
    """What the node knows of one task."""

    counter: int
    machine: str | None = None
    not_before: int = 0
    seconds: float = 0.0
    last: bool = False
    ahead: int = 0
    fetch_at: int | None = None
    valid_until: int = 0
    state: Literal["none", "held", "started", "finished"] = "none"
    at: int = 0
    recovered: dict[str, int] | None = None


class Awards(BaseModel):
    """By (job, op) in the order in which they came, and whom this node obeys."""

    term: int = 0
    session: str = ""
    tasks: dict[str, _Task] = {}
    keys: dict[str, Key] = {}
    revision: int = 0
    _held: dict[str, None] = PrivateAttr(default_factory=dict)

    def model_post_init(self, _: Any) -> None:
        """Find what is held, so that looking costs no more than that, however much is remembered."""
        self._held = {name: None for name, task in self.tasks.items() if task.state == "held"}

    @property
    def authority(self) -> Authority:
        """The highest heard of."""
        return Authority(self.term, self.session)

    def obey(self, authority: Authority) -> bool:
        """Hear of a judge; False: a higher one is obeyed here."""
        if authority < self.authority:
            return False
        if authority > self.authority:
            self.term, self.session = authority
            self.revision += 1
        return True

    def take(
        self,
        envelope: Awarded,
        now: int,
        target: Collection[str],
        fact: Callable[[Key], str | None],
        machines: Collection[str],
    ) -> AwardAck:
        """Hold it, give it up, or say why not.

        `fact` says why a task can be neither begun nor let go here, as it may have begun; `machines` can work.
        """
        body = envelope.body
        key, name = (body.job, body.op), task_of(body.job, body.op)
        task = self.tasks.get(name)
        if task is not None and envelope.counter == task.counter and body.machine == task.machine:
            return self._answer(envelope, now, task)
        reason = self._refusal(envelope, now, target, machines, task) or fact(key)
        if reason is None and task is not None and task.state in ("started", "finished"):
            reason = f"it is {task.state} here"
        if reason is not None:
            return self._answer(envelope, now, task, reason)
        task = _Task(
            counter=envelope.counter,
            machine=body.machine,
            not_before=body.not_before,
            seconds=body.seconds,
            last=body.last,
            ahead=body.ahead,
            fetch_at=body.fetch_at,
            valid_until=envelope.valid_until,
            state="none" if body.machine is None else "held",
            at=now,
        )
        self.tasks.pop(name, None)
        self.tasks[name] = task
        self.keys[name] = key
        self._held.pop(name, None)
        if task.state == "held":
            self._held[name] = None
        self.revision += 1
        self._forget()
        return self._answer(envelope, now, task)

    def _refusal(
        self, envelope: Awarded, now: int, target: Collection[str], machines: Collection[str], task: _Task | None
    ) -> str | None:
        body = envelope.body
        if envelope.target not in target:
            return f"addressed to {envelope.target}, this is {' or '.join(sorted(target))}"
        if not self.obey(body.authority):
            return f"a judge of term {self.term} (session {self.session}) is obeyed here; this one's is {body.term}"
        if task is not None and envelope.counter <= task.counter:
            return f"counter {task.counter} is in force here; award with a higher one"
        if body.machine is None:
            return None
        if envelope.valid_until <= now:
            return "its time was over when it arrived; tender it again"
        if body.machine not in machines:
            return f"machine {body.machine!r} is not here, or down"
        if len(self._held) >= MAX_HELD:
            return f"{MAX_HELD} awards are held; wait for some to end"
        return None

    def _answer(self, envelope: Awarded, now: int, task: _Task | None, refusal: str | None = None) -> AwardAck:
        body = envelope.body
        return AwardAck(
            job=body.job,
            op=body.op,
            counter=envelope.counter,
            term=body.term,
            session=body.session,
            accepted=refusal is None,
            at=now,
            reason=refusal,
            held=task.counter if task is not None and refusal is not None else None,
            state=task.state if task is not None else "none",
        )

    # --- what happens to them --------------------------------------------------------------------------

    @property
    def held(self) -> list[tuple[Key, _Task]]:
        """Awards not begun, in the order in which they came."""
        return [(self.keys[name], self.tasks[name]) for name in self._held]

    def expire(self, now: int, doubtful: Iterable[Key]) -> list[Key]:
        """Give up what should have begun by now; what may have begun stays."""
        kept = set(doubtful)
        over = [key for key, task in self.held if task.valid_until <= now and key not in kept]
        for key in over:
            self._enter(key, "none", now)
        return over

    def began(self, key: Key, at: int) -> int | None:
        """The machine works on it: the counter of its award, if it was one."""
        return self._enter(key, "started", at)

    def ended(self, key: Key, at: int, recovered: dict[str, int] | None = None) -> int | None:
        """It is done: it is remembered, so that no late award begins it again, with what was found in it."""
        task = self.tasks.get(task_of(*key))
        if task is not None:
            task.recovered = recovered
        return self._enter(key, "finished", at)

    def lost(self, key: Key, at: int) -> int | None:
        """Its work was interrupted: it is nobody's, until it is awarded again."""
        return self._enter(key, "none", at)

    def confirmed(self, name: str) -> bool:
        """The judge took the award of a task from the broker. If it is done, nobody needs to be told any more.

        That it was begun here is known for long (`Executor`), so that no late award of it is taken.
        """
        task = self.tasks.get(name)
        if task is None or task.state != "finished":
            return False
        del self.tasks[name], self.keys[name]
        return True

    def _enter(self, key: Key, state: Literal["none", "started", "finished"], at: int) -> int | None:
        task = self.tasks.get(task_of(*key))
        if task is None:
            return None
        self._held.pop(task_of(*key), None)
        if task.state != state:
            task.state, task.at = state, at
            self.revision += 1
        return task.counter

    def _forget(self) -> None:
        over = len(self.tasks) - REMEMBERED
        if over > 0:
            for name in [name for name, task in self.tasks.items() if task.state in ("none", "finished")][:over]:
                del self.tasks[name], self.keys[name]

    # --- what they ask for -----------------------------------------------------------------------------

    def orders(self) -> list[Order]:
        """What the machines are to do, in the order of the awards."""
        return [
            Order(
                job=job,
                op=op,
                machine=task.machine or "",
                start=task.not_before,
                seconds=task.seconds,
                last=task.last,
                until=task.valid_until,
                by=f"a{task.counter}",
                award=task.counter,
                ahead=task.ahead > 0,
                fetch_at=task.fetch_at,
            )
            for (job, op), task in self.held
        ]

    def agenda(self) -> list[Held]:
        """Everything that is held, runs, or was done and the judge has not confirmed; at most twice `MAX_HELD`."""
        found = []
        for name, task in self.tasks.items():
            if task.state != "none" and task.machine is not None:
                job, op = self.keys[name]
                found.append(
                    Held(
                        job=job,
                        op=op,
                        machine=task.machine,
                        counter=task.counter,
                        state=task.state,
                        at=task.at,
                        valid_until=task.valid_until,
                        ahead=task.ahead,
                        recovered=task.recovered,
                    )
                )
        pressing = [one for one in found if one.state != "finished"]
        done = [one for one in found if one.state == "finished"]
        return [*done[-MAX_HELD:], *pressing]
