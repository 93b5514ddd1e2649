"""Cleaning: time per reading, faults found on seeded faults, and a peer beside it. One JSON line per figure.

    python benchmarks/cleaning.py [--quick]

The peer is what a user would write: per series, Hampel's filter by `np.median` over sliding windows of 7, on the same
readings in the same run. Magnitudes: spikes 5 to 100 standard deviations of the noise (log-uniform, alone or on steps),
stuck spells 30 to 120 s where the plant file says 20 s, impossible values 1 to 100 % of the range outside, samples 1 to
10 places late, repeats within and across bursts, drifts of 10 to 50 standard deviations over 60 s.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.cleaning import Cleaner
from edge.hampel import lone_outliers
from messages.contracts import Burst
from messages.plant import Device, MetricSpec
from messages.quality import GOOD, Why

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
POWER = MetricSpec(unit="kW", low=0, high=200, noise=0.5)
TEMP = MetricSpec(unit="degC", low=-20, high=300, noise=0.2, max_rate_per_s=0.5, stuck_after_s=20)
RATES = {"missing": 0.01, "out_of_range": 0.005, "spike": 0.01}


def line(figure, value, unit, target=None, holds=None, **more):
    print(json.dumps({"figure": figure, "value": value, "unit": unit, "target": target, "holds": holds, **more}))


def devices(count: int) -> list[Device]:
    metrics = {"power_kw": POWER, "temp_degc": TEMP, "power2_kw": POWER, "temp2_degc": TEMP}
    return [Device(device=f"d{i}", node="n", kind="machine", workshop="w", metrics=metrics) for i in range(count)]


class Truth:
    """Signals of many series with faults in known cells. Dimensions: D devices, 4 metrics, T samples at 1 Hz."""

    def __init__(
        self, count: int, samples: int, per_burst: int, seed: int, faults: bool, disorder: float = 0.01
    ) -> None:
        rng = np.random.default_rng(seed)
        self.devices, self.samples, self.per_burst = devices(count), samples, per_burst
        shape = (count, 4, samples)
        second = np.arange(samples)
        self.signal = np.empty(shape)
        for d in range(count):
            for m in range(4):
                if m % 2:
                    phase, period = rng.uniform(0, 6.28), rng.uniform(300, 2000)
                    self.signal[d, m] = 120 + 20 * np.sin(second / period * 6.28 + phase)
                else:
                    edges = rng.random(samples) < 1 / 300
                    levels = rng.choice([8.0, 40.0, 80.0, 110.0], samples)
                    self.signal[d, m] = levels[np.maximum.accumulate(np.where(edges, second, 0))]
        sigma = np.array([POWER.noise, TEMP.noise] * 2)[None, :, None]
        self.sent = np.round(self.signal + sigma * rng.normal(size=shape), 4)
        self.labels = {k: np.zeros(shape, bool) for k in (*RATES, "stuck", "drift")}
        self.order = np.zeros((count, samples), bool)
        self.repeat = np.zeros((count, samples), bool)
        if faults:
            self._faults(rng, sigma, disorder)

    def _faults(self, rng, sigma, disorder) -> None:
        count, _, samples = self.sent.shape
        for d in range(count):
            for m in (1, 3):
                for _ in range(max(1, samples // 600)):
                    begin, span = int(rng.integers(1, samples - 121)), int(rng.integers(30, 121))
                    self.sent[d, m, begin : begin + span] = self.sent[d, m, begin - 1]
                    self.labels["stuck"][d, m, begin : begin + span] = True
        draw, low = rng.random(self.sent.shape), 0.0
        for kind, rate in RATES.items():
            self.labels[kind] = (draw >= low) & (draw < low + rate)
            low += rate
        size = 5 * 20 ** rng.random(self.sent.shape) * rng.choice([-1, 1], self.sent.shape) * sigma
        inside = self.sent + size
        limits = np.array([[s.low, s.high] for s in (POWER, TEMP, POWER, TEMP)])
        low_, high_ = limits[None, :, 0, None], limits[None, :, 1, None]
        size = np.where((inside < low_) | (inside > high_), -size, size)
        inside = self.sent + size
        self.labels["spike"] &= (inside >= low_) & (inside <= high_)
        self.sent = np.where(self.labels["spike"], inside, self.sent)
        beyond = (high_ - low_) * rng.uniform(0.01, 1, self.sent.shape)
        out = np.where(rng.random(self.sent.shape) < 0.5, low_ - beyond, high_ + beyond)
        self.sent = np.where(self.labels["out_of_range"], out, self.sent)
        self.sent[self.labels["missing"]] = np.nan
        for kind in RATES:
            self.labels["stuck"] &= ~self.labels[kind]
        self.order = rng.random((count, samples)) < disorder
        self.repeat = rng.random((count, samples)) < disorder

    def bursts(self):
        """Calls of one burst per device; samples late by 1 to 10 places and repeats as drawn."""
        rng = np.random.default_rng(99)
        names = list(self.devices[0].metrics)
        units = {metric: spec.unit for metric, spec in self.devices[0].metrics.items()}
        firsts = range(0, self.samples, self.per_burst)
        self.late = np.zeros_like(self.order)
        for seq, first in enumerate(firsts):
            call = []
            for d, device in enumerate(self.devices):
                picked = np.arange(first, min(first + self.per_burst, self.samples))
                moved = np.flatnonzero(self.order[d, picked])
                rank = np.arange(len(picked), dtype=float)
                rank[moved] += rng.integers(1, 11, len(moved)) + 0.5
                picked = picked[np.argsort(rank, kind="stable")]
                seen = np.maximum.accumulate(picked)
                self.late[d, picked[picked < seen]] = True
                picked = np.repeat(picked, 1 + self.repeat[d, picked])
                columns = {}
                for m, metric in enumerate(names):
                    column = self.sent[d, m, picked]
                    cells = column.tolist()
                    columns[metric] = [None if v != v else v for v in cells] if np.isnan(column).any() else cells
                call.append(
                    (
                        device.device,
                        Burst.model_construct(
                            boot="00000000",
                            seq=seq,
                            floor=None,
                            first=0,
                            t0=T0,
                            at=(picked * SECOND).tolist(),
                            columns=columns,
                            units=units,
                            events=[],
                        ),
                    )
                )
            yield call, T0 + (first + self.per_burst) * SECOND


def peer_hampel(column: list[float | None], k: float = 4.0) -> list[float]:
    """Hampel-7 of one series as it is usually written."""
    values = np.array(column, np.float64)
    values[np.isnan(values)] = np.nanmedian(values) if len(values) else 0.0
    if len(values) < 7:
        return values.tolist()
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, 3, mode="reflect"), 7)
    middle = np.median(windows, axis=1)
    spread = 1.4826 * np.median(np.abs(windows - middle[:, None]), axis=1)
    return np.where(np.abs(values - middle) > k * spread, middle, values).tolist()


def speed(count: int, per_burst: int, calls: int, figure: str, target_ns: float | None, disorder: float) -> None:
    truth = Truth(count, per_burst * calls, per_burst, seed=1, faults=True, disorder=disorder)
    faults = f"2.5 % faulty cells, {disorder:.1%} of samples late and as many twice"
    work = list(truth.bursts())
    ours, theirs, cells = [], [], sum(b.readings for call, _ in work for _, b in call)
    for _ in range(3):
        cleaner = Cleaner(truth.devices)
        spent = []
        for call, now in work:
            begin = time.process_time()
            cleaner.clean(call, now)
            spent.append(time.process_time() - begin)
        ours.append(spent)
    for call, _ in work[: max(1, len(work) // 4)]:
        begin = time.process_time()
        for _, burst in call:
            for column in burst.columns.values():
                peer_hampel(column)
        theirs.append(time.process_time() - begin)
    ns = float(np.min(ours, axis=0).sum()) / cells * 1e9
    peer = float(np.median(theirs)) * len(work) / cells * 1e9
    holds = None if target_ns is None else ns <= target_ns
    note = f"{count} devices x 4 metrics x {per_burst} samples a call, {faults}; the peer only filters outliers"
    more = {"peer": round(peer, 1), "ratio": round(peer / ns, 2), "note": note}
    line(figure, round(ns, 1), "ns/reading", target_ns, holds, **more)


def kernel() -> None:
    """The outlier filter alone, on 128 rows of 128 values."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=128 * 128)
    bounds = np.arange(129) * 128
    noise = np.ones(128)
    spent = []
    for _ in range(50):
        begin = time.process_time()
        lone_outliers(values, bounds, bounds[:-1], noise)
        spent.append(time.process_time() - begin)
    line("hampel7_kernel", round(min(spent) / len(values) * 1e9, 1), "ns/reading", 50, min(spent) / len(values) < 50e-9)


