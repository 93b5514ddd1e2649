"""Devices on the simulated floor: healthy sensors keep what the plant file promises, faulty ones lie as labelled."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.device import Cut
from firmware_sim.faults import CELL_KINDS, DECIMALS, OTHER_UNITS, Liar
from firmware_sim.fleet import Fleet
from firmware_sim.machine import SECOND
from firmware_sim.settings import Faults, SimSettings
from firmware_sim.truth import TruthFile, read_truth
from messages.contracts import MAX_SAMPLES, Action, Burst, Taken
from messages.plant import Device, Plant, load_plant
from messages.settings import describe, load

CERAMIC = Path(__file__).parents[1] / "firmware_sim" / "plants" / "ceramic.toml"
T0 = 1_800_000_000 * SECOND
HOUR = 3600 * SECOND
BOOT = "0011223344556677"


@pytest.fixture(scope="module")
def ceramic() -> Plant:
    return load_plant(CERAMIC)


def device(plant: Plant, name: str) -> Device:
    return next(one for one in plant.devices() if one.device == name)


def drive(fleet: Fleet, ticks: int, *, step_s: int = 60, take: bool = True) -> list[Cut]:
    """Tick on; every burst is sent at once and, with `take`, taken at once."""
    cuts = []
    for _ in range(ticks):
        new = fleet.tick(fleet.factory.now + step_s * SECOND)
        for firmware in fleet.firmwares.values():
            for one in firmware.due(0.0) if take else ():
                firmware.on_sent(one, 0.0, in_hand=True)
                firmware.on_taken(Taken(boot=BOOT, ranges=[(one.seq, one.seq)]))
        cuts += new
    return cuts


def fleet_of(plant: Plant, **more: Any) -> Fleet:
    return Fleet(plant, SimSettings.model_validate({"plant": CERAMIC, **more}), boot=BOOT, start=T0)


def busy(plant: Plant, **more: Any) -> tuple[Fleet, list[Cut]]:
    """A day in which every machine heats up and the drying chambers and two kilns work."""
    fleet = fleet_of(plant, **more)
    until = T0 + 1000 * HOUR
    for machine in plant.machines:
        fleet.act(machine, Action(id="p", kind="preheat", valid_until=until), at=T0)
    for machine, job in (("forming-1", "b03"), ("forming-2", "b01")):
        fleet.act(machine, Action(id="c", kind="call", job=job, op=0, valid_until=until), at=T0)
    cuts = drive(fleet, 150)
    for machine, job in (("forming-1", "b03"), ("forming-2", "b01")):
        start = Action(id="s", kind="start", job=job, op=0, duration_s=4 * 3600, valid_until=until)
        fleet.act(machine, start, at=fleet.factory.now)
    return fleet, cuts + drive(fleet, 400)


# --- healthy ------------------------------------------------------------------------------------


def test_a_healthy_plant_never_looks_faulty_by_the_limits_of_its_plant_file(ceramic: Plant) -> None:
    _, cuts = busy(ceramic)
    columns: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for cut in cuts:
        burst = Burst.decode(cut.held.payload)
        assert not cut.sent.labels and not cut.sent.order
        for metric, column in burst.columns.items():
            at, values = columns.setdefault((cut.held.device, metric), ([], []))
            at += [burst.t0 + offset for offset in burst.at]
            values += [value for value in column if value is not None]
    assert len(columns) == sum(len(one.metrics) for one in ceramic.devices())
    for (name, metric), (at, values) in columns.items():
        spec = device(ceramic, name).metrics[metric]
        assert len(at) == len(values) == 1100, "every sample of the grid, none twice"
        assert all(time % (30 * SECOND) == 0 for time in at) and all(a < b for a, b in pairwise(at))
        series = np.array(values)
        assert series.min() >= spec.low and series.max() <= spec.high, (name, metric)
        if spec.max_rate_per_s:
            assert np.abs(np.diff(series)).max() / 30 < spec.max_rate_per_s, (name, metric)
        if spec.counter:
            assert (np.diff(series) >= 0).all(), (name, metric)
        if spec.stuck_after_s:
            longest = max(len(list(run)) for run in np.split(series, np.nonzero(np.diff(series))[0] + 1))
            assert longest * 30 < spec.stuck_after_s, (name, metric)
        if spec.sum_of:
            parts = np.sum([columns[part][1] for part in spec.sum_of], axis=0)
            noise = spec.noise + sum(device(ceramic, d).metrics[m].noise for d, m in spec.sum_of)
            rest = series - parts
            assert rest.min() > spec.rest_low - 4 * noise and rest.max() < spec.rest_high + 4 * noise, name


def test_noise_is_that_of_the_sensor_and_a_machine_that_is_off_draws_next_to_nothing(ceramic: Plant) -> None:
    fleet = fleet_of(ceramic)
    fleet.act("firing-1", Action(id="p", kind="preheat", valid_until=T0 * 2), at=T0)
    cuts = drive(fleet, 600)
    for name, low, high in (("firing-1", 0.3, 1.0), ("firing-2", 0.0, 0.06)):
        spec = device(ceramic, name).metrics["power_kw"]
        late = [cut for cut in cuts if cut.held.device == name][-60:]
        sent = np.concatenate([np.array(cut.sent.columns["power_kw"], float) for cut in late])
        true = np.concatenate([np.array(cut.true["power_kw"]) for cut in late])
        assert low * spec.noise <= np.std(sent - true) <= high * spec.noise, name
    temperature = device(ceramic, "firing-2").metrics["temperature_degc"]
    sent = np.concatenate(
        [np.array(c.sent.columns["temperature_degc"], float) for c in cuts if c.held.device == "firing-2"]
    )
    assert np.std(sent - 20) == pytest.approx(temperature.noise, rel=0.1)


# --- faults -------------------------------------------------------------------------------------


def lie(
    plant: Plant, name: str, bursts: int = 200, seed: int = 5, **rates: Any
) -> list[tuple[Any, dict[str, Any], Any]]:
    """(sent, what a sound sensor would have sent, at) of many bursts of one device's liar."""
    spec = device(plant, name)
    liar = Liar(spec, Faults.model_validate(rates), np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    found = []
    for index in range(bursts):
        at = T0 + (np.arange(10, dtype=np.int64) + 10 * index) * 30 * SECOND
        healthy = {metric: _healthy(one, at, rng) for metric, one in spec.metrics.items()}
        found.append((liar.distort(at, healthy), healthy, at))
    return found


def _healthy(spec: Any, at: Any, rng: Any) -> Any:
    if spec.counter:
        return (at - T0) / HOUR * 50.0
    if spec.code:
        return np.full(len(at), 2.0)
    return 0.4 * spec.high + rng.standard_normal(len(at)) * 0.002 * spec.high


@pytest.mark.parametrize("kind", CELL_KINDS)
def test_each_kind_of_fault_shows_in_the_cells_that_are_labelled_and_in_no_other(ceramic: Plant, kind: str) -> None:
    rate = 0.002 if kind in ("stuck", "drift") else 0.05
    rates: dict[str, Any] = {kind: rate}
    touched = 0
    for sent, healthy, _ in lie(ceramic, "firing-1", **rates):
        for metric, column in healthy.items():
            spec = device(ceramic, "firing-1").metrics[metric]
            marks = sent.labels.get(metric, {})
            assert set(marks) <= {kind}
            for index, (is_, was) in enumerate(zip(sent.columns[metric], column, strict=True)):
                if index not in marks.get(kind, ()):
                    assert is_ == pytest.approx(was, abs=10**-DECIMALS)
                    continue
                touched += 1
                assert is_ != round(was, DECIMALS)
                if kind == "missing":
                    assert is_ is None
                elif kind == "out_of_range":
                    assert is_ is not None and not spec.low <= is_ <= spec.high
                elif kind == "spike":
                    assert spec.low <= is_ <= spec.high
                    assert abs(is_ - was) > (25 if spec.counter else 0.2 * (spec.high - spec.low))
                else:
                    assert spec.low <= is_ <= spec.high
    cells = 200 * 10 * 4
    expected = {"missing": 0.05, "out_of_range": 0.05, "spike": 0.05 * 3 / 4}.get(kind)
    if expected:
        assert touched / cells == pytest.approx(expected, rel=0.2)
    else:
        assert 100 < touched < cells / 2


def test_a_stuck_sensor_repeats_itself_longer_than_a_live_one_would(ceramic: Plant) -> None:
    stuck: list[float] = []
    for sent, _, _ in lie(ceramic, "firing-1", stuck=0.002):
        for index in sent.labels.get("temperature_degc", {}).get("stuck", ()):
            stuck.append(sent.columns["temperature_degc"][index])
    (value, repeats), *_ = Counter(stuck).most_common(1)
    spec = device(ceramic, "firing-1").metrics["temperature_degc"]
    assert value is not None and repeats * 30 > (spec.stuck_after_s or 0)


def test_a_drift_grows_slowly_to_its_share_of_the_range_and_ends(ceramic: Plant) -> None:
    spec = device(ceramic, "firing-1").metrics["temperature_degc"]
    strayed, run = [], []
    for sent, healthy, _ in lie(ceramic, "firing-1", drift=0.001, drift_s=3600):
        marked = set(sent.labels.get("temperature_degc", {}).get("drift", ()))
        for index in range(10):
            if index in marked:
                run.append(sent.columns["temperature_degc"][index] - healthy["temperature_degc"][index])
            elif len(run) > 1:
                strayed.append(np.abs(run))
                run = []
    assert strayed
    for one in strayed:
        assert 0.15 < one.max() / (spec.high - spec.low) <= 0.201
        assert np.diff(one).max() < 0.01 * (spec.high - spec.low), "no jump on the way out"


def test_another_unit_is_labelled_and_can_be_converted_back(ceramic: Plant) -> None:
    seen = set()
    for sent, healthy, _ in lie(ceramic, "firing-1", wrong_unit=0.3) + lie(ceramic, "meter-firing", wrong_unit=0.3):
        for metric, column in healthy.items():
            spec = device(ceramic, "meter-firing" if "electricity_kw" in healthy else "firing-1").metrics[metric]
            unit = sent.units[metric]
            if unit == spec.unit:
                assert metric not in sent.labels
                continue
            other, factor, offset = OTHER_UNITS[spec.unit]
            assert unit == other and sent.labels[metric] == {"wrong_unit": list(range(10))}
            back = (np.array(sent.columns[metric]) - offset) / factor
            assert back == pytest.approx(column, abs=1e-3)
            seen.add((spec.unit, unit))
    assert seen == {("kW", "W"), ("kWh", "Wh"), ("degC", "degF"), ("m3/h", "l/min"), ("m3", "l")}


def test_samples_repeated_or_out_of_order_are_where_the_labels_say(ceramic: Plant) -> None:
    repeated = moved = 0
    for sent, healthy, at in lie(ceramic, "firing-1", duplicate=0.4, out_of_order=0.4):
        assert np.array_equal(sent.at, at[sent.picked])
        assert sent.columns["power_kw"] == np.round(healthy["power_kw"][sent.picked], DECIMALS).tolist()
        for place in sent.order.get("duplicate", ()):
            assert Counter(sent.picked.tolist())[int(sent.picked[place])] == 2
            repeated += 1
        assert len(sent.at) == 10 + len(sent.order.get("duplicate", ()))
        for place in sent.order.get("out_of_order", ()):
            assert sent.at[place - 1] > sent.at[place]
            moved += 1
        if not sent.order.get("out_of_order"):
            assert (np.diff(sent.at) >= 0).all()
    assert repeated > 50 and moved > 50


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rates=st.fixed_dictionaries({kind: st.sampled_from([0.0, 0.02, 0.2]) for kind in CELL_KINDS}),
    disorder=st.sampled_from([0.0, 0.5, 1.0]),
    name=st.sampled_from(["firing-1", "meter-forming"]),
)
def test_labels_mark_exactly_the_cells_a_sound_sensor_would_have_sent_differently(
    seed: int, rates: dict[str, float], disorder: float, name: str
) -> None:
    plant = load_plant(CERAMIC)
    for sent, healthy, _ in lie(plant, name, 12, seed, **rates, duplicate=disorder, out_of_order=disorder):
        for metric, column in healthy.items():
            sound = np.round(column[sent.picked], DECIMALS).tolist()
            differ = {i for i, (a, b) in enumerate(zip(sent.columns[metric], sound, strict=True)) if a != b}
            marked = [index for indices in sent.labels.get(metric, {}).values() for index in indices]
            assert set(marked) == differ
            assert len(marked) == len(set(marked)), "one cell, one cause"


