"""All devices of a plant on one floor: actions in, bursts out, one call per tick. No sockets, no files, no clock.

fleet = Fleet(plant, settings, boot="0011aabb", start=now)
fleet.act("firing-1", action, at=now)
cuts = fleet.tick(now)                  # new bursts with their truth
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import asdict
from typing import Any

import numpy as np

from firmware_sim.cell import Cell, cell_of
from firmware_sim.device import Cut, Firmware, Sampler
from firmware_sim.factory import Factory
from firmware_sim.faults import Liar
from firmware_sim.machine import SECOND
from firmware_sim.meters import MeterModel
from firmware_sim.robot import Robot
from firmware_sim.settings import Likeness, Ordered, OrderSpec, SimSettings
from messages.contracts import Action, MachineEvent, Order, OrderedJob
from messages.plant import Device, Plant, meter_of

MAX_ACTIONS = 10_000
"""Actions waiting for the next tick; beyond that the oldest are dropped, and their senders repeat them."""


class Fleet:
    """Devices and floor since plant time `start`."""

    def __init__(self, plant: Plant, settings: SimSettings, *, boot: str, start: int) -> None:
        self.plant, self.settings, self.start = plant, settings, start
        self.factory = Factory(
            plant, start=start, seed=settings.seed, variation=settings.variation, scenario=settings.scenario
        )
        self.robots = {name: self._robot(name, place) for place, name in enumerate(plant.cells)}
        self.firmwares = {device.device: self._firmware(device, boot) for device in plant.devices()}
        self._orders = [self._order(spec) for spec in self._order_specs()]
        for order in self._orders:
            for job in order.jobs:
                self.factory.expect(job.job, job.product)
        self.actions: deque[tuple[int, str, Action]] = deque(maxlen=MAX_ACTIONS)
        self._waiting_events: dict[str, list[MachineEvent]] = {name: [] for name in self.firmwares}
        self.noted: deque[tuple[str, MachineEvent]] = deque(maxlen=1_000)
        self.refused = 0
        self._ticked = start

    def act(self, device: str, action: Action, *, at: int) -> None:
        """Take an action in at plant time `at`; it works on the floor from then on, at the next tick's doing."""
        self.actions.append((at, device, action))

    def tick(self, now: int) -> list[Cut]:
        """Let the floor go on until `now`; the bursts that devices cut: the regular ones, or at once after an event."""
        while self.actions:
            at, device, action = self.actions.popleft()
            robot = self.robots.get(device)
            if robot:
                self._hear(device, robot.act(action, min(at, now)))
            else:
                self.factory.act(device, action, min(at, now))
        self.factory.advance(now)
        cuts = []
        for name, firmware in self.firmwares.items():
            events = self._waiting_events[name]
            if name in self.robots:
                cuts += self._steps(firmware, self.robots[name], now)
                continue
            self._hear(name, self.factory.drain(name))
            if (events or firmware.is_due(now)) and not firmware.full:
                cut = firmware.cut(now, events)
                if cut:
                    cuts.append(cut)
        if cuts:
            self._forget()
        self._ticked = now
        return cuts

    def orders(self, now: int) -> list[Order]:
        """All orders placed until now."""
        return [order for order in self._orders if order.placed_at <= now]

    def summary(self) -> dict[str, Any]:
        """Counters of devices and floor, for a report."""
        now = self.factory.now
        here = np.array([now], np.int64)
        done = [asdict(one) for one in self.factory.done]
        return {
            "now": now,
            "start": self.start,
            "readings_produced": {name: firmware.produced for name, firmware in self.firmwares.items()},
            "readings_produced_total": sum(firmware.produced for firmware in self.firmwares.values()),
            "bursts_cut": sum(firmware.seq for firmware in self.firmwares.values()),
            "bursts_held": sum(len(firmware.held) for firmware in self.firmwares.values()),
            "actions_refused": self.refused,
            "parts_finished": sum(part.place == "finished" for part in self.factory.logistics.parts.values()),
            "operations": done,
            "cells": {name: robot.summary() for name, robot in self.robots.items()},
            "carried": [
                {
                    "vehicle": trip.vehicle,
                    "job": trip.job,
                    "from": trip.origin,
                    "to": trip.call.machine,
                    "departs": trip.departs,
                    "loads": trip.loads_at,
                    "arrives": trip.arrives_at,
                }
                for trip in self.factory.logistics.carried
            ],
            "energy_kwh": {
                name: round(float(machine.sample(here)["energy_kwh"][0]), 4)
                for name, machine in self.factory.machines.items()
            },
            "states": {name: machine.state for name, machine in self.factory.machines.items()},
            "components": {
                "in_stock": dict(self.factory.bins.pieces),
                "recovered": dict(self.factory.bins.recovered),
                "consumed": dict(self.factory.bins.consumed),
            },
        }

    # --- private ----------------------------------------------------------------------------------

    def _hour(self, hours: float) -> int:
        return self.start + round(hours * 3600 * SECOND)

    def _order_specs(self) -> tuple[OrderSpec, ...]:
        if not self.settings.order_feed:
            return ()
        jobs = tuple(Ordered(job=name, product=None, release_h=None, due_h=None) for name in self.plant.ordered)
        return self.settings.orders or ((OrderSpec(order="order-1", at_h=0, jobs=jobs),) if jobs else ())

    def _order(self, spec: OrderSpec) -> Order:
        return Order(
            order=spec.order,
            placed_at=self._hour(spec.at_h),
            jobs=[
                OrderedJob(
                    job=one.job,
                    product=one.product or one.job,
                    release_at=None if one.release_h is None else self._hour(one.release_h),
                    due_at=None if one.due_h is None else self._hour(one.due_h),
                )
                for one in spec.jobs
            ],
        )

    def _firmware(self, device: Device, boot: str) -> Firmware:
        name, settings = device.device, self.settings
        seed = [settings.seed, zlib.crc32(name.encode())]
        robot = self.robots.get(name)
        return Firmware(
            device=device,
            sampler=self._sampler(device),
            liar=Liar(device, settings.faults, np.random.default_rng([*seed, 1])),
            boot=boot,
            start=self.start,
            sample_us=robot.step_us if robot else round(self.plant.sample_s * SECOND),
            burst_us=robot.step_us if robot else round(self.plant.burst_s * SECOND),
            rng=np.random.default_rng([*seed, 2]),
            skew_us=round(settings.faults.clock_skew_s.get(name, 0.0) * SECOND),
            forgetful=name in settings.forgetful,
            max_held=settings.max_held,
            resend_s=settings.resend_s,
        )

    def _robot(self, name: str, place: int) -> Robot:
        like = self.settings.cells.get(name, Likeness())
        spec = cell_of(place if like.number is None else like.number, like.heterogeneity)
        rng = np.random.default_rng([self.settings.seed, zlib.crc32(name.encode()), 3])
        return Robot(
            Cell(spec, rng),
            step_us=round(self.plant.cells[name][1].step_s * SECOND),
            start=self.start,
            skew_us=round(self.settings.faults.clock_skew_s.get(name, 0.0) * SECOND),
        )

    def _sampler(self, device: Device) -> Sampler:
        if device.kind == "cell":
            return self.robots[device.device].sample
        if device.kind == "machine":
            return self.factory.machines[device.device].sample
        workshop = next(workshop for workshop in self.plant.workshops if workshop.name == device.workshop)
        return MeterModel(
            workshop,
            tuple(self.factory.machines[machine.id] for machine in workshop.machines),
            gas_kwh_per_m3=self.plant.gas_kwh_per_m3,
            start=self.start,
            seed=self.settings.seed,
        ).sample

    def _steps(self, firmware: Firmware, robot: Robot, now: int) -> list[Cut]:
        """A burst at every point of its grid until now; while there is no room for one, the next has more samples."""
        events, cuts = self._waiting_events[firmware.device.device], []
        for at in range((self._ticked // robot.step_us + 1) * robot.step_us, now + 1, robot.step_us):
            robot.advance(at)
            cut = None if firmware.full else firmware.cut(at, events)
            if cut:
                cuts.append(cut)
        if events and not firmware.full:  # a refusal is said at once
            cut = firmware.cut(now, events)
            if cut:
                cuts.append(cut)
        robot.forget(firmware.sampled_to)
        return cuts

    def _hear(self, name: str, events: list[MachineEvent]) -> None:
        self._waiting_events[name] += events
        for event in events:
            self._note(name, event)

    def _forget(self) -> None:
        """A machine's past is needed until it and its workshop's meter have sampled it."""
        for name, machine in self.factory.machines.items():
            meter = self.firmwares[meter_of(machine.workshop.name)]
            machine.forget(min(self.firmwares[name].sampled_to, meter.sampled_to))

    def _note(self, name: str, event: MachineEvent) -> None:
        self.refused += event.kind == "refused"
        if event.kind in ("breakdown", "repaired"):
            self.noted.append((name, event))
