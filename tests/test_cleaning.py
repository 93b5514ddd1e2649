"""The cleaner's promise (every reading once, finite, unique and ascending times, restartable) and each of its rules."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cleaning import BEHIND_SEEN, Cleaned, Cleaner
from edge.hampel import median7
from edge.memory import REMEMBERED
from edge.ordering import AHEAD_US
from edge.units import conversion
from messages.contracts import Burst, MachineEvent, Series
from messages.errors import UsageError
from messages.plant import Device, MetricSpec
from messages.quality import BAD, GOOD, GRADE_MASK, UNCERTAIN, Why

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND
NOW = T0 + 200 * SECOND

PRESS = Device(
    device="press",
    node="n",
    kind="machine",
    workshop="w",
    metrics={
        "power_kw": MetricSpec(unit="kW", low=0, high=200, noise=0.5),
        "temp_degc": MetricSpec(unit="degC", low=-20, high=300, noise=0.1, max_rate_per_s=1, stuck_after_s=10),
        "energy_kwh": MetricSpec(unit="kWh", low=0, high=1e9, counter=True),
        "state": MetricSpec(unit="code", low=0, high=5, code=True),
    },
)
UNITS = {metric: spec.unit for metric, spec in PRESS.metrics.items()}


def burst(columns, *, t0=T0, at=None, units=None, boot="0000beef", seq=0, events=()):
    n = len(next(iter(columns.values())))
    return Burst(
        boot=boot,
        seq=seq,
        first=0,
        t0=t0,
        at=[i * SECOND for i in range(n)] if at is None else at,
        columns=columns,
        units={**UNITS, **(units or {})},
        events=list(events),
    )


def clean(*bursts, cleaner=None, now=NOW, device="press", devices=(PRESS,)):
    cleaner = cleaner or Cleaner(devices)
    return checked(cleaner.clean([(device, one) for one in bursts], now), [(device, one) for one in bursts])


def checked(cleaned: Cleaned, bursts) -> Cleaned:
    """The promise that holds for every call whatever came in."""
    assert cleaned.rows + sum(r.readings for r in cleaned.rejected) == sum(one.readings for _, one in bursts)
    written = Counter()
    for one in cleaned.series:
        assert Series.decode(one.encode()) == one  # the contract: finite, rectangular, ascending
        assert all(map(math.isfinite, one.value))
        written.update((one.device, one.metric, one.t0 + at) for at in one.at)
    assert not written or max(written.values()) == 1
    return cleaned


def of(cleaned, metric="power_kw"):
    [series] = [one for one in cleaned.series if one.metric == metric]
    return series


def quality(series):
    return series.quality if isinstance(series.quality, list) else [series.quality] * len(series.at)


def why(series, index):
    return Why(quality(series)[index] & ~GRADE_MASK)


def rejections(cleaned):
    return {(r.metric, r.reason): r.readings for r in cleaned.rejected}


def noisy(n, level=50.0, sigma=0.5, seed=1):
    return (level + sigma * np.random.default_rng(seed).normal(size=n)).tolist()


# --- each rule ------------------------------------------------------------------------------------


def test_clean_values_pass_untouched_and_share_one_quality():
    values = noisy(20)
    series = of(clean(burst({"power_kw": values})))
    assert (series.value, series.quality, series.raw, series.t0, series.unit) == (values, GOOD, {}, T0, "kW")


@pytest.mark.parametrize(
    ("given_unit", "wanted", "value", "expected"),
    [
        ("W", "kW", 1500, 1.5),
        ("MW", "kW", 2, 2000),
        ("degF", "degC", 212, 100),
        ("K", "degC", 273.15, 0),
        ("degC", "K", 0, 273.15),
        ("K", "degF", 273.15, 32),
        ("Wh", "kWh", 5, 0.005),
        ("MWh", "kWh", 5, 5000),
        ("l/s", "m3/h", 1, 3.6),
        ("l/min", "m3/h", 1, 0.06),
        ("m3/h", "l/min", 0.06, 1),
        ("°C", "degC", 7, 7),
        ("weird", "weird", 7, 7),
    ],
)
def test_units_are_brought_to_the_plant_files_unit(given_unit, wanted, value, expected):
    factor, offset = conversion(given_unit, wanted)
    assert value * factor + offset == pytest.approx(expected, abs=1e-9)


def test_there_is_no_way_from_kilowatts_to_degrees():
    assert conversion("kW", "degC") is None and conversion("code", "kW") is None


def test_another_unit_is_converted_and_flagged_but_stays_good():
    series = of(clean(burst({"power_kw": [50_000.0] * 3}, units={"power_kw": "W"})))
    assert series.value == pytest.approx([50.0] * 3) and series.quality == GOOD | Why.UNIT and series.raw == {}


def test_unknown_unit_metric_and_device_are_rejected_with_the_reason():
    cleaned = clean(burst({"power_kw": [1.0, 2.0], "humidity": [1.0, None]}, units={"power_kw": "?", "humidity": "%"}))
    assert rejections(cleaned) == {("power_kw", "unit"): 2, ("humidity", "unknown_metric"): 2}
    assert cleaned.series == []
    assert rejections(clean(burst({"power_kw": [1.0]}), device="ghost")) == {(None, "unknown_device"): 1}


def test_a_missing_value_is_interpolated_between_its_neighbours():
    series = of(clean(burst({"power_kw": [10.0, None, 12.0]})))
    assert series.value == [10, 11, 12] and series.raw == {1: None}
    assert quality(series) == [GOOD, UNCERTAIN | Why.MISSING, GOOD]


def test_a_missing_value_at_the_end_holds_the_last_good_one_across_calls_but_not_for_ever():
    cleaner = Cleaner([PRESS])
    clean(burst({"power_kw": [10.0]}), cleaner=cleaner)
    held = of(clean(burst({"power_kw": [None]}, t0=T0 + 60 * SECOND), cleaner=cleaner))
    assert held.value == [10.0] and quality(held) == [UNCERTAIN | Why.MISSING]
    late = T0 + 3600 * SECOND
    assert rejections(clean(burst({"power_kw": [None]}, t0=late), cleaner=cleaner, now=late)) == {
        ("power_kw", "no_value"): 1
    }


def test_an_impossible_value_is_bad_replaced_and_its_raw_value_kept():
    series = of(clean(burst({"power_kw": [10.0, -5.0, 12.0]})))
    assert series.value == [10, 11, 12] and series.raw == {1: -5.0}
    assert quality(series)[1] == BAD | Why.RANGE


def test_an_impossible_value_with_nothing_to_estimate_from_is_rejected():
    assert rejections(clean(burst({"power_kw": [1e308, None]}))) == {
        ("power_kw", "out_of_range"): 1,
        ("power_kw", "no_value"): 1,
    }


def test_a_lone_spike_is_replaced_and_its_neighbours_are_not():
    values = noisy(20)
    values[9] = 90.0
    series = of(clean(burst({"power_kw": values})))
    assert series.raw == {9: 90.0} and quality(series)[9] == UNCERTAIN | Why.SPIKE
    assert series.value[9] == pytest.approx((values[8] + values[10]) / 2)
    assert [i for i in range(20) if quality(series)[i] != GOOD] == [9]


@pytest.mark.parametrize("at", range(20))
def test_a_step_from_idle_to_work_survives_wherever_it_falls_in_the_burst(at):
    values = noisy(at, level=10) + noisy(20 - at, level=80)
    cleaner = Cleaner([PRESS])
    clean(burst({"power_kw": noisy(10, level=10)}, t0=T0 - 10 * SECOND), cleaner=cleaner)
    series = of(clean(burst({"power_kw": values}), cleaner=cleaner))
    assert series.value == values and series.raw == {}
    doubted = [i for i in range(20) if quality(series)[i] != GOOD]
    assert doubted == ([19] if at == 19 else [])  # a step begins as a spike does: kept, but said


@pytest.mark.parametrize("how", ["state", "event"])
def test_a_step_in_the_last_sample_is_not_doubted_when_the_machine_says_it_changed(how):
    columns = {"power_kw": [*noisy(19, level=10), 80.0]}
    if how == "state":
        columns["state"] = [2.0] * 19 + [3.0]
    events = [MachineEvent(at=T0, kind="state", state="work")] if how == "event" else []
    assert of(clean(burst(columns, events=events))).quality == GOOD


def test_a_ramp_and_a_short_pulse_survive():
    ramp = [20.0] * 10 + [20.0 + 5 * i for i in range(1, 11)]
    pulse = [*noisy(8), 90.0, 90.3, *noisy(8, seed=2)]
    for values in (ramp, pulse):
        assert of(clean(burst({"power_kw": values}))).quality == GOOD


def test_a_spike_on_the_edge_of_two_bursts_is_seen_from_the_next_one():
    cleaner = Cleaner([PRESS])
    clean(burst({"power_kw": noisy(10)}), cleaner=cleaner)
    values = noisy(10, seed=3)
    values[0] = 120.0
    series = of(clean(burst({"power_kw": values}, t0=T0 + 10 * SECOND), cleaner=cleaner))
    assert series.raw == {0: 120.0}


def test_a_value_that_moved_faster_than_the_process_can_is_replaced_until_it_is_back():
    values = [20.0, 20.5, 21.0, 40.0, 41.0, 42.0, 22.5, 23.0]
    series = of(clean(burst({"temp_degc": values})), "temp_degc")
    assert [bool(why(series, i) & (Why.RATE | Why.SPIKE)) for i in range(8)] == [False] * 3 + [True] * 3 + [False] * 2
    assert series.value[3:6] == pytest.approx([21.375, 21.75, 22.125])


def test_a_true_shift_is_believed_once_it_could_have_happened():
    cleaner = Cleaner([PRESS])
    series = of(clean(burst({"temp_degc": noisy(5, 20, 0.1) + noisy(55, 60, 0.1)}), cleaner=cleaner), "temp_degc")
    believed = [i for i in range(60) if not why(series, i) & Why.RATE]
    assert believed[:5] == [0, 1, 2, 3, 4] and 40 <= believed[5] <= 46 and believed[5:] == list(range(believed[5], 60))


def test_a_sensor_that_does_not_move_is_flagged_but_keeps_its_value():
    values = [*noisy(5, 20, 0.1), *[20.0] * 15]
    series = of(clean(burst({"temp_degc": values})), "temp_degc")
    assert series.value == values
    assert [i for i in range(20) if why(series, i) & Why.STUCK] == list(range(6, 20))
    assert quality(series)[10] == UNCERTAIN | Why.STUCK
    short = [*noisy(5, 20, 0.1), *[20.0] * 5]
    assert of(clean(burst({"temp_degc": short})), "temp_degc").quality == GOOD


def test_a_stuck_sensor_is_seen_across_bursts():
    cleaner = Cleaner([PRESS])
    flags = []
    for k in range(6):
        cleaner = Cleaner([PRESS], cleaner.snapshot())
        one = of(clean(burst({"temp_degc": [20.0] * 3}, t0=T0 + k * 3 * SECOND), cleaner=cleaner), "temp_degc")
        flags += [bool(why(one, i) & Why.STUCK) for i in range(3)]
    assert flags == [False] * 9 + [True] * 9


def test_a_sensor_that_comes_back_from_being_stuck_is_not_too_fast():
    cleaner = Cleaner([PRESS])
    moving = [20 + 0.8 * i for i in range(60)]
    values = [*moving[:10], *[moving[9]] * 30, *moving[40:]]
    found = [clean(burst({"temp_degc": values[i : i + 20]}, t0=T0 + i * SECOND), cleaner=cleaner) for i in (0, 20, 40)]
    flags = [why(of(one, "temp_degc"), i) for one in found for i in range(20)]
    assert flags == [Why(0)] * 10 + [Why.STUCK] * 30 + [Why(0)] * 20


def test_a_counter_that_falls_is_flagged_once_and_a_new_boot_may_start_from_zero():
    cleaner = Cleaner([PRESS])
    first = of(clean(burst({"energy_kwh": [100.0, 101, 102, 50, 51, 52]}), cleaner=cleaner), "energy_kwh")
    assert [i for i in range(6) if quality(first)[i] != GOOD] == [3] and why(first, 3) == Why.INCONSISTENT
    again = burst({"energy_kwh": [0.0, 1.0]}, t0=T0 + 10 * SECOND, boot="0000cafe")
    assert of(clean(again, cleaner=cleaner), "energy_kwh").quality == GOOD
    fallen = burst({"energy_kwh": [0.5, 0.6]}, t0=T0 + 20 * SECOND, boot="0000cafe")
    assert why(of(clean(fallen, cleaner=cleaner), "energy_kwh"), 0) == Why.INCONSISTENT


@pytest.mark.parametrize("glitch", [5000.0, 3.0])
def test_a_lone_glitch_of_a_counter_is_replaced(glitch):
    series = of(clean(burst({"energy_kwh": [100.0, 101, glitch, 103, 104]})), "energy_kwh")
    assert series.value == [100, 101, 102, 103, 104] and series.raw == {2: glitch} and why(series, 2) == Why.SPIKE


def test_a_code_is_held_and_never_averaged():
    series = of(clean(burst({"state": [2.0, None, 3.0, 2.5, 9.0, 3.0, 2.0, 3.0]})), "state")
    assert series.value == [2, 2, 3, 3, 3, 3, 2, 3]
    assert [why(series, i) for i in (1, 3, 4)] == [Why.MISSING, Why.RANGE, Why.RANGE]
    assert rejections(clean(burst({"state": [None, 1.0]}))) == {("state", "no_value"): 1}


def meters():
    part = MetricSpec(unit="kW", low=0, high=200, noise=0.1)
    parts = [
        Device(device=name, node="n", kind="machine", workshop="w", metrics={"power_kw": part}) for name in ("a", "b")
    ]
    main = MetricSpec(
        unit="kW",
        low=0,
        high=500,
        noise=0.1,
        sum_of=(("a", "power_kw"), ("b", "power_kw")),
        rest_low=4,
        rest_high=6,
    )
    return (*parts, Device(device="main", node="n", kind="meter", workshop="w", metrics={"power_kw": main}))


def test_a_main_meter_that_disagrees_with_its_parts_is_flagged_where_it_does():
    a, b = [10.0] * 8, [20.0] * 8
    main = [35.0] * 4 + [50.0, 50.0, 50.0] + [35.0]
    one = {"a": a, "b": b, "main": main}
    bursts = [(name, burst({"power_kw": values})) for name, values in one.items()]
    cleaned = checked(Cleaner(meters()).clean(bursts, NOW), bursts)
    found = {series.device: quality(series) for series in cleaned.series}
    assert set(found["a"]) == set(found["b"]) == {GOOD}
    off = UNCERTAIN | Why.INCONSISTENT
    assert found["main"] == [GOOD] * 4 + [off] * 3 + [GOOD]


def test_a_main_meter_is_not_judged_by_estimates_or_by_parts_that_are_not_there():
    a, b, main = [10.0, None, 10.0], [20.0] * 3, [35.0, 99.0, 35.0]
    bursts = [("a", burst({"power_kw": a})), ("b", burst({"power_kw": b})), ("main", burst({"power_kw": main}))]
    cleaned = Cleaner(meters()).clean(bursts, NOW)
    assert all(not q & Why.INCONSISTENT for series in cleaned.series for q in quality(series))
    cleaned = Cleaner(meters()).clean([bursts[0], ("main", burst({"power_kw": [90.0, 90.0]}))], NOW)
    assert all(not q & Why.INCONSISTENT for series in cleaned.series for q in quality(series))


# --- times ----------------------------------------------------------------------------------------


def test_samples_out_of_order_are_sorted_and_flagged():
    series = of(clean(burst({"power_kw": [10.0, 11, 12, 13]}, at=[0, 2, 1, 3])))
    assert series.value == [10, 12, 11, 13] and series.at == [0, 1, 2, 3]
    assert quality(series) == [GOOD, GOOD | Why.LATE, GOOD, GOOD]


def test_exact_repeats_are_duplicates_within_and_across_bursts():
    cleaner = Cleaner([PRESS])
    first = clean(burst({"power_kw": [10.0, 10.0, 11.0]}, at=[0, 0, 5]), cleaner=cleaner)
    assert rejections(first) == {("power_kw", "duplicate"): 1} and of(first).at == [0, 5]
    second = clean(burst({"power_kw": [11.0, 12.0]}, at=[5, 6]), cleaner=cleaner)
    assert rejections(second) == {("power_kw", "duplicate"): 1} and of(second).value == [12.0]


def test_another_value_at_a_known_time_moves_by_a_microsecond():
    cleaner = Cleaner([PRESS])
    first = of(clean(burst({"power_kw": [10.0, 10.5, 11.0]}, at=[0, 0, 1]), cleaner=cleaner))
    assert first.at == [0, 1, 2] and first.value == [10, 10.5, 11]
    assert [why(first, i) for i in range(3)] == [Why(0), Why.TIME, Why.TIME]
    second = of(clean(burst({"power_kw": [10.2]}), cleaner=cleaner))
    assert second.t0 == T0 + 3 and why(second, 0) & Why.TIME
    assert rejections(clean(burst({"power_kw": [10.2]}), cleaner=cleaner)) == {("power_kw", "duplicate"): 1}


def test_a_late_row_finds_its_place_and_one_older_than_the_memory_is_refused():
    cleaner = Cleaner([PRESS])
    clean(burst({"power_kw": noisy(40)}), cleaner=cleaner)
    late = of(clean(burst({"power_kw": [50.0]}, t0=T0 + 38 * SECOND + 7), cleaner=cleaner))
    assert quality(late) == [GOOD | Why.LATE]
    old = clean(burst({"power_kw": [50.0]}, t0=T0 + (40 - REMEMBERED - 2) * SECOND), cleaner=cleaner)
    assert rejections(old) == {("power_kw", "too_late"): 1}


def test_a_burst_that_comes_many_bursts_late_fills_the_gap_it_left():
    cleaner = Cleaner([PRESS])
    made = [burst({"power_kw": noisy(50, seed=k)}, t0=T0 + k * 50 * SECOND, seq=k) for k in range(10)]
    for k in (0, 1, 4, 5, 6, 7, 8, 9):
        assert not clean(made[k], cleaner=cleaner, now=T0 + 500 * SECOND).rejected
    cleaner = Cleaner([PRESS], cleaner.snapshot())
    for k in (3, 2):
        late = of(clean(made[k], cleaner=cleaner, now=T0 + 500 * SECOND))
        assert late.value == made[k].columns["power_kw"] and set(quality(late)) == {GOOD | Why.LATE}
    again = made[3].model_copy(update={"seq": 10})  # what was filled is closed
    assert rejections(clean(again, cleaner=cleaner, now=T0 + 500 * SECOND)) == {("power_kw", "too_late"): 50}


def test_a_null_at_a_known_time_tells_nothing_new():
    cleaner = Cleaner([PRESS])
    cleaned = clean(burst({"power_kw": [10.0, None, 11.0]}, at=[0, 0, 5]), cleaner=cleaner)
    assert rejections(cleaned) == {("power_kw", "duplicate"): 1} and of(cleaned).quality == GOOD
    assert rejections(clean(burst({"power_kw": [None]}), cleaner=cleaner)) == {("power_kw", "duplicate"): 1}


def test_a_late_row_is_not_doubted_because_of_what_came_after_it():
    cleaner = Cleaner([PRESS])
    clean(burst({"power_kw": noisy(10, level=10)}, seq=0), cleaner=cleaner)
    clean(burst({"power_kw": noisy(10, level=80)}, t0=T0 + 20 * SECOND, seq=2), cleaner=cleaner)
    late = of(clean(burst({"power_kw": [10.2]}, t0=T0 + 12 * SECOND, seq=1), cleaner=cleaner))
    assert late.quality == GOOD | Why.LATE and late.value == [10.2]


def test_a_gap_that_one_metric_filled_is_closed_for_it():
    cleaner = Cleaner([PRESS])

    def send(metric, second, n, seq):
        return clean(burst({metric: noisy(n, 20, 0.1, seq)}, t0=T0 + second * SECOND, seq=seq), cleaner=cleaner)

    send("temp_degc", 0, 10, 0)
    send("power_kw", 30, 10, 2)
    send("temp_degc", 10, 10, 1)
    send("temp_degc", 40, 30, 3)
    assert rejections(send("temp_degc", 12, 3, 4)) == {("temp_degc", "too_late"): 3}


def test_a_time_before_1970_is_refused():
    assert rejections(clean(burst({"power_kw": [1.0, 2.0]}, t0=5, at=[-10, 0]))) == {("power_kw", "clock"): 1}


def test_a_clock_ahead_is_flagged_and_its_rows_keep_their_times():
    series = of(clean(burst({"power_kw": noisy(3)}, t0=NOW + AHEAD_US + 1)))
    assert series.t0 == NOW + AHEAD_US + 1 and set(quality(series)) == {UNCERTAIN | Why.TIME}
    assert of(clean(burst({"power_kw": [50.0]}, t0=NOW + AHEAD_US))).quality == GOOD


def test_an_old_backlog_is_not_a_wrong_clock_but_a_constant_lag_is():
    cleaner = Cleaner([PRESS])
    for k in range(20):  # a backlog drains: the lag shrinks
        t0 = T0 + k * 300 * SECOND
        assert of(clean(burst({"power_kw": [50.0]}, t0=t0), cleaner=cleaner, now=T0 + 86_400 * SECOND)).quality == GOOD
    found = []
    for k in range(20, 20 + BEHIND_SEEN + 2):
        t0 = T0 + k * 300 * SECOND
        found.append(of(clean(burst({"power_kw": [50.0]}, t0=t0), cleaner=cleaner, now=t0 + 1000 * SECOND)).quality)
    assert found == [GOOD] * (BEHIND_SEEN - 1) + [UNCERTAIN | Why.TIME] * 3


@pytest.mark.parametrize("skew_s", [61, 200, 3600, 75 * 365 * 86400])
def test_a_clock_that_is_put_back_loses_nothing_and_repeats_no_time(skew_s):
    cleaner = Cleaner([PRESS])
    seen = Counter()
    clock = T0
    for step in range(60):
        clock += 10 * SECOND
        skew = skew_s * SECOND if 10 <= step < 30 or 40 <= step < 45 else 0
        values = noisy(10, seed=step)
        cleaned = clean(burst({"power_kw": values}, t0=clock + skew), cleaner=cleaner, now=clock + 10 * SECOND)
        if skew_s > 100:
            assert not cleaned.rejected
        for one in cleaned.series:
            seen.update(one.t0 + at for at in one.at)
        if step == 35:
            cleaner = Cleaner([PRESS], cleaner.snapshot())
        if 32 <= step < 40 and skew_s > 100:
            assert all(not q & Why.LATE for one in cleaned.series for q in quality(one))
    assert max(seen.values()) == 1
    # A clock put back by a minute may cost what lies before the remembered rows, never more.
    assert sum(seen.values()) >= 600 - 2 * (skew_s if skew_s < 100 else 0)


# --- the promise, whatever comes ------------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.sampled_from([0.0, 1.0, 2.0, 3.0, 50.0, 1e308, -1e308, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 5).map(float),
)


@st.composite
def some_bursts(draw):
    found = []
    for seq in range(draw(st.integers(1, 6))):
        n = draw(st.integers(0, 12))
        base = draw(st.sampled_from([0, T0, T0, T0, T0 + 5, T0 + 30 * SECOND, NOW + 2 * AHEAD_US, 2**53 - 3]))
        offsets = st.one_of(st.integers(-4, 12), st.integers(0, 40).map(lambda s: s * SECOND), st.just(-(2**53) + 1))
        metrics = draw(st.lists(st.sampled_from([*UNITS, "ghost"]), unique=True, max_size=5))
        columns = {metric: draw(st.lists(VALUES, min_size=n, max_size=n)) for metric in metrics}
        units = {"ghost": "x"} | (
            {"power_kw": draw(st.sampled_from(["kW", "MW", "?"]))} if "power_kw" in metrics else {}
        )
        at = draw(st.lists(offsets, min_size=n, max_size=n))
        one = Burst(
            boot=draw(st.sampled_from(["0000aaaa", "0000bbbb"])),
            seq=draw(st.sampled_from([seq, seq, 2 * seq, 9 - seq])),
            first=0,
            t0=base,
            at=at,
            columns=columns,
            units={**UNITS, **units},
        )
        found.append((draw(st.sampled_from(["press", "press", "spare", "nobody"])), one))
    return found


DEVICES = (PRESS, PRESS.model_copy(update={"device": "spare"}))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(some_bursts(), st.lists(st.integers(0, 6), max_size=3))
def test_every_reading_comes_out_once_finite_at_a_time_of_its_own(bursts, cuts):
    cleaner, written = Cleaner(DEVICES), Counter()
    edges = sorted({0, len(bursts), *(cut for cut in cuts if cut < len(bursts))})
    for low, high in itertools.pairwise(edges):
        part = bursts[low:high]
        for one in checked(cleaner.clean(part, NOW), part).series:
            written.update((one.device, one.metric, one.t0 + at) for at in one.at)
    assert not written or max(written.values()) == 1


@settings(max_examples=80, deadline=None, derandomize=True)
@given(some_bursts(), some_bursts())
def test_a_restart_at_any_point_changes_nothing(before, after):
    through, restarted = Cleaner(DEVICES), Cleaner(DEVICES)
    for cut, one in enumerate([*before, *after]):
        expected = through.clean([one], NOW + cut)
        restarted = Cleaner(DEVICES, restarted.snapshot())
        assert restarted.clean([one], NOW + cut) == expected
    assert restarted.snapshot() == through.snapshot()


def test_a_changed_plant_file_keeps_the_memory_of_what_stayed():
    cleaner = Cleaner(DEVICES)
    clean(burst({"power_kw": [10.0]}), cleaner=cleaner)
    fewer = Cleaner([PRESS.model_copy(update={"metrics": {"power_kw": PRESS.metrics["power_kw"]}})], cleaner.snapshot())
    assert of(clean(burst({"power_kw": [None]}, t0=T0 + SECOND), cleaner=fewer)).value == [10.0]


@pytest.mark.parametrize("damaged", [b"", b"nonsense", b"SHC1\xff\xff\xff\xff\0\0\0\0", None])
def test_a_damaged_state_is_an_error_that_names_the_cure(damaged):
    data = Cleaner([PRESS]).snapshot()[:-20] if damaged is None else damaged
    with pytest.raises(UsageError, match="Remove the state"):
        Cleaner([PRESS], data)


@pytest.mark.parametrize(
    "column",
    [
        [None] * 10_000,
        [1e308, -1e308] * 5_000,
        [50.0] * 10_000,
        np.random.default_rng(0).normal(50, 500, 10_000).tolist(),
    ],
)
@pytest.mark.parametrize("at", ["ascending", "equal", "descending", "shuffled"])
def test_the_largest_bursts_hold_the_promise(column, at):
    places = {
        "ascending": list(range(10_000)),
        "equal": [0] * 10_000,
        "descending": list(range(0, -10_000, -1)),
        "shuffled": np.random.default_rng(1).integers(0, 5_000, 10_000).tolist(),
    }[at]
    big = burst(dict.fromkeys(UNITS, column), at=places)
    cleaner = Cleaner([PRESS])
    written = Counter()
    for one in (big, big.model_copy(update={"t0": T0 + 3}), burst({"power_kw": [50.0]}, t0=T0 + 10**6)):
        for series in clean(one, cleaner=cleaner).series:
            written.update((series.metric, series.t0 + offset) for offset in series.at)
    assert not written or max(written.values()) == 1


def test_the_guides_example_runs():
    root = Path(__file__).parent.parent
    [example] = re.findall(r"```python\n(.*?)```", (root / "docs/guides/cleaning.md").read_text(), re.S)
    exec(example.replace('Path("', f'Path("{root}/'), {})


def test_nothing_in_nothing_out():
    assert clean(burst({"power_kw": []})) == Cleaned([], [])
    assert Cleaner([]).clean([], NOW) == Cleaned([], [])


def test_limits_as_wide_as_numbers_go_do_not_let_infinities_out():
    wide = Device(
        device="press",
        node="n",
        kind="machine",
        workshop="w",
        metrics={"power_kw": MetricSpec(unit="kW", low=-1.7e308, high=1.7e308, max_rate_per_s=1, stuck_after_s=1)},
    )
    values = [1.7e308, -1.7e308, None, 0.0, 1e308, None, -1e308, -1.7e308, 1.7e308] * 4
    clean(burst({"power_kw": values}), devices=(wide,))
    clean(burst({"power_kw": values}, units={"power_kw": "MW"}), devices=(wide,))


def test_bursts_of_many_devices_give_what_each_gives_alone():
    rng = np.random.default_rng(5)
    devices = tuple(PRESS.model_copy(update={"device": f"d{i}"}) for i in range(30))
    bursts = []
    for i in range(30):
        n = int(rng.integers(1, 60))
        power = rng.normal(50, 0.5, n)
        power[rng.random(n) < 0.05] += 60
        columns = {
            "power_kw": [None if rng.random() < 0.05 else float(v) for v in power],
            "temp_degc": np.round(rng.normal(20, 0.1, n), 1).tolist(),
            "energy_kwh": np.cumsum(rng.random(n) - 0.02).clip(0).tolist(),
            "state": rng.integers(0, 6, n).astype(float).tolist(),
        }
        at = [int(v) * SECOND for v in (np.arange(n) + (rng.random(n) < 0.05) * 2)]
        bursts.append((f"d{i}", burst(columns, at=at)))
    together = checked(Cleaner(devices).clean(bursts, NOW), bursts)
    alone = [Cleaner(devices).clean([one], NOW) for one in bursts]
    assert together.series == [series for one in alone for series in one.series]
    assert together.rejected == [record for one in alone for record in one.rejected]


def test_the_sorting_network_finds_every_median():
    # 0-1 principle: a network of exchanges that is right for all zeros and ones is right for all numbers.
    table = np.array([[(word >> bit) & 1 for bit in range(7)] for word in range(128)], float)
    assert (median7(list(table.T)) == np.median(table, axis=1)).all()


def test_clean_data_raises_no_alarms():
    rng = np.random.default_rng(11)
    cleaner = Cleaner([PRESS])
    doubted = rows = 0
    clock = T0
    for _ in range(60):
        clock += 100 * SECOND
        columns = {"power_kw": rng.normal(80, 0.5, 100).tolist(), "temp_degc": rng.normal(90, 0.1, 100).tolist()}
        cleaned = clean(burst(columns, t0=clock), cleaner=cleaner, now=clock + 100 * SECOND)
        rows += cleaned.rows
        doubted += sum(q != GOOD for series in cleaned.series for q in quality(series))
    assert rows == 12_000 and doubted <= rows * 0.001