def test_only_the_devices_named_are_at_fault(ceramic: Plant) -> None:
    fleet = fleet_of(ceramic, faults={"missing": 0.2, "wrong_unit": 0.2, "duplicate": 0.5, "devices": ["drying-1"]})
    touched = {cut.held.device for cut in drive(fleet, 100) if cut.sent.labels or cut.sent.order}
    assert touched == {"drying-1"}


def test_a_skewed_clock_shifts_readings_and_events_and_nothing_else(ceramic: Plant) -> None:
    fleet = fleet_of(ceramic, faults={"clock_skew_s": {"firing-1": -90.0}})
    for machine in ("firing-1", "firing-2"):
        fleet.act(machine, Action(id="p", kind="preheat", valid_until=T0 * 2), at=T0)
    first = {cut.held.device: cut for cut in drive(fleet, 1)}
    skewed, right = (Burst.decode(first[name].held.payload) for name in ("firing-1", "firing-2"))
    assert skewed.t0 - right.t0 == skewed.events[0].at - right.events[0].at == -90 * SECOND
    assert skewed.at == right.at and first["firing-1"].skew_us == -90 * SECOND


# --- bursts -------------------------------------------------------------------------------------


def test_a_device_numbers_its_bursts_and_readings_and_says_the_oldest_it_holds(ceramic: Plant) -> None:
    fleet = fleet_of(ceramic, forgetful=["drying-2"], faults={"duplicate": 0.5, "out_of_order_burst": 0.3})
    drive(fleet, 60, take=False)
    firmware = fleet.firmwares["drying-1"]
    bursts = [Burst.decode(one.payload) for one in firmware.held.values()]
    assert [one.seq for one in bursts] == list(range(12))
    assert all(one.floor == 0 and one.boot == BOOT for one in bursts)
    assert [one.first for one in bursts] == [sum(b.readings for b in bursts[:i]) for i in range(12)]
    firmware.on_taken(Taken(boot="ffffffff", ranges=[(0, 11)]))
    assert len(firmware.held) == 12, "another boot's bursts are not ours"
    firmware.on_taken(Taken(boot=BOOT, ranges=[(0, 3), (6, 7)]))
    drive(fleet, 5, take=False)
    assert sorted(firmware.held) == [4, 5, 8, 9, 10, 11, 12]
    assert Burst.decode(firmware.held[12].payload).floor == 4
    assert all(Burst.decode(one.payload).floor is None for one in fleet.firmwares["drying-2"].held.values())


