"""Raw bursts become rows that can be trusted, or are counted with the reason why not.

    cleaner = Cleaner(plant.devices("firing"), state)            # state: an earlier snapshot, or None
    cleaned = cleaner.clean([("kiln-1", burst), …], now)         # now: arrival, µs
    cleaned.series, cleaned.rejected, cleaner.snapshot()

Promise: every reading (cell) comes out exactly once, as a row or counted in a Rejected. Values are finite; the times of
a series ascend and are unique, also against everything written before. Nothing is held back: a call judges with what
it has and with what it remembers. After `restore`, the same bursts give the same rows. The rules are in the guide
`docs/guides/cleaning.md`; each stage has its file (units, ordering, hampel, rules, consistency).

All series of a call are worked on at once, one behind the other in flat arrays of N cells (*ragged*): a block of about
`BLOCK` cells, which stays in the cache, costs some 200 numpy calls however many series are in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge.consistency import Rows, balances, flag_imbalance
from edge.hampel import WINDOW, lone_outliers
from edge.memory import NEVER, REMEMBERED, Memory
from edge.ordering import AHEAD_US, ALIVE, LAST_TIME, REFUSALS, settle
from edge.rules import decreases, estimates, too_fast, unmoved
from edge.units import conversion
from messages.contracts import MAX_SAMPLES, Burst, Rejected, Series
from messages.plant import Device, MetricSpec
from messages.quality import BAD, GOOD, GRADE_MASK, UNCERTAIN, Why

BLOCK = 16_384
"""Cells worked on at once; one larger burst is a block of its own."""
K = 4.0
"""Robust standard deviations from the median at which a lone value is a spike."""
FLOOR_SHARE = 1e-3
"""Assumed noise, as a share of [low, high], of a metric whose noise is not stated."""
BEHIND_US, BEHIND_SPREAD_US, BEHIND_SEEN = 300_000_000, 60_000_000, 8
"""A clock is behind when its newest sample is older than this, by the same amount, so many bursts in a row."""
MAX_LAYOUTS = 4_096

# Plain integers: arithmetic with IntFlag members costs a microsecond each.
_MISSING, _RANGE, _SPIKE, _RATE = int(Why.MISSING), int(Why.RANGE), int(Why.SPIKE), int(Why.RATE)
_STUCK, _INCONSISTENT, _UNIT, _TIME = int(Why.STUCK), int(Why.INCONSISTENT), int(Why.UNIT), int(Why.TIME)
_DOUBT = _MISSING | _SPIKE | _RATE | _STUCK | _INCONSISTENT | _TIME
_HUGE = float(np.finfo(np.float64).max)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cleaned:
    """What became of a call's readings."""

    series: list[Series]
    rejected: list[Rejected]

    @property
    def rows(self) -> int:
        """Readings that became rows."""
        return sum(len(series.at) for series in self.series)


