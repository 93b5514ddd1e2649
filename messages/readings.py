"""A workshop as published, and what it may mean: one file, three problems. JSON with "tasks".

    {"time_unit": "s", "machines": [{"id": "lathe-1", "does": "turning"}], "transport_and_setup_s": {"01": 70},
     "tasks": [{"order": "01", "id": "T1", "route": [{"operation": "turning", "time_s": 15.6}]}]}

Each task goes through the operations of its route, each on any machine that does it. `transport_and_setup_s` states a
time per order and leaves open of what; the readings are (`READINGS`, the first is taken unless another is asked for):

    vehicles    the trip is written out: a vehicle that stands in the cell drives to the raw store of the order, loads,
                drives to the machine of the first operation and unloads; each way takes half of what is left of the
                time. There are `buffer_places` places before every machine. Within the cell parts are handed on.
    occupying   it takes place in the machine of the first operation, which is as much longer
    lag         every operation begins so long after its predecessor, the first after tick 0, at the earliest

What the file may say beside: vehicles (2), buffer_places (2), loading_s and unloading_s (10 each). The tick is the
greatest that divides every time, in whole milliseconds. Every refusal is a ConfigError that names file, place and cure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from functools import reduce
from math import gcd, isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from messages.errors import ConfigError
from messages.problem import Problem
from messages.refusals import refused
from messages.stages import refuse_unknown

Reading = Literal["vehicles", "occupying", "lag"]
READINGS: tuple[Reading, ...] = get_args(Reading)
CELL = "cell"
"""Where vehicles stand; it and the machines are one place, as far as vehicles go."""
VEHICLES, BUFFER_PLACES, LOADING_S = 2, 2, 10


def workshop_readings(data: Mapping[str, Any], path: Path = Path("workshop")) -> dict[Reading, Problem]:
    """The problem under every reading."""
    return {reading: read_workshop(data, path, reading) for reading in READINGS}


def read_workshop(data: Mapping[str, Any], path: Path, reading: Reading = "vehicles") -> Problem:
    """The problem under one reading; `path` is what a refusal names."""
    if reading not in READINGS:
        raise ConfigError(f"{path}: reading {reading!r} is unknown; use one of {', '.join(READINGS)}")
    document = _File(data, path).document(reading)
    try:
        return Problem.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {refused(error, document)}") from None


class _File:
    """One file, checked; times in whole milliseconds until all are known."""

    def __init__(self, data: Mapping[str, Any], path: Path) -> None:
        self.path = path
        words = ("name", "time_unit", "machines", "transport_and_setup_s", "tasks")
        refuse_unknown(data, (*words, "vehicles", "buffer_places", "loading_s", "unloading_s"), "", path)
        if data.get("time_unit", "s") != "s":
            raise ConfigError(f'{path}: time_unit: {data["time_unit"]!r}; a workshop is stated in "s"')
        self.name = str(data.get("name", path.stem))
        self.able: dict[str, list[str]] = {}
        for m, machine in enumerate(self._list(data, "machines", "machines")):
            where = f"machines[{m}]"
            self._object(machine, where, ("id", "does"))
            self.able.setdefault(self._text(machine, "does", where), []).append(self._text(machine, "id", where))
        self.machines = [machine["id"] for machine in data["machines"]]
        stated = self._object(data.get("transport_and_setup_s", {}), "transport_and_setup_s", None)
        self.trip = {order: self._ms(value, f"transport_and_setup_s.{order}") for order, value in stated.items()}
        self.loading = self._ms(data.get("loading_s", LOADING_S), "loading_s")
        self.unloading = self._ms(data.get("unloading_s", LOADING_S), "unloading_s")
        self.vehicles = data.get("vehicles", VEHICLES)
        self.places = data.get("buffer_places", BUFFER_PLACES)
        self.tasks = [self._task(task, f"tasks[{t}]") for t, task in enumerate(self._list(data, "tasks", "tasks"))]

    def document(self, reading: Reading) -> dict[str, Any]:
        """As a problem has it, in ticks."""
        carried = reading == "vehicles"
        half = {order: self._one_way(order) for order in self.trip} if carried else {}
        times = [ms for _, _, steps in self.tasks for _, ms in steps]
        times += [self.loading, self.unloading, *half.values()] if carried else self.trip.values()
        tick = reduce(gcd, times, 0) or 1000
        carry: dict[str, Any] = {}
        if carried:
            ways: dict[str, dict[str, int]] = {}
            for order, ms in half.items():
                for place in (CELL, *self.machines):
                    ways.setdefault(place, {})[_raw(order)] = ms // tick
                    ways.setdefault(_raw(order), {})[place] = ms // tick
            carry = {
                "ticks": ways,
                "stores": [CELL, *(_raw(order) for order in half)],
                "vehicles": self.vehicles,
                "home": CELL,
                "loading": self.loading // tick,
                "unloading": self.unloading // tick,
            }
        return {
            "name": f"{self.name} ({reading})",
            "time_unit": "s",
            "tick_s": tick / 1000,
            "machines": [
                {"id": name, **({"buffer": {"in": self.places}} if carried else {})} for name in self.machines
            ],
            "jobs": [self._job(task, reading, tick) for task in self.tasks],
            "transport": carry,
        }

    def _job(self, task: tuple[str, str, list[tuple[str, int]]], reading: Reading, tick: int) -> dict[str, Any]:
        name, order, steps = task
        trip = self.trip[order] // tick
        job: dict[str, Any] = {"id": name}
        if reading == "vehicles":
            job["at"] = _raw(order)
        if reading == "lag":
            job["release"] = trip
        job["operations"] = [
            {
                "op": n,
                "name": does,
                "alternatives": dict.fromkeys(
                    self.able[does], ms // tick + (trip if reading == "occupying" and n == 0 else 0)
                ),
                **({"wait_min": trip} if reading == "lag" and n else {}),
            }
            for n, (does, ms) in enumerate(steps)
        ]
        return job

    def _task(self, task: Any, where: str) -> tuple[str, str, list[tuple[str, int]]]:
        """Its id, its order, and what is done for how many ms."""
        self._object(task, where, ("id", "order", "route"))
        name, order = self._text(task, "id", where), self._text(task, "order", where)
        if order not in self.trip:
            raise ConfigError(f"{self.path}: {where}.order: {order!r} has no time in `transport_and_setup_s`; add it")
        steps = []
        for n, step in enumerate(self._list(task, "route", f"{where}.route")):
            place = f"{where}.route[{n}]"
            self._object(step, place, ("operation", "time_s"))
            does = self._text(step, "operation", place)
            if does not in self.able:
                raise ConfigError(
                    f"{self.path}: {place}.operation: no machine does {does!r}; there are {', '.join(self.able)}"
                )
            steps.append((does, self._ms(step.get("time_s"), f"{place}.time_s")))
        return name, order, steps

    def _one_way(self, order: str) -> int:
        left = self.trip[order] - self.loading - self.unloading
        if left < 0:
            raise ConfigError(
                f"{self.path}: transport_and_setup_s.{order}: less than loading and unloading, "
                f"{(self.loading + self.unloading) / 1000:g} s; state a smaller loading_s and unloading_s"
            )
        if left % 2:
            raise ConfigError(
                f"{self.path}: transport_and_setup_s.{order}: half of it is no whole millisecond; round it"
            )
        return left // 2

    def _object(self, data: Any, where: str, words: Collection[str] | None) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise ConfigError(f"{self.path}: {where}: an object is missing here; write {{…}}")
        if words is not None:
            refuse_unknown(data, words, f"{where}.", self.path)
        return data

    def _list(self, data: Mapping[str, Any], key: str, where: str) -> list[Any]:
        if not isinstance(data.get(key), list):
            raise ConfigError(f"{self.path}: {where}: a list is missing here; add it")
        found: list[Any] = data[key]
        return found

    def _text(self, data: Mapping[str, Any], key: str, where: str) -> str:
        if not isinstance(data.get(key), str) or not data[key]:
            raise ConfigError(f"{self.path}: {where}.{key}: a text is missing here; add it")
        return str(data[key])

    def _ms(self, value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
            raise ConfigError(f"{self.path}: {where}: {value!r} is no time; write a number of seconds from 0 on")
        exact = Fraction(str(value)) * 1000
        if exact.denominator != 1:
            raise ConfigError(f"{self.path}: {where}: {value} s is off the grid of 1 ms; round it to milliseconds")
        return int(exact)


def _raw(order: str) -> str:
    return f"raw-{order}"