def quality(samples: int, count: int) -> None:
    truth = Truth(count, samples, 100, seed=7, faults=True)
    cleaner = Cleaner(truth.devices)
    shape = truth.sent.shape
    flags, value, written = np.zeros(shape, np.int64), np.full(shape, np.nan), np.zeros(shape, bool)
    names = {m: i for i, m in enumerate(truth.devices[0].metrics)}
    duplicates, readings, rejected = 0, 0, Counter()
    for call, now in truth.bursts():
        cleaned = cleaner.clean(call, now)
        readings += sum(burst.readings for _, burst in call)
        for record in cleaned.rejected:
            rejected[record.reason] += record.readings
        for one in cleaned.series:
            at = (one.t0 + np.array(one.at) - T0) // SECOND
            place = (int(one.device[1:]), names[one.metric], at)
            flags[place], value[place], written[place] = one.quality, one.value, True
    duplicates = rejected["duplicate"]

    def score(kind, found, real, target):
        hits = int((found & real).sum())
        precision, recall = hits / max(1, int(found.sum())), hits / max(1, int(real.sum()))
        f1 = 2 * precision * recall / max(1e-12, precision + recall)
        note = f"precision {precision:.4f}, recall {recall:.4f}, {int(real.sum())} faults"
        line(f"f1_{kind}", round(f1, 4), "", target, f1 >= target, note=note)

    labels = truth.labels
    score("missing", (flags & Why.MISSING) > 0, labels["missing"] & written, 0.95)
    score("out_of_range", (flags & Why.RANGE) > 0, labels["out_of_range"], 0.95)
    late = np.repeat(truth.late[:, None, :], 4, axis=1)
    score("order", (flags & Why.LATE) > 0, late & written, 0.95)
    score("spike", (flags & (Why.SPIKE | Why.RATE)) > 0, labels["spike"], 0.90)
    score("stuck", (flags & Why.STUCK) > 0, labels["stuck"], 0.90)
    expected = int(truth.repeat.sum()) * 4
    recall = min(duplicates, expected) / max(1, expected)
    precision = min(duplicates, expected) / max(1, duplicates)
    f1 = 2 * precision * recall / max(1e-12, precision + recall)
    line("f1_duplicate", round(f1, 4), "", 0.95, f1 >= 0.95, note=f"{duplicates} rejected, {expected} sent")
    lost = readings - int(written.sum()) - sum(rejected.values())
    line("readings_unaccounted", lost, "readings", 0, lost == 0, note=f"{readings} in; refused: {dict(rejected)}")

    bad = (labels["missing"] | labels["out_of_range"] | labels["spike"]) & written
    sigma = np.array([POWER.noise, TEMP.noise] * 2)[None, :, None]
    held = np.where(np.isnan(truth.sent), 0.0, truth.sent)
    before, after = np.abs(held - truth.signal) / sigma, np.abs(value - truth.signal) / sigma
    cut = 1 - after[bad].mean() / before[bad].mean()
    seen = bad & ~labels["missing"]
    cut_seen = 1 - after[seen].mean() / before[seen].mean()
    line("error_cut", round(float(cut_seen), 4), "", 0.8, bool(cut_seen >= 0.8), note="spikes and impossible values")
    line("error_cut_with_missing", round(float(cut), 4), "", 0.8, bool(cut >= 0.8), note="a null counted as zero")
    spike = labels["spike"] & written
    line("error_cut_spikes", round(float(1 - after[spike].mean() / before[spike].mean()), 4), "", 0.8)