class Cleaner:
    """Cleans the bursts of one node's devices; `state` is an earlier `snapshot`, of this or of another plant file."""

    def __init__(self, devices: Sequence[Device], state: bytes | None = None) -> None:
        devices = tuple(devices)
        self._memory = Memory(devices)
        self._limits = _Limits([spec for device in devices for spec in device.metrics.values()])
        self._names = [(device.device, metric) for device in devices for metric in device.metrics]
        self._device = {device.device: i for i, device in enumerate(devices)}
        number = {name: i for i, name in enumerate(self._names)}
        self._series_of = [{m: number[device.device, m] for m in device.metrics} for device in devices]
        self._balances = balances(devices, lambda device, metric: number.get((device, metric)))
        self._balanced = {series for one in self._balances for series in (one.main, *one.parts)}
        self._layouts: dict[tuple[object, ...], _Layout] = {}
        if state is not None:
            self._memory.restore(state)

    def clean(self, bursts: Sequence[tuple[str, Burst]], now: int) -> Cleaned:
        """Rows and refusals of `bursts`, in their order of arrival; `now` is when they arrived, µs."""
        refused = _Refused()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            blocks = [self._clean_block(groups, now, refused) for groups in self._blocks(bursts, refused)]
            self._balance(blocks)
        series = [one for block in blocks for one in self._series(block)]
        return Cleaned(series, refused.records(now))

    def snapshot(self) -> bytes:
        """All that is remembered: 296 bytes per series, about 60 per device, and their names."""
        return self._memory.snapshot()

    # --- gathering ------------------------------------------------------------------------------

    def _blocks(self, bursts: Sequence[tuple[str, Burst]], refused: _Refused) -> Iterator[list[_Group]]:
        """Bursts as groups (one device, alike bursts in a row), in blocks with each device at most once."""
        block: dict[int, _Group] = {}
        cells = 0
        for name, burst in bursts:
            device = self._device.get(name)
            if device is None:
                refused.add(name, None, "unknown_device", burst.readings, None)
                continue
            count = len(burst.at)
            layout = self._layout(device, burst)
            for metric, reason, sample in layout.refused:
                refused.add(name, metric, reason, count, sample)
            if not count or not layout.series:
                continue
            group = block.get(device)
            alike = group is not None and group.layout is layout and group.boot == burst.boot
            if group is not None and alike and cells < BLOCK and group.count + count <= MAX_SAMPLES:
                group.bursts.append(burst)
                group.count += count
            else:
                if block and (group is not None or cells >= BLOCK):
                    yield list(block.values())
                    block, cells = {}, 0
                block[device] = _Group(device, burst.boot, layout, [burst], count)
            cells += count * len(layout.series)
        if block:
            yield list(block.values())

    def _layout(self, device: int, burst: Burst) -> _Layout:
        key = (device, *burst.columns, *burst.units.items())
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[key] = self._make_layout(device, burst)
        return layout

    def _make_layout(self, device: int, burst: Burst) -> _Layout:
        layout = _Layout()
        for metric in burst.columns:
            series, unit = self._series_of[device].get(metric), burst.units[metric]
            if series is None:
                layout.refused.append((metric, "unknown_metric", None))
                continue
            wanted = self._limits.unit[series]
            change = conversion(unit, wanted)
            if change is None:
                layout.refused.append((metric, "unit", f"{unit} instead of {wanted}"))
                continue
            if unit != wanted:
                layout.converted.append((len(layout.series), *change))
            layout.series.append(series)
            layout.metrics.append(metric)
        return layout

    # --- one block ------------------------------------------------------------------------------

    def _clean_block(self, groups: list[_Group], now: int, refused: _Refused) -> _Block:
        memory, limits = self._memory, self._limits
        block = _gather(groups)
        series = block.series
        self._follow(groups)
        self._clocks(block, now)
        self._settle(block, now, refused)
        value, time, quality, segment = block.value, block.time, block.quality, block.segment

        bounds = block.bounds
        lengths = bounds[1:] - bounds[:-1]
        valid = (value >= limits.low[series].repeat(lengths)) & (value <= limits.high[series].repeat(lengths))
        if limits.code[series].any():
            codes = limits.code[series][segment].nonzero()[0]
            valid[codes] &= value[codes] == np.rint(value[codes])
        source = valid.copy()
        all_valid = bool(valid.all())

        outliers, suspects = self._outliers(block, valid)
        quality[outliers] |= _SPIKE
        source[outliers] = False
        quality[suspects] |= _SPIKE
        source[suspects] = False

        prior, prior_at = memory.good[series], memory.good_at[series]
        if limits.counter[series].any():
            where = (source & limits.counter[series][segment]).nonzero()[0]
            glitches, drops = decreases(where, segment, value, time, prior, prior_at)
            quality[glitches] |= _SPIKE
            source[glitches] = False
            quality[drops] |= _INCONSISTENT
        # A stuck value stays in its row, but the value it comes back to is not measured against it.
        trusted = source.copy()
        if (limits.stuck_us[series] > 0).any():
            where = (source & (limits.stuck_us[series] > 0)[segment]).nonzero()[0]
            run, run_at = memory.run[series], memory.run_at[series]
            stuck = unmoved(where, segment, value, time, limits.stuck_us[series], run, run_at)
            quality[stuck] |= _STUCK
            trusted[stuck] = False
            memory.run[series], memory.run_at[series] = run, run_at
        if np.isfinite(limits.rate[series]).any():
            where = (trusted & np.isfinite(limits.rate[series])[segment]).nonzero()[0]
            fast = too_fast(
                where, segment, value, time, limits.rate[series], limits.stated_noise[series], prior, prior_at
            )
            quality[fast] |= _RATE
            source[fast] = trusted[fast] = False

        self._remember_rows(block)
        sources = source.nonzero()[0]
        if not all_valid or len(sources) < len(value):
            holes = ~source
            holes[suspects] = False
            self._fill(block, holes.nonzero()[0], sources, refused)
        self._remember_good(series, bounds, time, value, trusted.nonzero()[0])
        flagged = (block.quality != GOOD).nonzero()[0]
        why = block.quality[flagged] & ~GRADE_MASK
        graded = np.where(why & _RANGE, BAD, np.where(why & _DOUBT, UNCERTAIN, GOOD))
        block.quality[flagged] = why | graded
        return block

    def _follow(self, groups: list[_Group]) -> None:
        """Boots and bursts in their sequence: counters may start again with a boot, a missing burst leaves a gap."""
        memory = self._memory
        for group in groups:
            device = group.device
            if memory.boot[device] != group.boot:
                memory.boot[device], memory.seq[device] = group.boot, -1
                counters = [s for s in self._series_of[device].values() if self._limits.counter[s]]
                memory.good_at[counters] = NEVER
            last = int(memory.seq[device])
            for i, burst in enumerate(group.bursts):
                if burst.seq > last + 1:
                    mine = list(self._series_of[device].values())
                    newest = max(int(memory.time[mine, -1].max()), int(memory.floor[mine].max()), -1)
                    newest = max([newest, *(max(one.at) + one.t0 for one in group.bursts[:i])])
                    memory.add_gap(device, newest, min(burst.at) + burst.t0)
                last = max(last, burst.seq)
            memory.seq[device] = last

    def _clocks(self, block: _Block, now: int) -> None:
        """Flag devices whose clock is behind; those ahead are seen row by row."""
        memory = self._memory
        devices = np.array([group.device for group in block.groups])
        lag = now - np.maximum.reduceat(block.sampled, block.group_bounds[:-1])
        same = (lag > BEHIND_US) & (np.abs(lag - memory.lag[devices]) <= BEHIND_SPREAD_US)
        memory.lag_seen[devices] = np.where(same, memory.lag_seen[devices] + 1, lag > BEHIND_US)
        memory.lag[devices] = np.where(same, memory.lag[devices], lag)
        behind = memory.lag_seen[devices] >= BEHIND_SEEN
        if behind.any():
            block.quality[behind[block.group][block.segment]] |= _TIME

    def _settle(self, block: _Block, now: int, refused: _Refused) -> None:
        """Order and uniqueness; only devices with anything unusual in their times are looked at closely."""
        memory, sampled, first = self._memory, block.sampled, block.group_bounds[:-1]
        rough = np.zeros(len(block.groups), np.bool_)
        back = (sampled[1:] <= sampled[:-1]).nonzero()[0] + 1
        at = first.searchsorted(back, "right") - 1
        rough[at[back != first[at]]] = True
        newest = np.maximum.reduceat(memory.time[block.series, -1], block.group_first)
        final = sampled[block.group_bounds[1:] - 1]
        rough |= (sampled[first] <= newest) | (sampled[first] < 0) | (final > min(now + AHEAD_US, LAST_TIME))
        if memory.ahead:
            touched = np.array([series in memory.ahead for series in block.series.tolist()])
            rough |= np.logical_or.reduceat(touched, block.group_first)
        for g, group in enumerate(block.groups) if memory.gaps else ():
            gaps = memory.gaps.get(group.device)
            rough[g] |= gaps is not None and bool(sampled[first[g]] < gaps[-1][1])
        block.rough = rough
        if not rough.any():
            return
        fates = np.zeros(len(block.value), np.int8)
        for g in rough.nonzero()[0].tolist():
            group = block.groups[g]
            one, m = int(block.group_first[g]), len(group.layout.series)
            cells = slice(int(block.bounds[one]), int(block.bounds[one + m]))
            times = sampled[int(first[g]) : int(first[g]) + group.count]
            table = block.value[cells].reshape(m, group.count)
            settled, flags, fate = settle(memory, group.device, group.layout.series, times, table, now)
            block.time[cells] = settled.ravel()
            block.quality[cells] |= flags.ravel()
            fates[cells] = fate.ravel()
            if group.device in memory.gaps:
                memory.fill_gaps(group.device, np.sort(settled[fate == ALIVE]))
        if not fates.any():
            return
        for fate_code, reason in REFUSALS.items():
            dead = (fates == fate_code).nonzero()[0]
            self._refuse(block, dead, reason, refused, [str(t) for t in block.time[dead].tolist()])
        block.keep(fates == ALIVE)

    def _refuse(self, block: _Block, dead: Ints, reason: str, refused: _Refused, samples: list[str] | None) -> None:
        for i, segment in enumerate(block.segment[dead].tolist()):
            device, metric = self._names[int(block.series[segment])]
            refused.add(device, metric, reason, 1, samples[i] if samples else None)

    def _outliers(self, block: _Block, valid: Bools) -> tuple[Ints, Ints]:
        """Cells of lone outliers to be replaced, and of last values that only may be one."""
        memory, limits, segment = self._memory, self._limits, block.segment
        analog = ~(limits.counter | limits.code)[block.series]
        cells = (valid & analog[segment]).nonzero()[0]
        if not len(cells):
            return cells, cells
        tail = memory.value[block.series, 1 - WINDOW :]
        low, high = limits.low[block.series][:, None], limits.high[block.series][:, None]
        first = block.time[np.minimum(block.bounds[:-1], len(block.time) - 1)]
        # Rows that came late are judged by their own kind: what is remembered is not what was before them.
        earlier = memory.time[block.series, 1 - WINDOW :] < first[:, None]
        usable = (tail >= low) & (tail <= high) & analog[:, None] & earlier
        before = usable.sum(axis=1)
        of = segment[cells]
        start = _bounds(before + np.bincount(of, minlength=len(before)))
        place = np.arange(len(cells)) + before.cumsum()[of]
        values = np.empty(int(start[-1]))
        remembered = np.ones(len(values), np.bool_)
        remembered[place] = False
        values[place] = block.value[cells]
        values[remembered] = tail[usable]
        lengths = start[1:] - start[:-1]
        at, last = lone_outliers(
            values,
            start[:-1].repeat(lengths),
            start[1:].repeat(lengths),
            limits.noise[block.series].repeat(lengths),
            k=K,
        )
        mine = ~remembered[at]
        at, last = at[mine], last[mine]
        found = cells[place.searchsorted(at)]
        suspects = [cell for cell in found[last].tolist() if not self._stirred(block, int(segment[cell]))]
        return found[~last], np.array(suspects, np.int64)

    def _stirred(self, block: _Block, segment: int) -> bool:
        """Whether the machine itself says that something happened: an event, or another code (state)."""
        group = block.groups[int(block.group[segment])]
        if any(burst.events for burst in group.bursts):
            return True
        for other, series in enumerate(group.layout.series, int(block.group_first[block.group[segment]])):
            if self._limits.code[series]:
                values = block.value[block.bounds[other] : block.bounds[other + 1]]
                values = values[~np.isnan(values)]
                known = self._memory.good_at[series] > NEVER
                if len(values) and (values.min() != values.max() or (known and values[0] != self._memory.good[series])):
                    return True
        return False

    def _fill(self, block: _Block, holes: Ints, sources: Ints, refused: _Refused) -> None:
        """Estimates for what is missing or wrong; what cannot be estimated is refused, or kept when it may be right."""
        memory, limits, series = self._memory, self._limits, block.series
        raw = block.value[holes]
        missing = np.isnan(raw)
        impossible = ~missing & (block.quality[holes] & (_SPIKE | _RATE) == 0)
        block.quality[holes] |= np.where(missing, _MISSING, np.where(impossible, _RANGE, 0)).astype(np.int32)
        filled = estimates(
            holes,
            sources,
            block.segment,
            block.value,
            block.time,
            limits.code[series],
            memory.good[series],
            memory.good_at[series],
        )
        unknown = ~np.isfinite(filled)
        gone = unknown & (missing | impossible)
        if gone.any():
            self._refuse(block, holes[gone & missing], "no_value", refused, None)
            shown = [repr(v) for v in raw[gone & impossible].tolist()]
            self._refuse(block, holes[gone & impossible], "out_of_range", refused, shown)
        done = ~unknown
        value = block.value.copy()
        value[holes[done]] = filled[done]
        replaced = np.where(missing, np.nan, np.minimum(np.maximum(raw, -_HUGE), _HUGE))[done]
        block.value, block.replaced, block.raw = value, holes[done], replaced
        if gone.any():
            keep = np.ones(len(value), np.bool_)
            keep[holes[gone]] = False
            block.keep(keep)

    # --- remembering ----------------------------------------------------------------------------

    def _remember_rows(self, block: _Block) -> None:
        """The last rows of each series by time, and how far back everything is forgotten."""
        memory, series, bounds = self._memory, block.series, block.bounds
        lengths = bounds[1:] - bounds[:-1]
        old_time, old_value = memory.time[series], memory.value[series]
        # In (remembered, new) of one series, the last REMEMBERED places stay and the one before them is the floor.
        place = np.arange(-1, REMEMBERED) + lengths[:, None]
        new = place >= REMEMBERED
        old = np.minimum(np.maximum(place, 0), REMEMBERED - 1)
        cell = np.maximum(np.minimum(bounds[:-1, None] + place - REMEMBERED, len(block.time) - 1), 0)
        rows = np.arange(len(series))[:, None]
        if not len(block.time):
            return
        time = np.where(new, block.time[cell], old_time[rows, old])
        value = np.where(new, block.value[cell], old_value[rows, old])
        forgot = lengths > 0
        floor = np.where(forgot, np.maximum(memory.floor[series], time[:, 0]), memory.floor[series])
        first = block.time[np.minimum(bounds[:-1], len(block.time) - 1)]
        for i in (forgot & (first <= old_time[:, -1])).nonzero()[0].tolist():
            mine = slice(int(bounds[i]), int(bounds[i + 1]))
            times = np.concatenate((old_time[i], block.time[mine]))
            order = np.argsort(times, kind="stable")
            time[i, 1:] = times[order][-REMEMBERED:]
            value[i, 1:] = np.concatenate((old_value[i], block.value[mine]))[order][-REMEMBERED:]
            floor[i] = max(int(memory.floor[series[i]]), int(times[order][-REMEMBERED - 1]))
        memory.time[series], memory.value[series], memory.floor[series] = time[:, 1:], value[:, 1:], floor

    def _remember_good(self, series: Ints, bounds: Ints, time: Ints, value: Floats, sources: Ints) -> None:
        if not len(sources):
            return
        memory = self._memory
        last = sources.searchsorted(bounds[1:]) - 1
        cell = sources[np.maximum(last, 0)]
        newer = (last >= 0) & (cell >= bounds[:-1]) & (time[cell] >= memory.good_at[series])
        memory.good[series[newer]], memory.good_at[series[newer]] = value[cell[newer]], time[cell[newer]]

    # --- the whole call -------------------------------------------------------------------------

    def _balance(self, blocks: list[_Block]) -> None:
        if not self._balances:
            return
        found: dict[int, list[Rows]] = {}
        for block in blocks:
            for i, series in enumerate(block.series.tolist()):
                low, high = int(block.bounds[i]), int(block.bounds[i + 1])
                if series in self._balanced and high > low:
                    rows = Rows(block.time[low:high], block.value[low:high], block.quality[low:high])
                    found.setdefault(series, []).append(rows)
        whole = {series: rows[0] if len(rows) == 1 else _joined(rows) for series, rows in found.items()}
        for balance in self._balances:
            for rows in found.get(balance.main, ()):
                flag_imbalance(balance, {**whole, balance.main: rows} if len(found[balance.main]) > 1 else whole)

    def _series(self, block: _Block) -> Iterator[Series]:
        """The rows as messages; they hold by construction, so they are not validated again."""
        lengths = block.bounds[1:] - block.bounds[:-1]
        full = lengths.nonzero()[0]
        if not len(full):
            return
        starts = block.bounds[full]
        least, most = np.minimum.reduceat(block.quality, starts), np.maximum.reduceat(block.quality, starts)
        values = block.value.tolist()
        raws: dict[int, dict[int, float | None]] = {}
        places = block.replaced.tolist()
        for segment, place, raw in zip(block.segment[block.replaced].tolist(), places, block.raw.tolist(), strict=True):
            raws.setdefault(segment, {})[place - int(block.bounds[segment])] = None if raw != raw else raw
        alike, same = (least == most).tolist(), least.tolist()
        ends = (starts + lengths[full]).tolist()
        series, group_of, rough = block.series[full].tolist(), block.group[full].tolist(), block.rough.tolist()
        names, units = self._names, self._limits.unit
        for i, (segment, low, high) in enumerate(zip(full.tolist(), starts.tolist(), ends, strict=True)):
            group = block.groups[group_of[i]]
            burst = group.bursts[0]
            if len(group.bursts) == 1 and high - low == group.count and not rough[group_of[i]]:
                t0, at = burst.t0, burst.at
            else:
                t0 = int(block.time[low])
                at = (block.time[low:high] - t0).tolist()
            device, metric = names[series[i]]
            yield _series_of(
                {
                    "device": device,
                    "metric": metric,
                    "unit": units[series[i]],
                    "t0": t0,
                    "at": at,
                    "value": values[low:high],
                    "quality": same[i] if alike[i] else block.quality[low:high].tolist(),
                    "raw": raws.get(segment, {}),
                }
            )


