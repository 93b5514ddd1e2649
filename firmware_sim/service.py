"""The simulated machines of one site as a process: clock in, bursts out, actions and Taken back.

    await run(SimSettings(plant=Path("ceramic.toml")))       # until cancelled

In lock step a tick ends when what was sent has been taken, or `patience_s` of real time later; a device that
was too late goes on unwaited-for until it has caught up. When one is full (`max_held`), plant time stands
until it has room, at most `hold_s`. Counters go to the summary file every SUMMARY_S and at the stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from firmware_sim.device import Cut, Firmware, Held
from firmware_sim.fleet import Fleet
from firmware_sim.link import Callbacks, Link
from firmware_sim.settings import SimSettings
from firmware_sim.truth import TruthFile
from messages.clock import Clock, LockStepClock, clock_from
from messages.contracts import Action, Taken
from messages.errors import BadMessage, BrokenInvariant
from messages.plant import Plant
from messages.routes import ACTION, BURST, ORDER, TAKEN

SUMMARY_S = 2.0
RESEND_LOOK_S = 0.1
"""How often unanswered bursts are looked at."""
ORDER_RETRY_S = 2.0
STEP_LOOKS = 4
"""In real time a cell's step is noticed after a quarter of it at most, and within a second."""
LINGER_S = 1.5
"""At the stop: how long the last bursts may take to be taken."""

log = structlog.get_logger("sim")


async def run(settings: SimSettings) -> None:
    """Simulate until cancelled."""
    plant = settings.read_plant()
    sim = Sim(settings, plant, clock_from(settings.clock, name="sim"), boot=secrets.token_hex(8))
    await sim.run()


