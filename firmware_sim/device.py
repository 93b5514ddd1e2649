"""One device's firmware: samples on its grid, cuts bursts, keeps each until the node has taken it.

Pure: plant time and monotonic real time are arguments, and what is to be sent is returned. A burst's bytes
never change. At most `max_held` bursts are kept; a full device cuts no new one but goes on sampling, and what
it sampled goes out in one larger burst when there is room. A forgetful device keeps nothing once sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from firmware_sim.faults import DECIMALS, Liar, Sent
from firmware_sim.signals import Floats, Ints
from messages.contracts import MAX_RECORDS, MAX_SAMPLES, Burst, MachineEvent, Taken
from messages.plant import Device

LONGEST_BACKOFF_S = 30.0
NEVER = float("inf")

Sampler = Callable[[Ints], dict[str, Floats]]
"""True values of every metric of the device at ascending times."""


@dataclass
class Held:
    """A burst on its way: due to be sent at monotonic `send_at`, unless it is in the MQTT client's hands."""

    device: str
    seq: int
    payload: bytes
    readings: int
    copies: int
    late: bool
    send_at: float = 0.0
    tries: int = 0
    in_hand: bool = False


@dataclass(frozen=True)
class Cut:
    """A new burst and the truth about it."""

    held: Held
    sent: Sent
    true: dict[str, list[float]]
    skew_us: int


@dataclass
class Firmware:
    """The firmware of one device since its boot at plant time `start`."""

    device: Device
    sampler: Sampler
    liar: Liar
    boot: str
    start: int
    sample_us: int
    burst_us: int
    rng: np.random.Generator
    skew_us: int = 0
    forgetful: bool = False
    max_held: int = 24
    resend_s: float = 2.0
    held: dict[int, Held] = field(default_factory=dict)
    seq: int = 0
    produced: int = 0
    on_credit: bool = False
    sampled_to: int = field(init=False)
    cut_at: int = field(init=False)

    def __post_init__(self) -> None:
        self.sampled_to = self.cut_at = self.start

    @property
    def full(self) -> bool:
        """Whether there is no room for another burst."""
        return len(self.held) >= self.max_held

    @property
    def waits(self) -> bool:
        """Whether a burst that was sent has not been taken."""
        return any(one.tries for one in self.held.values())

    def is_due(self, now: int) -> bool:
        """Whether a regular burst is due, on the grid of bursts."""
        return now // self.burst_us > self.cut_at // self.burst_us

    def cut(self, now: int, events: list[MachineEvent]) -> Cut | None:
        """The burst of everything since the last one; None when there is nothing to say.

        Takes at most MAX_SAMPLES samples and removes from `events` what it took.
        """
        first = self.sampled_to // self.sample_us + 1
        last = min(now // self.sample_us, first + MAX_SAMPLES - 2)  # one place is left for a repeated sample
        at: Ints = np.arange(first, last + 1, dtype=np.int64) * self.sample_us
        self.cut_at = now
        if not len(at) and not events:
            return None
        if len(at):
            self.sampled_to = int(at[-1])
        taken = events[:MAX_RECORDS]
        del events[:MAX_RECORDS]
        true = self.sampler(at) if len(at) else {}
        sent = self.liar.distort(at, self._sense(true))
        t0 = int(sent.at[0]) if len(at) else now
        held = self._hold(sent, t0, taken)
        picked = {metric: np.round(column[sent.picked], DECIMALS).tolist() for metric, column in true.items()}
        return Cut(held, sent, picked, self.skew_us)

    def due(self, mono_s: float) -> list[Held]:
        """What to send now, oldest first, but a late burst after its successor."""
        ready = [one for one in self.held.values() if not one.in_hand and one.send_at <= mono_s]
        return sorted(ready, key=lambda one: one.seq + (1.5 if one.late and not one.tries else 0))

    def on_sent(self, one: Held, mono_s: float, *, in_hand: bool) -> None:
        """It was given to the client (`in_hand`), or could not be."""
        one.tries += 1
        one.in_hand = in_hand
        one.send_at = mono_s + self._backoff_s(one)
        if self.forgetful:
            self.held.pop(one.seq, None)

    def on_answer(self, one: Held, mono_s: float) -> None:
        """The broker answered; that is not yet delivery."""
        one.in_hand = False
        one.send_at = mono_s + self._backoff_s(one)

    def on_connect(self, mono_s: float) -> None:
        """Everything the client does not hold itself goes out again; except what still waits for its successor."""
        for one in self.held.values():
            if one.send_at != NEVER:
                one.send_at, one.tries = mono_s, min(one.tries, 1)

    def on_taken(self, taken: Taken) -> int:
        """Forget what the node has; the number of bursts forgotten."""
        if taken.boot != self.boot:
            return 0
        gone = [seq for seq in self.held if any(low <= seq <= high for low, high in taken.ranges)]
        for seq in gone:
            del self.held[seq]
        if not self.waits:
            self.on_credit = False
        return len(gone)

    def hurry(self, mono_s: float) -> None:
        """Before a stop: nothing waits for a successor any more."""
        for one in self.held.values():
            one.send_at = min(one.send_at, mono_s)

    # --- private ----------------------------------------------------------------------------------

    def _backoff_s(self, one: Held) -> float:
        return min(self.resend_s * 2.0 ** min(max(one.tries - 1, 0), 10), LONGEST_BACKOFF_S)

    def _sense(self, true: dict[str, Floats]) -> dict[str, Floats]:
        """What a sound sensor says: noise, smaller on a small load, and never below zero where zero is the least."""
        healthy: dict[str, Floats] = {}
        for metric, spec in self.device.metrics.items():
            if metric not in true:
                continue
            column = true[metric]
            if spec.noise and not (spec.counter or spec.code):
                noise = spec.noise * self.rng.standard_normal(len(column))
                if spec.low == 0:
                    column = np.maximum(column + noise * np.clip(column / (0.5 * spec.high), 0.05, 1.0), 0.0)
                else:
                    column = column + noise
            healthy[metric] = column
        return healthy

    def _hold(self, sent: Sent, t0: int, events: list[MachineEvent]) -> Held:
        floor = min(self.held, default=self.seq)
        burst = Burst(
            boot=self.boot,
            seq=self.seq,
            floor=None if self.forgetful else floor,
            first=self.produced,
            t0=t0 + self.skew_us,
            at=(sent.at - t0).tolist(),
            columns=sent.columns,
            units=sent.units,
            events=[_skewed(event, self.skew_us) for event in events],
        )
        for one in self.held.values():  # whoever waited for a successor has one now
            if one.send_at == NEVER:
                one.send_at = 0.0
        late = sent.send_after_next and len(self.held) + 1 < self.max_held
        held = Held(
            device=self.device.device,
            seq=self.seq,
            payload=burst.encode(),
            readings=burst.readings,
            copies=2 if sent.send_twice else 1,
            late=late,
            send_at=NEVER if late else 0.0,
        )
        self.held[held.seq] = held
        self.seq += 1
        self.produced += burst.readings
        return held


def _skewed(event: MachineEvent, skew_us: int) -> MachineEvent:
    """The event as the device's clock has it."""
    if not skew_us:
        return event
    repair_at = None if event.repair_at is None else event.repair_at + skew_us
    return event.model_copy(update={"at": event.at + skew_us, "repair_at": repair_at})