def test_a_burst_is_sent_again_with_the_same_bytes_later_and_later_and_at_once_after_a_reconnect(
    ceramic: Plant,
) -> None:
    fleet = fleet_of(ceramic, resend_s=2.0)
    drive(fleet, 5, take=False)
    firmware = fleet.firmwares["firing-1"]
    (one,) = firmware.due(100.0)
    bytes_ = one.payload
    waits = []
    now = 100.0
    for _ in range(7):
        firmware.on_sent(one, now, in_hand=True)
        assert not firmware.due(now + 1e6), "what the client holds is not given to it twice"
        firmware.on_answer(one, now)
        waits.append(one.send_at - now)
        now = one.send_at
        assert firmware.due(now) == [one] and not firmware.due(now - 0.01)
    assert waits == [2, 4, 8, 16, 30, 30, 30] and one.payload == bytes_
    firmware.on_sent(one, now, in_hand=True)
    firmware.on_answer(one, now)
    firmware.on_connect(now)
    assert firmware.due(now) == [one]


def test_a_late_burst_follows_its_successor_and_never_fills_the_device_waiting(ceramic: Plant) -> None:
    fleet = fleet_of(ceramic, faults={"out_of_order_burst": 1.0}, max_held=3)
    drive(fleet, 5, take=False)
    firmware = fleet.firmwares["firing-1"]
    assert not firmware.due(1.0) and not firmware.waits
    firmware.on_connect(1.0)
    assert not firmware.due(1.0)
    drive(fleet, 10, take=False)
    assert (firmware.full and [one.seq for one in firmware.due(1.0)] == [2, 0, 1]) or firmware.due(1.0)
    firmware.hurry(2.0)
    assert {one.seq for one in firmware.due(2.0)} == set(firmware.held)