def false_alarms(samples: int, count: int) -> None:
    truth = Truth(count, samples, 100, seed=8, faults=False)
    cleaner, doubted, rows = Cleaner(truth.devices), 0, 0
    for call, now in truth.bursts():
        cleaned = cleaner.clean(call, now)
        rows += cleaned.rows
        for one in cleaned.series:
            doubted += 0 if one.quality == GOOD else int((np.array(one.quality) != GOOD).sum())
    share = doubted / rows
    line(
        "false_alarms",
        round(share, 6),
        "",
        0.001,
        share <= 0.001,
        note=f"{doubted} of {rows} clean readings, with steps",
    )


def drift_and_unit(count: int) -> None:
    """Drifts of one sensor cannot be told from the process; reported as they are. Stated units are converted."""
    truth = Truth(count, 1000, 100, seed=9, faults=False)
    rng = np.random.default_rng(10)
    for d in range(count):
        begin = int(rng.integers(100, 900))
        truth.sent[d, 0, begin : begin + 60] += np.linspace(0, rng.uniform(10, 50) * POWER.noise, 60)
        truth.labels["drift"][d, 0, begin : begin + 60] = True
    cleaner, found, converted, columns = Cleaner(truth.devices), 0, 0, 0
    for call, now in truth.bursts():
        watts = []
        for name, burst in call:
            column = [value * 1000 for value in burst.columns["power2_kw"]]
            changed = {**burst.columns, "power2_kw": column}
            units = {**burst.units, "power2_kw": "W"}
            watts.append((name, burst.model_copy(update={"columns": changed, "units": units})))
        for one in cleaner.clean(watts, now).series:
            flags = np.broadcast_to(one.quality, len(one.at))
            at = (one.t0 + np.array(one.at) - T0) // SECOND
            if one.metric == "power_kw":
                found += int(((flags != GOOD) & truth.labels["drift"][int(one.device[1:]), 0, at]).sum())
            if one.metric == "power2_kw":
                columns += 1
                sent = truth.sent[int(one.device[1:]), 2, at]
                close = np.abs(np.array(one.value) - sent) <= 1e-9 * (1 + np.abs(sent))
                replaced = (flags & (Why.SPIKE | Why.RATE)) > 0
                converted += bool((flags & Why.UNIT).all() and (close | replaced).all())
    line("recall_drift", round(found / truth.labels["drift"].sum(), 4), "", note="without a main meter to compare with")
    line(
        "wrong_unit_stated_converted",
        round(converted / columns, 4),
        "",
        note="a unit that is stated wrongly is not seen",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer readings, under a minute")
    quick = parser.parse_args().quick
    speed(250, 100, 4 if quick else 16, "clean_batched", 300, 0.001)
    speed(250, 100, 4 if quick else 16, "clean_batched_disorderly", None, 0.01)
    speed(1, 100, 100 if quick else 400, "clean_one_message", 1000, 0.001)
    speed(24, 10, 30 if quick else 100, "clean_small_bursts", None, 0.001)
    kernel()
    quality(4_000 if quick else 20_000, 10)
    false_alarms(4_000 if quick else 20_000, 10)
    drift_and_unit(20)
    state = len(Cleaner(devices(250)).snapshot())
    line("state", round(state / 1000, 1), "bytes/series", None, None, note=f"{state} bytes for 1000 series")


if __name__ == "__main__":
    main()
