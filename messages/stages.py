"""Flow shops from JSON with "stages", in hours, minutes or seconds: `from_stages(data, path)`.

    {"time_unit": "h", "stages": [{"name": "firing", "machines": [{"id": "kiln", "work_kw": 90, "time_h": [4, 3]}]}]}

Every job passes all stages in order, on one machine of each; `time_h` has one time per job. Below, `_h` stands for the
unit of the file:

    file     time_unit, kgce_per_kwh, initial_state; per job: job_ids, release_h, due_h, orders, families, sizes
             the site: transport, crews, carbon, tariff, generation, base_load, capture_kg, export_kg_per_kwh,
             horizon_h, limits (makespan and tardiness in the unit), signals_from_h: where curves begin that have no
             start_h; a curve is {"start_h": 0, "step_h": 0.5, "values": […], "periodic": true}
    stage    name, machines, carrier, crew, wait_min_h, wait_max_h
    machine  id, time_h, carrier, initial_state, work_kw, idle_kw, preheat_kw, off_kw, setup_kw, down_kw, preheat_h,
             unavailable_h: [[start, end], [start, end, "breakdown"]], setup_h, family, batch, on_breakdown

The tick is the greatest that divides every time. Every refusal is a ConfigError that names file, place and cure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from functools import reduce
from math import gcd, isfinite
from pathlib import Path
from typing import Any

from messages.curve import CURVES
from messages.errors import ConfigError
from messages.problem import TIMES, UNIT_S

ORDERS = ("after", "before", "depends_on", "predecessors", "successors", "precedence")
"""Words of other formats for what follows what."""
STATES = ("work", "idle", "preheat", "off", "setup", "down")


def from_stages(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What stands in the file, as the document of a Problem."""
    unit = data.get("time_unit", "h")
    if unit not in ("h", "min", "s"):
        raise ConfigError(f'{path}: time_unit: {unit!r} is unknown; use "h", "min" or "s"')
    document = _Reader(path, unit).document(data)
    times = list(_times(document))
    common = reduce(gcd, (int(time * 1000) for time in times), 0)  # whole milliseconds
    tick = Fraction(common, 1000) if common else Fraction(UNIT_S[unit])
    found: dict[str, Any] = _in_ticks(document, tick)
    return found | {"time_unit": unit, "tick_s": float(tick)}


def refuse_unknown(data: Mapping[str, Any], words: Collection[str], where: str, path: Path) -> None:
    """ConfigError if something stands under a word that is not in `words`; text is free."""
    for key, value in data.items():
        if key not in words and not isinstance(value, str):
            near = get_close_matches(key, words, 1)
            if key in ORDERS:
                cure = "operations are done in the order in which they stand; sort them instead"
                raise ConfigError(f"{path}: {where}{key}: this word is unknown; {cure}")
            cure = f"did you mean {near[0]!r}?" if near else "drop it; only text may stand under a word of your own"
            raise ConfigError(f"{path}: {where}{key}: this word is unknown; {cure}")