class _Limits:
    """The plant file's limits of all series, as arrays."""

    def __init__(self, specs: list[MetricSpec]) -> None:
        self.unit = [spec.unit for spec in specs]
        self.low: Floats = np.array([spec.low for spec in specs], np.float64)
        self.high: Floats = np.array([spec.high for spec in specs], np.float64)
        self.stated_noise: Floats = np.array([spec.noise for spec in specs], np.float64)
        assumed = FLOOR_SHARE * (self.high / 2 - self.low / 2) * 2
        self.noise: Floats = np.where(self.stated_noise > 0, self.stated_noise, assumed)
        self.rate: Floats = np.array([spec.max_rate_per_s or np.inf for spec in specs], np.float64)
        self.stuck_us: Ints = np.array([round((spec.stuck_after_s or 0) * 1e6) for spec in specs], np.int64)
        self.counter: Bools = np.array([spec.counter for spec in specs], np.bool_)
        self.code: Bools = np.array([spec.code for spec in specs], np.bool_)
        self.rate[self.code] = np.inf
        self.stuck_us[self.code] = 0


@dataclass
class _Layout:
    """What a device's columns mean."""

    series: list[int] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    converted: list[tuple[int, float, float]] = field(default_factory=list)
    refused: list[tuple[str, str, str | None]] = field(default_factory=list)


