"""What cleaning remembers of each series between two calls: little, bounded, and restartable to the bit.

Dimensions: S series (device × metric) of the node, D devices, M = `REMEMBERED` rows. Per series: the last M rows by
time (time, value as sent), the time up to which everything older is forgotten (`floor`), the last good value, the
constant run it may be in, the last `TAIL` possible values (`tail`, the newest `tail_known` of them) and its noise as
learned (`spread`). Per device: boot, last burst, lag, and at most `MAX_GAPS` stretches of time that missing bursts left
empty. That is 360 bytes per series and about 60 per device, beside the names.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge.block import Block
from messages.errors import UsageError
from messages.plant import Device

REMEMBERED = 16
"""Rows per series whose times are known; a later row older than all of them is rejected `too_late`."""
TAIL = 6
"""Values per series that new ones are judged against, beside their own neighbours."""
MAX_GAPS = 32
"""Gaps per device; the oldest is given up first."""
NEVER = -(2**62)
"""A time before all times; differences with real times stay within 64 bits."""

_FIELDS_1 = ("time", "value", "floor", "good_at", "good", "run_at", "run")
_SERIES_FIELDS = (*_FIELDS_1, "spread", "tail", "tail_known")
_DEVICE_FIELDS = ("seq", "lag", "lag_seen")
_MAGIC = b"SHC2"
_FORMATS = {b"SHC1": _FIELDS_1, _MAGIC: _SERIES_FIELDS}
"""What the first bytes say is in a snapshot; what an older one lacks is learned again."""


@dataclass
class Ahead:
    """Times written since the device's clock ran ahead, so that they stay unique when it is put right.

    `residues` has a bit per residue (time mod 64) that occurs among them. Once the clock was put back (`shared`), a row
    that falls between `low` and `high` takes a residue which does not occur. `before` is the newest time from before.
    """

    low: int
    high: int
    residues: int
    before: int
    running: bool = True
    shared: bool = False


class LastGood(NamedTuple):
    """The last value of each of some series that may be relied on, and its time (NEVER: there is none)."""

    value: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]


class Memory:
    """Arrays by number of series and of device, both in the order of `devices`."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self.names = [f"{device.device}/{metric}" for device in devices for metric in device.metrics]
        self.device_names = [device.device for device in devices]
        count, rows = len(self.names), len(devices)
        self.time: npt.NDArray[np.int64] = np.full((count, REMEMBERED), NEVER, np.int64)
        self.value: npt.NDArray[np.float64] = np.full((count, REMEMBERED), np.nan)
        self.floor: npt.NDArray[np.int64] = np.full(count, NEVER, np.int64)
        self.good_at: npt.NDArray[np.int64] = np.full(count, NEVER, np.int64)
        self.good: npt.NDArray[np.float64] = np.zeros(count)
        self.run_at: npt.NDArray[np.int64] = np.full(count, NEVER, np.int64)
        self.run: npt.NDArray[np.float64] = np.full(count, np.nan)
        self.tail: npt.NDArray[np.float64] = np.zeros((count, TAIL))
        self.tail_known: npt.NDArray[np.int64] = np.zeros(count, np.int64)
        self.spread: npt.NDArray[np.float64] = np.zeros(count)
        self.lag: npt.NDArray[np.int64] = np.full(rows, NEVER, np.int64)
        self.lag_seen: npt.NDArray[np.int64] = np.zeros(rows, np.int64)
        self.seq: npt.NDArray[np.int64] = np.full(rows, -1, np.int64)
        self.boot: list[str] = [""] * rows
        self.ahead: dict[int, Ahead] = {}
        self.gaps: dict[int, list[tuple[int, int]]] = {}
        """Device → open intervals of time in which it has written nothing, ascending."""
        self._names_json = json.dumps([self.names, self.device_names], separators=(",", ":")).encode()

    def last_good(self, series: npt.NDArray[np.int64]) -> LastGood:
        """What was good last in each of `series`; a copy."""
        return LastGood(self.good[series], self.good_at[series])

    def remember_good(self, block: Block, trusted: npt.NDArray[np.int64]) -> None:
        """The last of the `trusted` (ascending cells) of each series is what its next values are compared with."""
        if not len(trusted):
            return
        last = trusted.searchsorted(block.bounds[1:]) - 1
        cell = trusted[np.maximum(last, 0)]
        at = block.time[cell]
        newer = (last >= 0) & (cell >= block.bounds[:-1]) & (at >= self.good_at[block.series])
        series = block.series[newer]
        self.good[series], self.good_at[series] = block.value[cell[newer]], at[newer]

    def remember_rows(self, block: Block) -> None:
        """The last rows of each series by time, and how far back everything is forgotten."""
        if not len(block.time):
            return
        series, bounds, lengths = block.series, block.bounds, block.lengths
        if lengths.min() > REMEMBERED and bool((block.time[bounds[:-1]] > self.time[series, -1]).all()):
            # Nothing of what was remembered stays.
            cell = bounds[1:, None] - np.arange(REMEMBERED, 0, -1)
            self.floor[series] = np.maximum(self.floor[series], block.time[cell[:, 0] - 1])
            self.time[series], self.value[series] = block.time[cell], block.value[cell]
            return
        old_time, old_value = self.time[series], self.value[series]
        # In (remembered, new) of one series, the last REMEMBERED places stay and the one before them is the floor.
        place = np.arange(-1, REMEMBERED) + lengths[:, None]
        new = place >= REMEMBERED
        old = np.minimum(np.maximum(place, 0), REMEMBERED - 1)
        cell = np.maximum(np.minimum(bounds[:-1, None] + place - REMEMBERED, len(block.time) - 1), 0)
        rows = np.arange(len(series))[:, None]
        time = np.where(new, block.time[cell], old_time[rows, old])
        value = np.where(new, block.value[cell], old_value[rows, old])
        forgot = lengths > 0
        floor = np.where(forgot, np.maximum(self.floor[series], time[:, 0]), self.floor[series])
        first = block.time[np.minimum(bounds[:-1], len(block.time) - 1)]
        # Late rows belong between the remembered ones: merged one series at a time, as they are few.
        for i in (forgot & (first <= old_time[:, -1])).nonzero()[0].tolist():
            mine = slice(int(bounds[i]), int(bounds[i + 1]))
            times = np.concatenate((old_time[i], block.time[mine]))
            order = np.argsort(times, kind="stable")
            time[i, 1:] = times[order][-REMEMBERED:]
            value[i, 1:] = np.concatenate((old_value[i], block.value[mine]))[order][-REMEMBERED:]
            floor[i] = max(int(self.floor[series[i]]), int(times[order][-REMEMBERED - 1]))
        self.time[series], self.value[series], self.floor[series] = time[:, 1:], value[:, 1:], floor

    def forget_times(self, series: int, before: int) -> None:
        """The clock was put back: what is remembered lies in a future that will come again."""
        self.time[series], self.value[series] = NEVER, np.nan
        self.floor[series] = before
        self.good_at[series] = self.run_at[series] = NEVER
        self.run[series] = np.nan
        self.tail_known[series] = 0

    def add_gap(self, device: int, low: int, high: int) -> None:
        """Nothing was written strictly between `low` and `high`; a burst that comes late may fill it."""
        if high - low > 1:
            self.gaps[device] = [*self.gaps.get(device, ()), (low, high)][-MAX_GAPS:]

    def fill_gaps(self, device: int, times: npt.NDArray[np.int64]) -> None:
        """`times` (ascending) were written: of each gap only what lies before and after them is left."""
        left = list[tuple[int, int]]()
        for low, high in self.gaps.get(device, ()):
            first, last = np.searchsorted(times, low, "right"), np.searchsorted(times, high, "left") - 1
            parts = [(low, high)] if first > last else [(low, int(times[first])), (int(times[last]), high)]
            left += [(a, b) for a, b in parts if b - a > 1]
        self.gaps[device] = left[-MAX_GAPS:]
        if not left:
            del self.gaps[device]

    def snapshot(self) -> bytes:
        """Everything, for `restore`."""
        ahead = {k: [a.low, a.high, a.residues, a.before, a.running, a.shared] for k, a in self.ahead.items()}
        head = json.dumps({"boot": self.boot, "ahead": ahead, "gaps": self.gaps}, separators=(",", ":")).encode()
        arrays = [getattr(self, name).tobytes() for name in _SERIES_FIELDS + _DEVICE_FIELDS]
        return b"".join([_MAGIC, struct.pack("<II", len(self._names_json), len(head)), self._names_json, head, *arrays])

    def restore(self, data: bytes) -> None:
        """Back to a snapshot; series the plant file no longer has are dropped, new ones start empty."""
        try:
            self._restore(data)
        except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
            raise UsageError(
                f"the cleaning state on disk cannot be read ({error}); was it written by another version? "
                "Remove the state to start cleaning without a memory"
            ) from None

    def _restore(self, data: bytes) -> None:
        series_fields = _FORMATS.get(data[:4])
        if series_fields is None:
            raise ValueError("unknown format")
        names_size, head_size = struct.unpack_from("<II", data, 4)
        at = 12 + names_size
        names, device_names = json.loads(data[12:at])
        head = json.loads(data[at : at + head_size])
        at += head_size
        mine = {name: i for i, name in enumerate(self.names)}
        pairs = [(old, mine[name]) for old, name in enumerate(names) if name in mine]
        place = dict(pairs)
        devices = {name: i for i, name in enumerate(self.device_names)}
        device_pairs = [(old, devices[name]) for old, name in enumerate(device_names) if name in devices]
        for fields, count, moved in (
            (series_fields, len(names), pairs),
            (_DEVICE_FIELDS, len(device_names), device_pairs),
        ):
            old, new = (np.array([pair[side] for pair in moved], np.int64) for side in (0, 1))
            for field in fields:
                array = getattr(self, field)
                shape = (count, *array.shape[1:])
                size = int(np.prod(shape)) * 8
                if at + size > len(data):
                    raise ValueError("cut short")
                array[new] = np.frombuffer(data[at : at + size], array.dtype).reshape(shape)[old]
                at += size
        for before, after in device_pairs:
            self.boot[after] = str(head["boot"][before])
        place_of = dict(device_pairs)
        self.gaps = {
            place_of[int(k)]: [(int(low), int(high)) for low, high in gaps]
            for k, gaps in head["gaps"].items()
            if int(k) in place_of
        }
        self.ahead = {
            place[int(k)]: Ahead(int(low), int(high), int(residues), int(before), bool(running), bool(shared))
            for k, (low, high, residues, before, running, shared) in head["ahead"].items()
            if int(k) in place
        }
