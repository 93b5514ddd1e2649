"""One machine: off → preheat → idle → work → idle, and down from any of them.

A pure state machine over times in µs: `obey` and `on_timer` return the events that happened, `next_timer`
says when it wants to be called. What it drew and how hot it was is kept as segments, so that samples of any
past grid are computed in one go (`signals`); `forget` drops segments nobody will sample again.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from firmware_sim.signals import FLAT, PREHEAT, STEEPNESS, WORK, Floats, Ints, Profile, Segment, overshoot_degc
from messages.contracts import STATE_CODES, MachineEvent
from messages.plan import State
from messages.plant import Machine, Workshop

SECOND = 1_000_000
WORK_HEAT = 0.03
"""Share of the span to ambient by which work warms the machine above its idle temperature."""


@dataclass(frozen=True, slots=True)
class Work:
    """The operation a machine works on."""

    job: str
    op: int
    started_at: int
    ends_at: int
    energy_at_start_kwh: float


class MachineModel:
    """A machine of the plant, in state `off` and cold at `start`."""

    def __init__(self, machine: Machine, workshop: Workshop, *, ambient_degc: float, start: int) -> None:
        self.spec, self.workshop, self.ambient_degc = machine, workshop, ambient_degc
        self.state: State = "off"
        self.work: Work | None = None
        self.next_timer: int | None = None
        self.repair_at: int | None = None
        self._heating_us = max(machine.preheat_h * 3600, 600.0) * SECOND
        self._segments: list[Segment] = []
        self._starts: list[int] = []
        self._push(start, "off", degc=ambient_degc, energy_kwh=0.0)

    # --- commands: each returns its events, or a text why not --------------------------------------

    def preheat(self, at: int, action: str | None = None) -> list[MachineEvent] | str:
        """Heat up; a machine without preheating is warm at once."""
        if self.state == "down":
            return self._is_down()
        if self.state != "off":
            return [self._state_event(at, action)]
        if self.spec.preheat_h == 0:
            return [self._enter(at, "idle", action)]
        return [self._enter(at, "preheat", action)]

    def idle(self, at: int, action: str | None = None) -> list[MachineEvent] | str:
        """Be warm and wait; from off only where no preheating is needed."""
        if self.state == "down":
            return self._is_down()
        if self.state == "off":
            if self.spec.preheat_h:
                return "cold: preheat first"
            return [self._enter(at, "idle", action)]
        if self.state == "work":
            return self._is_working()
        return [self._state_event(at, action)]

    def off(self, at: int, action: str | None = None) -> list[MachineEvent] | str:
        """Switch off; work is never cut off by this."""
        if self.state == "down":
            return self._is_down()
        if self.state == "work":
            return self._is_working()
        if self.state == "off":
            return [self._state_event(at, action)]
        return [self._enter(at, "off", action)]

    def start(
        self, at: int, job: str, op: int, duration_us: int, action: str | None = None
    ) -> list[MachineEvent] | str:
        """Work for `duration_us`: after an interruption, whoever asks says whether that is the rest or the whole."""
        if self.state == "down":
            return self._is_down()
        if self.state == "work":
            return self._is_working()
        if self.state == "preheat":
            return "still preheating"
        if self.state == "off" and self.spec.preheat_h:
            return "cold: preheat first"
        ends_at = at + duration_us
        self._enter(at, "work", None, span_us=max(float(duration_us), 1.0), until=ends_at)
        self.work = Work(job, op, at, ends_at, self._segments[-1].energy_kwh)
        return [MachineEvent(at=at, kind="started", job=job, op=op, action=action), self._state_event(at)]

    def break_down(self, at: int, repair_at: int) -> list[MachineEvent]:
        """Stop at once until `repair_at`; nothing if it is down already."""
        if self.state == "down":
            return []
        work, self.work = self.work, None
        until = max(at, repair_at)
        events = [MachineEvent(at=at, kind="breakdown", state="down", repair_at=until)]
        self._enter(at, "down", None, until=until)
        self.repair_at = until
        if work:
            policy = self.workshop.on_breakdown
            events.append(
                MachineEvent(
                    at=at,
                    kind="interrupted",
                    job=work.job,
                    op=work.op,
                    energy_kwh=self._metered(work),
                    detail={
                        "restart": "restart: the operation must be done again from its beginning",
                        "resume": "resume: what is left of the operation must be done, on this machine or another",
                        "scrap": "scrap: the part is lost",
                    }[policy],
                )
            )
        return [*events, self._state_event(at)]

    def on_timer(self, at: int) -> list[MachineEvent]:
        """What ends at `next_timer`: preheating, the operation or the repair."""
        if self.state == "work" and self.work:
            work, self.work = self.work, None
            state = self._enter(at, "idle")
            done = MachineEvent(at=at, kind="finished", job=work.job, op=work.op, energy_kwh=self._metered(work))
            return [done, state]
        if self.state == "preheat":
            return [self._enter(at, "idle")]
        if self.state == "down":
            self.repair_at = None
            state = self._enter(at, "off")
            return [MachineEvent(at=at, kind="repaired", state="off"), state]
        self.next_timer = None
        return []

    # --- what its sensors could see ---------------------------------------------------------------

    @property
    def energy_kwh(self) -> float:
        """The counter at the last change of state."""
        return self._segments[-1].energy_kwh

    def sample(self, at: Ints) -> dict[str, Floats]:
        """True values at ascending times not before the oldest segment kept."""
        power, degc, energy, state = (np.empty(len(at)) for _ in range(4))
        first = self._segment_of(at[0]) if len(at) else 0
        for index in range(first, len(self._segments)):
            low = 0 if index == first else int(np.searchsorted(at, self._starts[index]))
            last = index + 1 == len(self._segments)
            high = len(at) if last else int(np.searchsorted(at, self._starts[index + 1]))
            if low == high:
                continue
            part, here = self._segments[index], at[low:high]
            power[low:high] = part.power_kw(here)
            degc[low:high] = part.temperature_degc(here)
            energy[low:high] = part.energy_at_kwh(here)
            state[low:high] = part.code
        return {"power_kw": power, "temperature_degc": degc, "energy_kwh": energy, "state": state}

    def forget(self, before: int) -> None:
        """Drop segments that end at or before `before`."""
        keep = self._segment_of(before)
        del self._segments[:keep], self._starts[:keep]

    # --- private ----------------------------------------------------------------------------------

    def _segment_of(self, at: int) -> int:
        return max(0, bisect_right(self._starts, at) - 1)

    def _metered(self, work: Work) -> float:
        return round(self._segments[-1].energy_kwh - work.energy_at_start_kwh, 4)

    def _state_event(self, at: int, action: str | None = None) -> MachineEvent:
        return MachineEvent(at=at, kind="state", state=self.state, action=action)

    def _is_down(self) -> str:
        return "down: broken, wait for the repair"

    def _is_working(self) -> str:
        return f"at work on {self.work.job} op {self.work.op}" if self.work else "at work"

    def _enter(
        self,
        at: int,
        state: State,
        action: str | None = None,
        *,
        x0: float = 0.0,
        span_us: float = 1.0,
        until: int | None = None,
    ) -> MachineEvent:
        last = self._segments[-1]
        here = np.array([at], np.int64)
        degc, energy = float(last.temperature_degc(here)[0]), float(last.energy_at_kwh(here)[0])
        if state == "preheat":
            span_us = self.spec.preheat_h * 3600 * SECOND
            until = at + round(span_us)
        self.state, self.next_timer = state, until
        self._push(at, state, degc=degc, energy_kwh=energy, x0=x0, span_us=span_us)
        return self._state_event(at, action)

    def _push(
        self,
        at: int,
        state: State,
        *,
        degc: float,
        energy_kwh: float,
        x0: float = 0.0,
        span_us: float = 1.0,
    ) -> None:
        work_degc = self.workshop.work_degc
        profile: Profile = FLAT
        target, tau = self.ambient_degc, 2 * self._heating_us
        kw = {"work": self.spec.work_kw, "idle": self.spec.idle_kw, "preheat": self.spec.preheat_kw}.get(
            state, self.spec.off_kw
        )
        if state == "preheat":
            profile, target, tau = PREHEAT, overshoot_degc(degc, work_degc), self._heating_us / STEEPNESS
        elif state == "idle":
            target, tau = work_degc, self._heating_us / STEEPNESS
        elif state == "work":
            profile, target = WORK, work_degc + WORK_HEAT * (work_degc - self.ambient_degc)
            tau = self._heating_us / STEEPNESS
        segment = Segment(at, STATE_CODES[state], kw, profile, x0, span_us, degc, target, tau, energy_kwh)
        if self._starts and self._starts[-1] == at:  # a state that lasted no time leaves no trace
            self._segments[-1] = segment
            return
        self._segments.append(segment)
        self._starts.append(at)