@dataclass
class _Group:
    """Bursts in a row of one device and boot, with the same columns and units."""

    device: int
    boot: str
    layout: _Layout
    bursts: list[Burst]
    count: int


@dataclass
class _Block:
    """Cells of many series, one series (*segment*) behind the other; `bounds` (S + 1,) parts them."""

    groups: list[_Group]
    group: Ints  # (S,) the group of a segment
    group_first: Ints  # (G,) its first segment
    sampled: Ints  # samples of all groups, µs
    group_bounds: Ints  # (G + 1,) in `sampled`
    series: Ints  # (S,) row in the memory
    bounds: Ints
    segment: Ints  # (N,)
    value: Floats
    time: Ints
    quality: npt.NDArray[np.int32]
    rough: Bools  # (G,) times had to be looked at
    replaced: Ints  # cells whose value is an estimate
    raw: Floats  # what the sensor said there, NaN: nothing

    def keep(self, alive: Bools) -> None:
        """Drop all other cells."""
        number = alive.cumsum() - 1
        self.replaced = number[self.replaced]
        self.value, self.time = self.value[alive], self.time[alive]
        self.quality, self.segment = self.quality[alive], self.segment[alive]
        self.bounds = _bounds(np.bincount(self.segment, minlength=len(self.series)))


class _Refused:
    """Counts of refused readings by device, metric and reason, with the first as a sample."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str | None, str], int] = {}
        self._samples: dict[tuple[str, str | None, str], str | None] = {}

    def add(self, device: str, metric: str | None, reason: str, readings: int, sample: str | None) -> None:
        key = (device, metric, reason)
        self._counts[key] = self._counts.get(key, 0) + readings
        self._samples.setdefault(key, sample)

    def records(self, now: int) -> list[Rejected]:
        return [
            Rejected(at=now, device=device, metric=metric, reason=reason, readings=count, sample=self._samples[key])
            for key, count in self._counts.items()
            if count
            for device, metric, reason in (key,)
        ]


def _series_of(fields: dict[str, object]) -> Series:
    """What `Series.model_construct(**fields)` gives, at a fifth of its time: one dict, known to be complete."""
    series = _new(Series)
    _set(series, "__dict__", fields)
    _set(series, "__pydantic_fields_set__", _SERIES_FIELDS)
    _set(series, "__pydantic_extra__", None)
    _set(series, "__pydantic_private__", None)
    return series


_new, _set = object.__new__, object.__setattr__
_SERIES_FIELDS = set(Series.model_fields)


def _bounds(lengths: Ints) -> Ints:
    """Where ragged parts of these lengths begin and end: (S + 1,)."""
    bounds = np.zeros(len(lengths) + 1, np.int64)
    lengths.cumsum(out=bounds[1:])
    return bounds


def _gather(groups: list[_Group]) -> _Block:
    offsets, values, series = list[int](), list[float | None](), list[int]()
    for group in groups:
        layout = group.layout
        series.extend(layout.series)
        for burst in group.bursts:
            offsets.extend(burst.at)
        for metric in layout.metrics:
            for burst in group.bursts:
                values.extend(burst.columns[metric])
    bursts = [burst for group in groups for burst in group.bursts]
    t0 = np.array([b.t0 for b in bursts], np.int64).repeat([len(b.at) for b in bursts])
    sampled = np.fromiter(offsets, np.int64, len(offsets)) + t0
    value = np.array(values, np.float64)
    counts = np.array([group.count for group in groups], np.int64)
    widths = np.array([len(group.layout.series) for group in groups], np.int64)
    group_bounds = _bounds(counts)
    group_of = np.arange(len(groups)).repeat(widths)
    lengths = counts[group_of]
    bounds = _bounds(lengths)
    segment = np.arange(len(series)).repeat(lengths)
    time = sampled[np.arange(len(value)) + (group_bounds[group_of] - bounds[:-1]).repeat(lengths)]
    quality = np.full(len(value), GOOD, np.int32)
    group_first = _bounds(widths)[:-1]
    for g, group in enumerate(groups):
        for column, factor, offset in group.layout.converted:
            cells = slice(int(bounds[group_first[g] + column]), int(bounds[group_first[g] + column + 1]))
            value[cells] = value[cells] * factor + offset
            quality[cells] |= _UNIT
    return _Block(
        groups,
        group_of,
        group_first,
        sampled,
        group_bounds,
        np.array(series, np.int64),
        bounds,
        segment,
        value,
        time,
        quality,
        np.zeros(len(groups), np.bool_),
        np.empty(0, np.int64),
        np.empty(0),
    )


def _joined(rows: list[Rows]) -> Rows:
    time = np.concatenate([one.time for one in rows])
    order = np.argsort(time, kind="stable")
    value = np.concatenate([one.value for one in rows])[order]
    return Rows(time[order], value, np.concatenate([one.quality for one in rows])[order])