class _Reader:
    """One file. Times are kept as `Fraction` seconds until all are known, since the tick divides them all."""

    def __init__(self, path: Path, unit: str) -> None:
        self.path, self.unit = path, unit

    def document(self, data: Mapping[str, Any]) -> dict[str, Any]:
        u = self.unit
        per_job = ("job_ids", f"release_{u}", f"due_{u}", "orders", "families", "sizes")
        kept = ("kgce_per_kwh", "crews", "capture_kg", "export_kg_per_kwh")
        words = {*per_job, *kept, *CURVES, "transport", f"horizon_{u}", "limits", "stages", "time_unit"}
        refuse_unknown(data, words | {"name", "initial_state", f"signals_from_{u}"}, "", self.path)
        machines: list[dict[str, Any]] = []
        stages: list[tuple[Mapping[str, Any], dict[str, list[Fraction]], str]] = []
        for s, stage in enumerate(self._list(data, "stages", "stages")):
            where = f"stages[{s}]"
            stage_words = ("name", "machines", "carrier", "crew", f"wait_min_{u}", f"wait_max_{u}")
            self._object(stage, where, stage_words)
            rows = {}
            for m, machine in enumerate(self._list(stage, "machines", f"{where}.machines")):
                read, times = self._machine(machine, f"{where}.machines[{m}]", data, stage)
                machines.append(read)
                rows[read["id"]] = times
            if not rows:
                raise ConfigError(f"{self.path}: {where}.machines: a stage needs a machine; add one or drop it")
            stages.append((stage, rows, where))
        sizes = {name: len(times) for _, rows, _ in stages for name, times in rows.items()}
        counts = set(sizes.values())
        if len(counts) > 1:
            usual = max(counts, key=lambda count: (list(sizes.values()).count(count), count))
            odd = next(name for name, count in sizes.items() if count != usual)
            raise ConfigError(
                f"{self.path}: time_{u} of machine {odd!r}: {sizes[odd]} entries, elsewhere there are {usual}; "
                "give one time per job everywhere"
            )
        found: dict[str, Any] = {key: data[key] for key in kept if key in data}
        found |= {"name": str(data.get("name", self.path.stem)), "machines": machines}
        found["jobs"] = self._jobs(data, stages, counts.pop() if counts else 0)
        found |= {
            kind: self._curves(data[kind], kind, data.get(f"signals_from_{u}", 0)) for kind in CURVES if kind in data
        }
        if "transport" in data:
            found["transport"] = self._transport(data["transport"], stages)
        if f"horizon_{u}" in data:
            found["horizon"] = self._time(data[f"horizon_{u}"], f"horizon_{u}")
        if "limits" in data:
            limits = self._object(data["limits"], "limits", None)
            found["limits"] = {
                name: self._time(value, f"limits.{name}") if name in TIMES else value for name, value in limits.items()
            }
        return found

    def _machine(
        self, machine: Any, where: str, data: Mapping[str, Any], stage: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Fraction]]:
        if not isinstance(machine, dict) or not isinstance(machine.get("id"), str):
            raise ConfigError(f'{self.path}: {where}: a machine is an object with a text "id"')
        u = self.unit
        kept = ("family", "batch", "on_breakdown")
        words = (f"time_{u}", f"preheat_{u}", f"unavailable_{u}", f"setup_{u}", "id", "carrier", "initial_state")
        self._object(machine, where, (*words, *kept, *(f"{state}_kw" for state in STATES)))
        key = f"time_{u}"
        times = [
            self._time(value, f"{where}.{key}[{j}]")
            for j, value in enumerate(self._list(machine, key, f"{where}.{key}"))
        ]
        initial = machine.get("initial_state") or data.get("initial_state", "off")
        if initial not in ("off", "idle"):
            raise ConfigError(f'{self.path}: {where}: initial_state {initial!r} is unknown; use "off" or "idle"')
        read = {
            "id": machine["id"],
            "carrier": machine.get("carrier", stage.get("carrier", "electricity")),
            "power_kw": {state: machine.get(f"{state}_kw", 0.0) for state in STATES},
            "preheat": self._time(machine.get(f"preheat_{u}", 0), f"{where}.preheat_{u}"),
            **({"warm_from": 0} if initial == "idle" else {}),
            **{key: machine[key] for key in kept if key in machine},
        }
        if f"unavailable_{u}" in machine:
            key = f"unavailable_{u}"
            windows = self._list(machine, key, f"{where}.{key}")
            read["unavailable"] = [self._window(one, f"{where}.{key}[{k}]") for k, one in enumerate(windows)]
        if f"setup_{u}" in machine:
            read["setup"] = self._table(machine[f"setup_{u}"], f"{where}.setup_{u}")
        return read, times

    def _window(self, window: Any, where: str) -> dict[str, Any]:
        if not isinstance(window, list) or len(window) not in (2, 3):
            raise ConfigError(f'{self.path}: {where}: write [start, end] or [start, end, "breakdown"]')
        start, end = (self._time(time, where) for time in window[:2])
        if end <= start:
            raise ConfigError(f"{self.path}: {where}: {window[:2]} is empty; let it end after its start")
        if len(window) == 3 and window[2] not in ("closed", "breakdown"):
            raise ConfigError(f'{self.path}: {where}: the reason {window[2]!r} is unknown; use "closed" or "breakdown"')
        return {"start": start, "end": end, "reason": window[2] if len(window) == 3 else "closed"}

    def _jobs(
        self,
        data: Mapping[str, Any],
        stages: Sequence[tuple[Mapping[str, Any], dict[str, list[Fraction]], str]],
        n: int,
    ) -> list[dict[str, Any]]:
        u = self.unit
        ids = self._per_job(data, "job_ids", n) or [str(j + 1) for j in range(n)]
        orders, families, sizes = (self._per_job(data, key, n) for key in ("orders", "families", "sizes"))
        releases, dues = (self._per_job(data, f"{what}_{u}", n) for what in ("release", "due"))
        steps: list[dict[str, Any]] = []
        for s, (stage, _, where) in enumerate(stages):
            step: dict[str, Any] = {"op": s, "name": str(stage.get("name", s))}
            step |= {"crew": stage["crew"]} if "crew" in stage else {}
            for wait in ("wait_min", "wait_max"):
                if stage.get(f"{wait}_{u}") is not None:
                    step[wait] = self._time(stage[f"{wait}_{u}"], f"{where}.{wait}_{u}")
            if "wait_max" in step and step["wait_max"] < step.get("wait_min", 0):
                least = stage[f"wait_min_{u}"]
                raise ConfigError(
                    f"{self.path}: {where}.wait_max_{u}: {stage[f'wait_max_{u}']} is less than wait_min_{u}, {least}; "
                    "correct one"
                )
            steps.append(step)
        jobs = []
        for j in range(n):
            own = {"family": families[j]} if families else {}
            own |= {"size": sizes[j]} if sizes else {}
            job: dict[str, Any] = {"id": str(ids[j]), "part_of": str(orders[j] or "") if orders else ""}
            if releases and releases[j] is not None:
                job["release"] = self._time(releases[j], f"release_{u}[{j}]")
            if dues and dues[j] is not None:
                job["due"] = self._time(dues[j], f"due_{u}[{j}]")
            job["operations"] = [
                step | own | {"alternatives": {machine: times[j] for machine, times in rows.items()}}
                for step, (_, rows, _) in zip(steps, stages, strict=True)
            ]
            jobs.append(job)
        return jobs

    def _per_job(self, data: Mapping[str, Any], key: str, n: int) -> list[Any]:
        """One entry for each job; empty if the file says nothing."""
        if key not in data:
            return []
        values = self._list(data, key, key)
        if len(values) != n:
            raise ConfigError(f"{self.path}: {key}: {len(values)} entries for {n} jobs; give one each")
        return values

    def _curves(self, curves: Any, kind: str, begin: Any) -> dict[str, Any]:
        u, found = self.unit, {}
        for carrier, curve in self._object(curves, kind, None).items():
            where = f"{kind}.{carrier}"
            self._object(curve, where, (f"start_{u}", f"step_{u}", "values", "periodic"))
            if f"step_{u}" not in curve:
                raise ConfigError(f"{self.path}: {where}: step_{u} is missing; say how long each value holds")
            step = self._time(curve[f"step_{u}"], f"{where}.step_{u}")
            if not step:
                raise ConfigError(f"{self.path}: {where}.step_{u}: each value holds for no time; give more than 0")
            found[carrier] = {
                "start": self._time(curve.get(f"start_{u}", begin), f"{where}.start_{u}", negative=True),
                "step": step,
                "values": curve.get("values"),
                "periodic": curve.get("periodic", False),
            }
        return found

    def _transport(
        self, transport: Any, stages: Sequence[tuple[Mapping[str, Any], dict[str, list[Fraction]], str]]
    ) -> dict[str, Any]:
        """Between machines, or between stages: then between all their machines."""
        key = f"time_{self.unit}"
        self._object(transport, "transport", (key, "power_kw", "carrier"))
        within = {str(stage.get("name", s)): list(rows) for s, (stage, rows, _) in enumerate(stages)}
        ticks: dict[str, dict[str, Fraction]] = {}
        for before, row in self._table(transport.get(key, {}), f"transport.{key}").items():
            for after, time in row.items():
                for a in within.get(before, [before]):
                    ticks.setdefault(a, {}).update(dict.fromkeys(within.get(after, [after]), time))
        return {"ticks": ticks, **{word: transport[word] for word in ("power_kw", "carrier") if word in transport}}

    def _table(self, table: Any, where: str) -> dict[str, dict[str, Fraction]]:
        return {
            before: {
                after: self._time(time, f"{where}.{before}.{after}")
                for after, time in self._object(row, f"{where}.{before}", None).items()
            }
            for before, row in self._object(table, where, None).items()
        }

    def _object(self, data: Any, where: str, words: Collection[str] | None) -> dict[str, Any]:
        """`data`, if it is an object with no other than these words; None: any."""
        if not isinstance(data, dict):
            raise ConfigError(f"{self.path}: {where}: an object is missing here; write {{…}}")
        if words is not None:
            refuse_unknown(data, words, f"{where}.", self.path)
        return data

    def _list(self, data: Any, key: str, where: str) -> list[Any]:
        found = data.get(key) if isinstance(data, dict) else None
        if not isinstance(found, list):
            raise ConfigError(f"{self.path}: {where}: a list is missing here; add it")
        return found

    def _time(self, value: Any, where: str, *, negative: bool = False) -> Fraction:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise ConfigError(f"{self.path}: {where}: {value!r} is not a time; write a number of {self.unit}")
        if value < 0 and not negative:
            raise ConfigError(f"{self.path}: {where}: {value} is negative; times start at 0")
        seconds = Fraction(str(value)) * UNIT_S[self.unit]
        if seconds.denominator > 1000:
            raise ConfigError(
                f"{self.path}: {where}: {value} {self.unit} is off the grid of 1 ms; round it to whole milliseconds"
            )
        return seconds


def _times(document: Any) -> Iterator[Fraction]:
    if isinstance(document, Fraction):
        yield document
    elif isinstance(document, (dict, list)):
        for one in document.values() if isinstance(document, dict) else document:
            yield from _times(one)


def _in_ticks(document: Any, tick: Fraction) -> Any:
    if isinstance(document, Fraction):
        return int(document / tick)
    if isinstance(document, dict):
        return {key: _in_ticks(one, tick) for key, one in document.items()}
    return [_in_ticks(one, tick) for one in document] if isinstance(document, list) else document
