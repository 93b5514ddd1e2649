"""The cleaner's promise, whatever comes: every reading once, finite, at a time of its own; restartable to the bit."""

from __future__ import annotations

import itertools
import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cleaning_rig import NOW, PRESS, SECOND, T0, UNITS, burst, checked, clean, noisy, of
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cleaning import Cleaner
from edge.ordering import AHEAD_US
from messages.contracts import Burst
from messages.errors import UsageError
from messages.plant import Device, MetricSpec

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
        again = restarted.clean([one], NOW + cut)
        assert (again.series, again.rejected) == (expected.series, expected.rejected)
    assert restarted.snapshot() == through.snapshot()


def test_a_changed_plant_file_keeps_the_memory_of_what_stayed():
    cleaner = Cleaner(DEVICES)
    clean(burst({"power_kw": [10.0]}), cleaner=cleaner)
    fewer = Cleaner([PRESS.model_copy(update={"metrics": {"power_kw": PRESS.metrics["power_kw"]}})], cleaner.snapshot())
    assert of(clean(burst({"power_kw": [None]}, t0=T0 + SECOND), cleaner=fewer)).value == [10.0]


def test_a_state_of_the_first_version_is_read_and_nothing_written_is_written_again():
    cleaner = Cleaner([PRESS])
    for k in range(3):
        clean(burst({"power_kw": noisy(20, seed=k)}, t0=T0 + 20 * k * SECOND, seq=k), cleaner=cleaner)
    data = cleaner.snapshot()
    sizes = struct.unpack_from("<II", data, 4)
    head = 12 + sum(sizes)
    kept, added = len(UNITS) * (2 * 16 + 5) * 8, len(UNITS) * (1 + 6 + 1) * 8
    first = b"SHC1" + data[4 : head + kept] + data[head + kept + added :]
    old = Cleaner([PRESS], first)
    again = burst({"power_kw": noisy(20, seed=2)}, t0=T0 + 40 * SECOND, seq=3)
    assert {r.reason for r in clean(again, cleaner=old).rejected} == {"duplicate", "too_late"}
    assert of(clean(burst({"power_kw": [None]}, t0=T0 + 61 * SECOND, seq=4), cleaner=old)).raw == {0: None}


@pytest.mark.parametrize("damaged", [b"", b"nonsense", b"SHC2\xff\xff\xff\xff\0\0\0\0", None])
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
    for cleaned in (clean(burst({"power_kw": []})), Cleaner([]).clean([], NOW)):
        assert (cleaned.tables, cleaned.series, cleaned.rejected, cleaned.rows) == ([], [], [], 0)


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