def test_a_device_full_for_days_catches_up_in_bursts_of_bounded_size_without_losing_a_sample(ceramic: Plant) -> None:
    fleet = fleet_of(ceramic, max_held=1)
    drive(fleet, 5, take=False)
    firmware = fleet.firmwares["firing-1"]
    drive(fleet, 1, step_s=30 * (MAX_SAMPLES + 500), take=False)
    assert len(firmware.held) == 1
    cuts = drive(fleet, 12)
    mine = [Burst.decode(cut.held.payload) for cut in cuts if cut.held.device == "firing-1"]
    at = [one.t0 + offset for one in mine for offset in one.at]
    assert max(len(one.at) for one in mine) == MAX_SAMPLES - 1
    assert all(b - a == 30 * SECOND for a, b in pairwise(at)) and at[-1] > T0 + (MAX_SAMPLES + 500) * 30 * SECOND


def test_the_guides_settings_file_is_read_and_its_description_reads_back_the_same(tmp_path: Path) -> None:
    guide = (CERAMIC.parents[2] / "docs" / "guides" / "simulator.md").read_text()
    (tmp_path / "sim.toml").write_text(re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)[0])
    read = load(SimSettings, tmp_path / "sim.toml", {"SHOAL_SIM_BROKER__PORT": "1884"})
    assert read.broker.port == 1884 and read.scenario[0].workshop == "firing"
    read.check_against(load_plant(CERAMIC))
    (tmp_path / "again.toml").write_text(describe(read))
    assert load(SimSettings, tmp_path / "again.toml", {}) == read


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), rate=st.sampled_from([0.0, 0.05, 0.5]))
def test_the_truth_counts_what_the_devices_say_they_produced(
    seed: int, rate: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    faults = dict.fromkeys(("missing", "spike", "duplicate", "duplicate_burst", "out_of_order", "wrong_unit"), rate)
    fleet = fleet_of(load_plant(CERAMIC), seed=seed, faults=faults)
    with TruthFile(path, max_bytes=10**9) as truth:
        for cut in drive(fleet, 30):
            truth.write(
                device=cut.held.device,
                node="n",
                payload=cut.held.payload,
                true=cut.true,
                faults=cut.sent.labels,
                order=cut.sent.order,
                skew_us=0,
                copies=cut.held.copies,
                late=cut.held.late,
            )
    found = list(read_truth(path))
    counted = Counter[str]()
    for one in found:
        assert one.burst.first == counted[one.device]
        counted[one.device] += one.burst.readings
        assert all(len(column) == len(one.burst.at) for column in one.true.values())
    assert dict(counted) == fleet.summary()["readings_produced"]
    assert (rate == 0) == all(one.copies == 1 and not one.faults and not one.order for one in found)


def test_a_truth_file_cut_off_in_a_line_is_read_up_to_there_and_a_full_one_says_so(tmp_path: Path) -> None:
    burst = Burst(boot=BOOT, seq=0, floor=0, first=0, t0=T0, at=[0], columns={"x": [1.0]}, units={"x": "kW"})
    line: dict[str, Any] = {"device": "d", "node": "n", "true": {"x": [1.1]}, "faults": {}, "order": {}}
    with TruthFile(tmp_path / "t", max_bytes=1200) as truth:
        for _ in range(20):
            truth.write(**line, payload=burst.encode(), skew_us=5, copies=1, late=False)
        assert not truth.complete
    assert (tmp_path / "t").stat().st_size <= 1200
    whole = list(read_truth(tmp_path / "t"))
    assert whole[0].burst == burst and whole[0].skew_us == 5
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-5])
    assert len(list(read_truth(tmp_path / "t"))) == len(whole) - 1
