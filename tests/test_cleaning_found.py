"""What cleaning finds in lying sensors whose faults are known; that it decides alike again, together and restarted."""

from __future__ import annotations

import numpy as np
import pytest
from cleaning_rig import NOW, PRESS, SECOND, T0, burst, checked, clean, noisy, of, quality, why

from edge.block import _kept_shape
from edge.cleaning import Cleaned, Cleaner
from firmware_sim.faults import Liar
from firmware_sim.settings import Faults
from messages.plant import Device, MetricSpec
from messages.quality import GOOD, UNCERTAIN, Why

METRICS = {
    "power_kw": MetricSpec(unit="kW", low=0, high=200, noise=0.5, stuck_after_s=5),
    "temp_degc": MetricSpec(unit="degC", low=-20, high=300, noise=0.2, max_rate_per_s=0.5, stuck_after_s=5),
    "flow_m3_h": MetricSpec(unit="m3/h", low=0, high=50),
    "energy_kwh": MetricSpec(unit="kWh", low=0, high=1e9, counter=True),
}
FAULTS = Faults(
    missing=0.01,
    spike=0.01,
    spike_sigmas=(4, 100),
    out_of_range=0.005,
    beyond_share=(0.001, 1),
    stuck=0.0005,
    stuck_s=10,
    stuck_to_s=60,
    duplicate=0.1,
    out_of_order=0.1,
)
DEVICES = tuple(Device(device=f"d{i}", node="n", kind="machine", workshop="w", metrics=METRICS) for i in range(6))


