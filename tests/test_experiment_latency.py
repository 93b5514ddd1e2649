"""Edge against cloud: cells count every part, the line delays as it says, with nothing added nothing differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.two_arms import (
    CREEP_IN,
    DROP,
    FAR,
    HOLD,
    HOME,
    IN,
    OUT,
    SEPARATE,
    TICK_S,
    WORDS,
    ArmsSpec,
    Stream,
    TwoArms,
)
from messages.broker import Broker
from shoal.experiments.latency_bus import figures, run
from shoal.experiments.latency_cells import HALVES
from shoal.experiments.latency_study import CLAIM, LINES, RATES, SIZES, Study, cases
from shoal.experiments.remote import (
    CLOUD,
    EDGE,
    PERIOD,
    VALID_S,
    Case,
    Latency,
    Line,
    Log,
    Outcome,
    products_of,
    simulate,
)

ROOT = Path(__file__).resolve().parent.parent
SPEC = ArmsSpec()


# --- the cell -----------------------------------------------------------------------------------------------


def one_cell(spec: ArmsSpec = SPEC) -> TwoArms:
    return TwoArms([spec], products_of(spec, 0, 120.0))


def tell(cell: TwoArms, a: int, b: int = HOLD, *, ticks: int = 1, fresh: bool = True) -> None:
    for _ in range(ticks):
        cell.step(np.array([[a, b]]), np.array([[fresh, fresh]]))


def lead_in(cell: TwoArms) -> None:
    """Arm a over the product."""
    for word, until in ((IN, 0.2), (CREEP_IN, 0.003)):
        while cell.read().at[0, 0] > until:
            tell(cell, word)
    assert abs(cell.read().at[0, 0]) < SPEC.exact


def to_seam(cell: TwoArms, m: float) -> None:
    """Until the seam that comes now is, or would be, so far from the tool."""
    tell(cell, HOLD, ticks=round((cell.read().seam[0] - m) / SPEC.belt / TICK_S))


@pytest.mark.parametrize(
    ("seam_mm", "kept"), [(20, False), (16, False), (14, True), (0, True), (-14, True), (-16, False), (-20, False)]
)
def test_a_part_comes_off_only_while_its_seam_is_in_reach(seam_mm: int, kept: bool) -> None:
    cell = one_cell()
    lead_in(cell)
    to_seam(cell, seam_mm / 1000)
    tell(cell, SEPARATE)
    tell(cell, HOLD, ticks=1)
    assert bool(cell.read().holding[0, 0]) is kept
    while not cell.passed[0]:
        tell(cell, HOLD)
    assert cell.missed[0] == (0 if kept else 1)


def test_an_arm_away_from_the_product_separates_nothing() -> None:
    cell = one_cell()
    to_seam(cell, 0.0)
    tell(cell, SEPARATE)
    assert not cell.read().holding.any() and not cell.read().busy.any()


def test_a_command_already_done_is_not_done_again() -> None:
    cell = one_cell()
    lead_in(cell)
    to_seam(cell, 0.1)
    tell(cell, SEPARATE, fresh=False)
    assert not cell.read().busy.any()
    tell(cell, SEPARATE)
    assert cell.read().busy[0, 0]


def test_a_part_counts_when_it_is_in_the_bin() -> None:
    cell = one_cell()
    lead_in(cell)
    to_seam(cell, 0.0)
    tell(cell, SEPARATE)
    tell(cell, HOLD, ticks=80)
    tell(cell, DROP)
    assert cell.held[0] == 1 and cell.recovered[0] == 0  # not at home
    tell(cell, OUT, ticks=200)
    tell(cell, DROP)
    assert cell.held[0] == 0 and cell.recovered[0] == 1


def test_tools_that_come_too_near_stop_the_belt_and_lose_what_they_hold() -> None:
    cell = one_cell()
    lead_in(cell)
    to_seam(cell, 0.0)
    tell(cell, SEPARATE)
    while not cell.collisions[0]:
        assert cell.read().at[0].sum() >= SPEC.clear
        tell(cell, HOLD, IN)
    seam = cell.read().seam[0]
    assert (cell.lost[0], cell.held[0], cell.recovered[0]) == (1, 0, 0)
    assert (cell.read().at == HOME).all()
    tell(cell, IN, IN, ticks=round(SPEC.stop_s / TICK_S))
    assert cell.read().seam[0] == seam and (cell.read().at == HOME).all()
    tell(cell, IN, IN)
    assert cell.read().seam[0] < seam and (cell.read().at < HOME).all()


@given(st.lists(st.tuples(st.integers(0, len(WORDS) - 1), st.integers(0, len(WORDS) - 1)), max_size=80))
def test_whatever_is_told_arms_keep_their_limits_and_every_seam_is_accounted_for(told: list[tuple[int, int]]) -> None:
    cell = one_cell()
    cell.log = []
    before = cell.read()
    for a, b in told:
        for _ in range(7):
            tell(cell, a, b)
            scene = cell.read()
            assert ((scene.at >= FAR) & (scene.at <= HOME)).all()
            if not cell.collisions[0]:
                assert (np.abs(scene.at - before.at) <= SPEC.fast * TICK_S + 1e-12).all()
            before = scene
    separated = sum(kept for _, _, kept in cell.log)
    assert cell.passed[0] == cell.missed[0] + separated == len(cell.log)
    assert separated == cell.recovered[0] + cell.lost[0] + cell.held[0]


# --- the line -----------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2), min_size=1, max_size=30),
    st.sampled_from([10.0, 30.0, 90.0]),
    st.sampled_from([10.0, 100.0, 300.0, 330.0, 700.0]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.booleans(),
)
def test_the_line_delivers_what_a_plain_list_of_messages_would(
    luck: list[list[float]], base_ms: float, spike_ms: float, rate: float, overtaking: bool
) -> None:
    line = Line([Latency(base_ms, rate, spike_ms, overtaking)])
    arrivals: list[list[int]] = [[], []]
    shown: list[int] = [-1, -1]
    for tick in range(10 * len(luck) + 100):
        number = tick // PERIOD
        if tick % PERIOD == 0 and number < len(luck):
            line.send(number, np.array([[number % 5 + 1, (number + 2) % 5 + 1]]), np.array([luck[number]]))
            for arm in range(2):
                due = tick + round((spike_ms if luck[number][arm] < rate else base_ms) / 10)
                arrivals[arm].append(due if overtaking else max([due, *arrivals[arm]]))
        word, fresh = line.arrive(tick)
        for arm in range(2):
            newest = max((k for k, at in enumerate(arrivals[arm]) if at <= tick), default=-1)
            void = newest < 0 or tick - newest * PERIOD > VALID_S / TICK_S
            assert word[0, arm] == (HOLD if void else (newest + 2 * arm) % 5 + 1)
            assert fresh[0, arm] == (newest != shown[arm] and not void)
            shown[arm] = newest


def test_a_latency_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        Line([Latency(10.0, 0.1, 6_000.0)])


def test_episodes_have_the_share_and_the_length_they_are_told_and_hit_both_arms() -> None:
    late = []
    line = Line([replace(CLOUD, episode_ms=500.0)])
    rng = np.random.default_rng(5)
    for number in range(20_000):
        line.send(number, np.zeros((1, 2), np.int64), rng.random((1, 2)))
        due = line._arrival[0] - number * PERIOD
        assert due[0] == due[1]
        late.append(line._late[0, 0])
    runs = np.diff(np.flatnonzero(np.diff(np.array([0, *late, 0]))))[::2]
    assert np.mean(late) == pytest.approx(0.1, abs=0.02)
    assert runs.mean() == pytest.approx(5.0, abs=0.7)


# --- both halves --------------------------------------------------------------------------------------------


def test_with_nothing_added_the_cloud_does_what_the_edge_does() -> None:
    found = simulate([LINES["edge"], LINES["nothing added"]], seeds=range(4), duration_s=120.0)
    assert found.recovered.min() > 0
    for counted in (found.recovered, found.missed, found.passed, found.lost, found.collisions):
        assert (counted[0] == counted[1]).all()


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_a_cell_does_the_same_alone_and_among_others(seed: int) -> None:
    log: Log = []
    alone: Log = []
    every = [Case(EDGE), Case(CLOUD), Case(replace(CLOUD, overtaking=True), replace(SPEC, belt=0.13))]
    simulate(every, seeds=(7, 8, 9), duration_s=60.0, log=log)
    simulate([every[1]], seeds=(seed,), duration_s=60.0, log=alone)
    assert [one[1:] for one in log if one[0] == seed - 7 + 3] == [one[1:] for one in alone] != []


def test_the_cell_works_on_the_edge_and_spikes_cost_throughput() -> None:
    rates = (0.0, 0.05, 0.1, 0.3)
    every = [Case(EDGE), *(Case(replace(CLOUD, rate=rate)) for rate in rates)]
    found = simulate(every, seeds=range(6), duration_s=180.0)
    recovered = found.recovered.sum(axis=1)
    assert found.missed[0].sum() == 0 and found.collisions[0].sum() == 0
    assert abs(recovered[0] / recovered[1] - 1) <= 0.01
    assert recovered[1] > recovered[2] > recovered[3] > recovered[4]
    assert found.missed[3].sum() > 0 and found.collisions[3].sum() > 0


def test_parts_of_every_case_add_up() -> None:
    found = simulate(list(cases().values()), seeds=(1,), duration_s=60.0)
    left = found.passed - found.missed - found.recovered - found.lost
    assert ((left >= 0) & (left <= 2)).all()  # in the hands of the arms


def made_up(recovered: dict[str, list[int]]) -> Study:
    names = tuple(recovered)
    counted = np.array([recovered[name] for name in names])
    nothing = np.zeros_like(counted)
    return Study(names, Outcome(counted, nothing, counted, nothing, nothing, 1.0), counted.shape[1])


def test_where_the_claim_is_reached_lies_on_the_straight_line_between_two_points() -> None:
    study = made_up({"edge": [140, 140], "a": [140, 140], "b": [100, 100], "c": [50, 50]})
    crossed = study.crossing(((0.0, "a"), (10.0, "b"), (20.0, "c")))
    assert crossed is not None and crossed.value == pytest.approx(10.0)
    study = made_up({"edge": [120, 120], "a": [120, 120], "b": [100, 100], "c": [75, 75]})
    crossed = study.crossing(((0.0, "a"), (10.0, "b"), (20.0, "c")))
    assert crossed is not None and crossed.low == crossed.value == crossed.high == pytest.approx(10 + 10 * 0.2 / 0.4)
    assert made_up({"edge": [120], "a": [110]}).crossing(((0.0, "a"),)) is None
    assert study.improvement("c").value == pytest.approx(0.6)


def test_an_interval_is_open_where_resamples_do_not_reach_the_claim() -> None:
    study = made_up({"edge": [140, 140, 140], "a": [140, 140, 140], "b": [80, 100, 115]})
    crossed = study.crossing(((0.0, "a"), (10.0, "b")))
    assert crossed is not None and crossed.value <= 10.0 and crossed.low < crossed.value and crossed.high == np.inf


def test_the_frozen_figures_are_what_they_were() -> None:
    assert (Latency(10.0), Latency(30.0, rate=0.1, spike_ms=300.0)) == (EDGE, CLOUD)
    assert (PERIOD * TICK_S, VALID_S, CLAIM) == (0.1, 0.5, 0.4)
    assert ArmsSpec() == ArmsSpec(0.1, 0.3, 0.03, 0.015, 0.5, 0.1, 2.0, 0.01, 0.2, 0.1, 0.5, 10.0)
    assert dict(RATES)[CLOUD.rate] == dict(SIZES)[CLOUD.spike_ms] == "cloud"


# --- the command, and the bus -------------------------------------------------------------------------------


def shoal(*args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "shoal", "experiment", "latency", *args],
        env=environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_command_prints_a_line_per_figure_and_writes_its_report(tmp_path: Path) -> None:
    done = shoal("--seeds", "2", "--minutes", "1", "--json", "--out", str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    found = {one["figure"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert found["edge over cloud, nothing added"]["value"] == 0 and found["edge over cloud, nothing added"]["holds"]
    main = found["edge over cloud, 10 % of 300 ms"]
    assert main["low"] <= main["value"] <= main["high"]
    assert {"40 % reached, by share of spikes of 300 ms", "40 % reached, by size of 10 % spikes"} <= found.keys()
    page = (tmp_path / "new" / "latency.html").read_text()
    assert "Simulated: 2 seeds of 1 min" in page and "the source's 40 %" in page


def test_a_place_that_cannot_be_written_to_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = shoal("--out", str(tmp_path / "file" / "below"))
    assert done.returncode == 2
    assert "name a directory that can be written" in done.stderr and "Traceback" not in done.stderr


async def test_over_a_broker_every_step_goes_as_simulated_and_no_action_counts_too_early(broker: Broker) -> None:
    floor, took_s = await run(broker, seconds=24.0, cells=2, pace_s=0.0)
    for pair in floor.pairs:
        assert (pair.cells.passed > 3).all()
        for half, arm in ((half, arm) for half in range(2) for arm in range(2)):
            counted = [(action, tick) for h, a, action, tick in pair.counted if (h, a) == (half, arm)]
            assert [action for action, _ in counted] == list(range(len(counted)))
            assert all(tick == pair.due[half, action, arm] for action, tick in counted)
    found = {one["figure"]: one for one in figures(floor, seconds=24.0, took_s=took_s)}
    assert found["edge: missed steps over the bus"]["value"] == 0
    assert found["cloud: missed steps over the bus"]["value"] > 0
    assert all(found[f"{half}: steps that went as simulated"]["value"] == 100 for half in HALVES)


def test_streams_of_cells_that_differ_are_joined_without_touching_them() -> None:
    short, long = products_of(SPEC, 1, 30.0), products_of(replace(SPEC, belt=0.2), 1, 30.0)
    joined = Stream.joined([short, long])
    assert (joined.gaps[0, : short.gaps.shape[1]] == short.gaps[0]).all()
    assert (joined.gaps[1] == long.gaps[0]).all() and (joined.ticks[1] == long.ticks[0]).all()