class Sim:
    """One site's machines on one connection; `boot` is minted for every start."""

    def __init__(self, settings: SimSettings, plant: Plant, clock: Clock, *, boot: str) -> None:
        self.settings, self.plant, self.clock, self.boot = settings, plant, clock, boot
        self.fleet: Fleet | None = None
        self.link = Link(
            settings.broker,
            client_id=f"sim-{plant.site}",
            filters=[ACTION.filter(site=plant.site), TAKEN.filter(site=plant.site)],
            callbacks=Callbacks(self._on_message, self._on_answer, self._on_connect, self._on_fatal),
        )
        self.counts = {"bursts_sent": 0, "bursts_resent": 0, "bursts_lost": 0, "bursts_taken": 0, "bad_messages": 0}
        self.truth = TruthFile(settings.truth, max_bytes=settings.truth_max_mb * 1_000_000) if settings.truth else None
        self._topics = {
            device.device: BURST.topic(site=plant.site, node=device.node, device=device.device)
            for device in plant.devices()
        }
        self._in_hand: dict[int, tuple[Firmware, Held]] = {}
        self._orders_sent: dict[str, float] = {}  # order → when to send again, monotonic; inf: it arrived
        self._order_mids: dict[int, str] = {}
        self._progress = asyncio.Event()
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held_enough = False

    async def run(self) -> None:
        """Until cancelled, or until something is wrong that repeating does not cure."""
        with self.truth or contextlib.nullcontext():
            self.link.start()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._drive(), name="drive")
                    tasks.create_task(self._resend_for_ever(), name="resend")
                    tasks.create_task(self._summarise_for_ever(), name="summary")
                    tasks.create_task(self._end_on_fatal(), name="fatal")
            except ExceptionGroup as group:  # one cause is enough, and easier to read
                raise group.exceptions[0] from None
            finally:
                await self._linger()
                self.link.stop()
                if self.truth:
                    self.truth.flush()
                self.write_summary()

    async def on_tick(self, now: int) -> None:
        """Advance the floor to `now`, send what came of it, and in lock step wait for it to be taken."""
        fleet = self.fleet
        if fleet is None:
            start = self.settings.start if self.settings.start is not None else now
            fleet = self.fleet = Fleet(self.plant, self.settings, boot=self.boot, start=min(start, now))
            log.info("sim.started", site=self.plant.site, devices=len(fleet.firmwares), start=fleet.start)
        cuts = fleet.tick(now)
        self._keep_truth(cuts)
        mono_s = time.monotonic()
        for device in dict.fromkeys(cut.held.device for cut in cuts):
            self._send_due(fleet.firmwares[device], mono_s)
        self._send_orders(now, mono_s)
        while fleet.noted:
            name, event = fleet.noted.popleft()
            log.warning(f"machine.{event.kind}", machine=name, at=event.at, repair_at=event.repair_at)
        if isinstance(self.clock, LockStepClock):
            if cuts:
                await self._wait_until_taken()
            await self._hold_while_full()

    def write_summary(self) -> None:
        """The counters as they are now, replacing the file at once."""
        path = self.settings.summary
        if path is None and self.settings.truth:
            path = self.settings.truth.with_suffix(".summary.json")
        if path is None or self.fleet is None:
            return
        found = {
            **self.fleet.summary(),
            **self.counts,
            "connects": self.link.connects,
            "truth_complete": self.truth.complete if self.truth else False,
        }
        draft = Path(f"{path}.new")
        draft.write_text(json.dumps(found, indent=1), encoding="utf-8")
        os.replace(draft, path)  # noqa: PTH105 - the point is the atomic replacement

    # --- loops ------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        while isinstance(self.clock, LockStepClock) and not self.link.up:
            await self._until(lambda: self.link.up, 1.0)  # the plant's time begins when its devices are heard
        steps_s = [cell.step_s / STEP_LOOKS for _, cell in self.plant.cells.values()]
        every_s = min([1.0, self.plant.sample_s, *steps_s])
        await self.clock.drive(self.on_tick, phase="machine", every_s=every_s)

    async def _resend_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RESEND_LOOK_S)
            mono_s = time.monotonic()
            if self.fleet and self.link.up:
                for firmware in self.fleet.firmwares.values():
                    self._send_due(firmware, mono_s)
                self._send_orders(self.fleet.factory.now, mono_s)

    async def _summarise_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SUMMARY_S)
            self.write_summary()

    async def _end_on_fatal(self) -> None:
        await self._fatal

    async def _linger(self) -> None:
        """A moment for the last bursts."""
        if self.fleet is None or not self.link.up:
            return
        mono_s = time.monotonic()
        for firmware in self.fleet.firmwares.values():
            firmware.hurry(mono_s)
            self._send_due(firmware, mono_s)
        await self._until(lambda: not self._waiting(on_credit=True), LINGER_S)

    # --- sending ----------------------------------------------------------------------------------

    def _keep_truth(self, cuts: list[Cut]) -> None:
        if self.truth is None or not cuts:
            return
        for cut in cuts:
            self.truth.write(
                device=cut.held.device,
                node=self._firmware(cut.held.device).device.node,
                payload=cut.held.payload,
                true=cut.true,
                faults=cut.sent.labels,
                order=cut.sent.order,
                skew_us=cut.skew_us,
                copies=cut.held.copies,
                late=cut.held.late,
            )
        self.truth.flush()

    def _firmware(self, device: str) -> Firmware:
        if self.fleet is None:
            raise BrokenInvariant("no fleet before the first tick")
        return self.fleet.firmwares[device]

    def _send_due(self, firmware: Firmware, mono_s: float) -> None:
        """Hand what is due to the client. Without a connection a forgetful device loses it; others keep it."""
        if not self.link.up and not firmware.forgetful:
            return
        for one in firmware.due(mono_s):
            topic = self._topics[one.device]
            mid = self.link.publish(topic, one.payload)
            if mid is None and not firmware.forgetful:
                return
            if mid is None:
                self.counts["bursts_lost"] += 1
            else:
                self._in_hand[mid] = (firmware, one)
                self.counts["bursts_resent" if one.tries else "bursts_sent"] += 1
                if one.copies > 1 and not one.tries:
                    self.link.publish(topic, one.payload)
            firmware.on_sent(one, mono_s, in_hand=mid is not None)

    def _send_orders(self, now: int, mono_s: float) -> None:
        if self.fleet is None or not self.link.up:
            return
        for order in self.fleet.orders(now):
            if self._orders_sent.get(order.order, 0.0) <= mono_s:
                mid = self.link.publish(ORDER.topic(site=self.plant.site), order.encode())
                self._orders_sent[order.order] = mono_s + ORDER_RETRY_S
                if mid is not None:
                    self._order_mids[mid] = order.order

    # --- waiting ----------------------------------------------------------------------------------

    def _waiting(self, *, on_credit: bool) -> list[Firmware]:
        firmwares = self.fleet.firmwares.values() if self.fleet else ()
        return [one for one in firmwares if one.waits and (on_credit or not one.on_credit)]

    async def _wait_until_taken(self) -> None:
        if not await self._until(lambda: not self._waiting(on_credit=False), self.settings.patience_s):
            for firmware in self._waiting(on_credit=False):
                firmware.on_credit = True

    async def _hold_while_full(self) -> None:
        firmwares = list(self.fleet.firmwares.values()) if self.fleet else []
        full = [one for one in firmwares if one.full and not one.forgetful]
        if not full:
            self._held_enough = False
        elif not self._held_enough:
            log.warning("sim.holding", devices=len(full), why="their bursts are not taken; plant time stands")
            self._held_enough = not await self._until(lambda: not any(one.full for one in full), self.settings.hold_s)

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._progress.clear()
                    await self._progress.wait()
        return condition()

    # --- callbacks of the link --------------------------------------------------------------------

    def _on_message(self, topic: str, payload: bytes) -> None:
        fleet = self.fleet
        if fleet is None:
            return
        try:
            if TAKEN.matches(topic):
                firmware = fleet.firmwares.get(TAKEN.ids(topic)["device"])
                taken = Taken.decode(payload)
                if firmware and not firmware.forgetful:
                    self.counts["bursts_taken"] += firmware.on_taken(taken)
                    self._progress.set()
            else:
                fleet.act(ACTION.ids(topic)["device"], Action.decode(payload), at=self.clock.now())
        except BadMessage as error:
            self.counts["bad_messages"] += 1
            bad = self.counts["bad_messages"]
            if bad & (bad - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                log.warning("message.bad", topic=topic[:200], why=str(error)[:500], bad=bad)

    def _on_answer(self, mid: int, taken: bool) -> None:
        mono_s = time.monotonic()
        entry = self._in_hand.pop(mid, None)
        if entry:
            entry[0].on_answer(entry[1], mono_s)
        order = self._order_mids.pop(mid, None)
        if order and taken:
            self._orders_sent[order] = float("inf")

    def _on_connect(self) -> None:
        mono_s = time.monotonic()
        self._progress.set()
        self._orders_sent.clear()
        if self.fleet:
            for firmware in self.fleet.firmwares.values():
                firmware.on_connect(mono_s)

    def _on_fatal(self, text: str) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(BrokenInvariant(text))