def floor_of_liars(seed: int, per_burst: int = 50, bursts: int = 20):
    """Calls of one burst per device, and (device, metric, time) → (value sent, kinds of fault, true value)."""
    rng = np.random.default_rng(seed)
    calls, cells = [[] for _ in range(bursts)], {}
    for device in DEVICES:
        liar = Liar(device, FAULTS, rng)
        second = np.arange(per_burst * bursts)
        level = rng.choice([8.0, 40.0, 90.0], len(second))[np.maximum.accumulate(second // 170 * 170)]
        truth = {
            "power_kw": level,
            "temp_degc": 120 + 30 * np.sin(second / 400),
            "flow_m3_h": 20 + 5 * np.sin(second / 90),
            "energy_kwh": 100 + np.cumsum(level) / 3600,
        }
        noise = {"power_kw": 0.5, "temp_degc": 0.2, "flow_m3_h": 0.4, "energy_kwh": 0.0}
        sound = {m: np.round(v + noise[m] * rng.normal(size=len(v)), 4) for m, v in truth.items()}
        for k in range(bursts):
            here = second[k * per_burst : (k + 1) * per_burst]
            sent = liar.distort(T0 + here * SECOND, {m: v[here] for m, v in sound.items()})
            at = (sent.at - T0).tolist()
            calls[k].append((device.device, burst(sent.columns, at=at, units=sent.units, seq=k)))
            for metric, column in sent.columns.items():
                kinds = sent.labels.get(metric, {})
                for place, (t, value) in enumerate(zip(at, column, strict=True)):
                    faults = {kind for kind, places in kinds.items() if place in places}
                    cells[device.device, metric, T0 + t] = value, faults, truth[metric][t // SECOND]
    return calls, cells


def rows(cleaned: Cleaned):
    """(device, metric, time) → (value, quality, raw or ... when it was not replaced)."""
    return {
        (one.device, one.metric, one.t0 + at): (one.value[i], quality(one)[i], one.raw.get(i, ...))
        for one in cleaned.series
        for i, at in enumerate(one.at)
    }


def everything(calls, cleaner):
    found = {}
    for k, call in enumerate(calls):
        found |= rows(checked(cleaner.clean(call, T0 + 50 * (k + 1) * SECOND), call))
    return found


@pytest.mark.parametrize("seed", [201, 202])
def test_a_replaced_value_keeps_what_the_sensor_said_and_every_other_is_as_sent(seed):
    calls, cells = floor_of_liars(seed)
    found = everything(calls, Cleaner(DEVICES))
    assert found.keys() == cells.keys()
    for key, (value, flags, raw) in found.items():
        sent, faults, _ = cells[key]
        assert raw == sent if raw is not ... else value == sent
        assert (raw is None) == ("missing" in faults) == bool(flags & Why.MISSING)
        assert bool(flags & Why.RANGE) == ("out_of_range" in faults)
        if raw is not ...:
            assert flags & (Why.MISSING | Why.RANGE | Why.SPIKE | Why.RATE) and flags & 0xC0 != GOOD


@pytest.mark.parametrize("seed", [203, 204])
def test_spikes_from_four_sigma_on_and_stuck_sensors_are_found_and_the_error_is_cut(seed):
    calls, cells = floor_of_liars(seed)
    found = everything(calls, Cleaner(DEVICES))
    for kind, reasons, metrics in (
        ("spike", Why.SPIKE | Why.RATE, METRICS),
        ("stuck", Why.STUCK, ("power_kw", "temp_degc")),
    ):
        real = {key for key, (_, faults, _) in cells.items() if kind in faults and key[1] in metrics}
        flagged = {key for key, (_, flags, _) in found.items() if flags & reasons}
        assert 2 * len(real & flagged) / (len(real) + len(flagged)) >= 0.88, kind
    wrong = [key for key, (_, faults, _) in cells.items() if faults & {"spike", "out_of_range"}]
    before, after = (
        np.sqrt(np.mean([(one[key][0] - cells[key][2]) ** 2 for key in wrong if key[1] != "energy_kwh"]))
        for one in (cells, found)
    )
    assert after <= 0.2 * before


def test_a_restart_after_any_call_decides_the_same_about_lying_sensors():
    calls, _ = floor_of_liars(205, per_burst=10, bursts=30)
    through, restarted = Cleaner(DEVICES), Cleaner(DEVICES)
    for k, call in enumerate(calls):
        now = T0 + 10 * (k + 1) * SECOND
        restarted = Cleaner(DEVICES, restarted.snapshot())
        one, two = through.clean(call, now), restarted.clean(call, now)
        assert (one.series, one.rejected) == (two.series, two.rejected)
    assert through.snapshot() == restarted.snapshot()


def test_the_same_bursts_give_the_same_rows_and_state_to_the_byte():
    calls, _ = floor_of_liars(206)
    first, second = Cleaner(DEVICES), Cleaner(DEVICES)
    for k, call in enumerate(calls):
        one, two = (cleaner.clean(call, T0 + 50 * (k + 1) * SECOND) for cleaner in (first, second))
        for a, b in zip(one.tables, two.tables, strict=True):
            for column in ("time", "value", "quality", "replaced", "raw"):
                assert getattr(a, column).tobytes() == getattr(b, column).tobytes()
    assert first.snapshot() == second.snapshot()


def test_tables_and_messages_say_the_same():
    calls, _ = floor_of_liars(207)
    cleaned = Cleaner(DEVICES).clean(calls[0], NOW)
    [table] = cleaned.tables
    assert table.count == len(cleaned.series) == 24 and cleaned.rows == len(table.time) == table.bounds[-1]
    seen = set()
    for i, one in enumerate(cleaned.series):
        low, high = table.bounds[i], table.bounds[i + 1]
        assert (one.device, one.metric, one.unit) == table.names[i]
        assert [one.t0 + at for at in one.at] == table.time[low:high].tolist()
        assert one.value == table.value[low:high].tolist() and quality(one) == table.quality[low:high].tolist()
        seen |= {low + row for row in one.raw}
        if table.alike[i]:
            assert one.at is cleaned.series[i - 1].at
    assert seen == set(table.replaced.tolist()) and any(table.alike) and not all(table.alike)


def test_bursts_mixed_up_in_themselves_are_sorted_together_as_each_is_alone():
    rng = np.random.default_rng(208)
    bursts = []
    for i in range(6):
        at = (rng.permutation(20) // (1 if i % 2 else 2) * SECOND).tolist()  # half have every time twice
        values = {m: np.round(rng.normal(50, 1, 20)).tolist() for m in ("power_kw", "temp_degc")}
        bursts.append((f"d{i}", burst(values, at=at)))
    bursts.append(("d0", burst({"power_kw": [50.0]}, t0=T0 + 500 * SECOND, seq=1)))
    together = checked(Cleaner(DEVICES).clean(bursts[:-1], NOW), bursts[:-1])
    alone = [Cleaner(DEVICES).clean([one], NOW) for one in bursts[:-1]]
    assert together.series == [series for one in alone for series in one.series]
    assert together.rejected == [record for one in alone for record in one.rejected]
    assert any(q & Why.LATE for series in together.series for q in quality(series))


@pytest.mark.parametrize("sigmas", [-12, -6, 6, 12])
def test_a_spike_of_six_sigma_is_found_beside_a_step_and_on_a_ramp(sigmas):
    step = [*noisy(20, level=10), *noisy(20, level=80, seed=2)]
    ramp = [20 + i + value for i, value in enumerate(noisy(40, level=0, sigma=0.5, seed=3))]
    for values, at in ((step, 12), (step, 27), (ramp, 20)):
        changed = list(values)
        changed[at] = changed[at - 1] / 2 + changed[at + 1] / 2 + sigmas * 0.5 + (1 if sigmas > 0 else -1)
        series = of(clean(burst({"power_kw": changed})))
        assert set(series.raw) == {at} and why(series, at) == Why.SPIKE


def test_a_spike_remembered_from_the_last_burst_is_not_found_again_in_the_first_row_of_the_next():
    cleaner = Cleaner([PRESS])
    values = noisy(20)
    values[18] = 90.0
    assert set(of(clean(burst({"power_kw": values}), cleaner=cleaner)).raw) == {18}
    after = of(clean(burst({"power_kw": noisy(20, seed=4)}, t0=T0 + 20 * SECOND, seq=1), cleaner=cleaner))
    assert after.quality == GOOD


def test_the_last_value_is_replaced_where_the_process_cannot_step_and_kept_where_it_can():
    jump = {"temp_degc": [*noisy(19, 20, 0.1), 24.0], "power_kw": [*noisy(19), 90.0]}
    cleaned = clean(burst(jump))
    temp, power = of(cleaned, "temp_degc"), of(cleaned, "power_kw")
    assert temp.raw == {19: 24.0} and abs(temp.value[19] - 20) < 0.5 and why(temp, 19) == Why.SPIKE | Why.RATE
    assert power.raw == {} and power.value[19] == 90.0 and quality(power)[19] == UNCERTAIN | Why.SPIKE


def test_noise_that_is_not_stated_is_learned_and_follows_the_load():
    flow = MetricSpec(unit="m3/h", low=0, high=50)
    device = PRESS.model_copy(update={"metrics": {"flow_m3_h": flow}})
    cleaner, rng, doubted = Cleaner([device]), np.random.default_rng(209), []
    for k in range(80):
        sigma = 1.5 if k % 20 >= 10 else 0.2  # the floor is 0.05
        column = {"flow_m3_h": rng.normal(20, sigma, 25).tolist()}
        one = burst(column, t0=T0 + k * 25 * SECOND, units={"flow_m3_h": "m3/h"}, seq=k)
        cleaned = clean(one, cleaner=cleaner, now=T0 + (k + 1) * 25 * SECOND)
        doubted.append(sum(q != GOOD for q in quality(of(cleaned, "flow_m3_h"))))
    assert sum(doubted) <= 0.004 * 80 * 25
    spiked = rng.normal(20, 1.5, 25)
    spiked[12] += 15
    last = burst({"flow_m3_h": spiked.tolist()}, t0=T0 + 3000 * SECOND, units={"flow_m3_h": "m3/h"}, seq=80)
    assert 12 in of(clean(last, cleaner=cleaner, now=T0 + 3100 * SECOND), "flow_m3_h").raw


def test_a_machine_that_is_off_is_not_stuck_but_one_that_shows_the_same_load_is():
    device = Device(device="press", node="n", kind="machine", workshop="w", metrics={"power_kw": METRICS["power_kw"]})
    off = clean(burst({"power_kw": [0.0] * 60}), devices=(device,))
    assert of(off).quality == GOOD
    working = of(clean(burst({"power_kw": [*noisy(10), *[50.0] * 50]}), devices=(device,)))
    assert [i for i in range(60) if why(working, i) & Why.STUCK] == list(range(11, 60))


def test_bursts_of_one_sample_flag_spikes_and_stuck_sensors():
    cleaner, flags = Cleaner(DEVICES[:1]), []
    values = [*noisy(40), 90.0, *noisy(20, seed=5), *[50.0] * 20]
    for k, value in enumerate(values):
        one = ("d0", burst({"power_kw": [value]}, t0=T0 + k * SECOND, seq=k))
        flags.append(why(of(cleaner.clean([one], T0 + (k + 1) * SECOND)), 0))
    assert [k for k, flag in enumerate(flags) if flag & Why.SPIKE] == [40]
    assert [k for k, flag in enumerate(flags) if flag & Why.STUCK] == list(range(66, 81))


def test_what_is_remembered_does_not_grow():
    cleaner = Cleaner(DEVICES)
    calls, _ = floor_of_liars(210, per_burst=10, bursts=40)
    sizes = set()
    for k, call in enumerate(calls):
        cleaner.clean(call, T0 + 10 * (k + 1) * SECOND)
        if k > 1:
            sizes.add(len(cleaner.snapshot()))
    for n in range(1, 60):
        cleaner.clean([("d0", burst({"power_kw": noisy(n)}, t0=T0 + n * 1000 * SECOND, seq=40 + n))], NOW)
    assert len(sizes) == 1 and _kept_shape.cache_info().currsize <= 16


@pytest.mark.parametrize("kind", ["spike", "out_of_range", "stuck"])
def test_a_liars_faults_stay_in_the_range_they_are_given(kind):
    faults = Faults(**{kind: 0.02}, spike_sigmas=(4, 6), beyond_share=(0.001, 0.01), stuck_s=3, stuck_to_s=9)
    liar = Liar(DEVICES[0], faults, np.random.default_rng(211))
    sound = np.round(120 + np.random.default_rng(212).normal(size=5000) * 0.2, 4)
    value, places = list[float](), list[int]()
    for first in range(0, 5000, 50):
        here = np.arange(first, first + 50)
        sent = liar.distort(T0 + here * SECOND, {"temp_degc": sound[here]})
        at = sent.labels.get("temp_degc", {}).get(kind, [])
        value += [sent.columns["temp_degc"][i] for i in at]
        places += [first + i for i in at]
    sent_values, at_fault = np.array(value), np.array(places)
    assert len(at_fault) > 50
    if kind == "spike":
        assert (np.abs(np.abs(sent_values - sound[at_fault]) / 0.2 - 5) <= 1.001).all()
    elif kind == "out_of_range":
        beyond = np.maximum(sent_values - 300, -20 - sent_values) / 320
        assert beyond.min() >= 0.0009 and beyond.max() <= 0.0101
    else:  # the first value of a spell is as it should be
        runs = [len(run) for run in np.split(sent_values, np.flatnonzero(np.diff(sent_values)) + 1)]
        assert max(runs) <= 8 and min(runs) >= 1 and len(set(runs)) > 3
