"""Learning together against alone: arms that differ in nothing but how they learn, a test that was stated before."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from conftest import eventually
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.adaptation import adapted
from edge.learner import learn
from edge.learning import LearnerSettings, LearningSettings
from firmware_sim.cell import DAY
from messages.cells import NETWORK
from shoal.__main__ import main
from shoal.experiments.arms import ARMS, DEFAULT, RIVALS, Arena, Case, Course, Pace
from shoal.experiments.federation import CASES, FIGURES, REPORT, Found
from shoal.experiments.fleet import Member, settled
from shoal.experiments.inferiority import holm, judged, lower_bound, quantile, relative, upper_tail
from shoal.experiments.trials import Done, _line, all_of, mark_of, run

ROOT = Path(__file__).resolve().parent.parent
PACE = Pace(
    cells=2,
    rounds=2,
    days=2,
    steps=20,
    tuned_steps=4,
    adapt_steps=10,
    adapt_half=192,
    judged_days=1,
    looks=1,
    new_days=2,
    learner=LearnerSettings(scale=20.0, remembered=1_000),
)
QUICK = replace(PACE, rounds=1, days=1, steps=2, tuned_steps=1, adapt_steps=1, new_days=1)
CASE = Case(seed=1_234, heterogeneity=0.3)


class Seen:
    """An arena that keeps the members it judged, and what they were judged by."""

    def __init__(self, pace: Pace = PACE, case: Case = CASE) -> None:
        self.arena = Arena(case, pace)
        self.members: list[Member] = []
        look = self.arena.look

        def kept(course: Course, number: int, members: list[Member], learner: Callable[[Member], object]) -> None:
            self.members = list(members)
            look(course, number, members, learner)  # type: ignore[arg-type]

        self.arena.look = kept  # type: ignore[method-assign, assignment]


WAYS: dict[str, Callable[[Arena], object]] = {
    "local": Arena.local,
    "fedavg": Arena.fedavg,
    "body": lambda arena: arena.shared(whole=False),
    "adapted": lambda arena: arena.shared(whole=True),
    "pooled": Arena.pooled,
}


# --- arms ---------------------------------------------------------------------------------------------


def test_what_befalls_a_cell_and_what_it_tries_are_the_same_in_every_arm() -> None:
    after = []
    for arm in WAYS:
        seen = Seen()
        WAYS[arm](seen.arena)
        after.append(
            [(one.cell.chance, one.cell.rng.bit_generator.state, one.explores.random()) for one in seen.members]
        )
    assert all(one == after[0] for one in after[1:])
    assert after[0][0] != after[0][1], "and another one for every cell"


def test_every_arm_takes_the_steps_it_is_said_to_take() -> None:
    counts = {}
    for arm in WAYS:
        seen = Seen()
        WAYS[arm](seen.arena)
        counts[arm] = {one.learner.steps for one in seen.members}
        assert all(one.learner.memory.count == 2 * 2 * DAY * (2 if arm == "pooled" else 1) for one in seen.members)
    assert counts == {arm: {2 * 20} for arm in WAYS} | {"pooled": {2 * 2 * 20}}


def test_the_same_case_comes_to_the_same_to_the_last_digit_and_another_seed_to_something_else() -> None:
    one, again, other = run(CASE, PACE), run(CASE, PACE), run(replace(CASE, seed=1_235), PACE)
    assert (one.arms, one.new) == (again.arms, again.new)
    assert tuple(one.arms) == ARMS and all(len(course.cells) == 2 for course in one.arms.values())
    assert all(one.arms[arm].cells != other.arms[arm].cells for arm in ARMS)
    assert set(one.new) == {"scratch", DEFAULT} and all(len(days) == 2 for days in one.new.values())


def test_a_cell_decides_by_what_the_product_makes_of_a_version_and_what_the_member_knows_stays() -> None:
    arena = Arena(CASE, PACE)
    one = arena.member(0)
    arena.day(one)
    for _ in range(30):
        learn(one.learner, one.learns)
    before = one.learner.theta.copy()
    base = np.random.default_rng(3).normal(0, 0.1, NETWORK.size).astype(np.float32)
    body = base[: NETWORK.shared]
    assert (
        one.adapted(base, steps=10, half=50).theta == adapted(one.learner, base, one.apart, steps=10, half=50)
    ).all()
    assert (one.adapted(body, steps=0).theta == np.concatenate((body, before[len(body) :]))).all(), "its own head"
    assert (one.adapted(base, steps=0).theta == base).all() and (one.tuned(base, 0).theta == base).all()
    assert (one.tuned(base, 4).theta[: NETWORK.shared] != body).any()
    assert (one.learner.theta == before).all() and one.learner.steps == 30


def test_the_experiment_adapts_as_nodes_do_unless_it_is_told_otherwise() -> None:
    fields = LearningSettings.model_fields
    assert (Pace().adapt_steps, Pace().adapt_half) == (fields["adapt_steps"].default, fields["adapt_half"].default)


def test_who_settled_decides_by_the_running_mean() -> None:
    arena = Arena(CASE, PACE)
    one = arena.member(0)
    arena.day(one)
    for _ in range(5):
        learn(one.learner, one.learns)
    apart = settled(one.copy())
    assert (apart.theta == one.learner.target).all() and (one.learner.theta != one.learner.target).any()


def test_judging_takes_nothing_from_what_comes_after() -> None:
    often, once = Seen(replace(PACE, looks=2)), Seen()
    many, one = often.arena.shared(whole=True)[0], once.arena.shared(whole=True)[0]
    assert many.cells == one.cells and many.rounds == [1, 2] and one.rounds == [2]
    for a, b in zip(often.members, once.members, strict=True):
        assert a.learner.theta.tobytes() == b.learner.theta.tobytes()


@given(st.integers(1, 40), st.integers(1, 40))
def test_arms_are_looked_at_so_often_and_always_at_the_end(rounds: int, looks: int) -> None:
    pace = Pace(rounds=rounds, looks=looks)
    seen = [number for number in range(1, rounds + 1) if pace.looked_at(number)]
    assert seen[-1] == rounds and len(seen) == min(rounds, looks)


@given(st.integers(1, 9), st.integers(0, 500))
def test_all_steps_of_a_round_are_done_when_its_last_day_ends(days: int, steps: int) -> None:
    arena = Arena(CASE, Pace(days=days))
    assert sum(arena.portion(day, steps) for day in range(days)) == steps


# --- the test -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "share", "t"),
    [
        (1, 0.95, 6.314),
        (2, 0.99, 6.965),
        (5, 0.975, 2.571),
        (19, 0.95, 1.729),
        (19, 0.99375, 2.759),
        (120, 0.95, 1.658),
    ],
)
def test_students_t_is_the_one_of_the_tables(freedom: int, share: float, t: float) -> None:
    assert quantile(share, freedom) == pytest.approx(t, abs=6e-4)
    assert upper_tail(quantile(share, freedom), freedom) == pytest.approx(1 - share, rel=1e-9)
    assert upper_tail(-t, freedom) == pytest.approx(share, abs=1e-4) and upper_tail(0.0, freedom) == 0.5


def test_holms_levels_and_that_nothing_holds_after_the_first_that_fails() -> None:
    levels, holds = holm([0.03, 0.005, 0.02, 0.9], 0.05)
    assert levels == pytest.approx([0.025, 0.0125, 0.05 / 3, 0.05])
    assert holds == [False, True, False, False]
    assert holm([0.001, 0.016, 0.024, 0.04], 0.05)[1] == [True] * 4
    assert holm([0.022, 0.02, 0.9], 0.05)[1] == [False] * 3, "0.022 is below its own level of 0.025, and comes too late"


def test_a_difference_is_relative_to_the_mean_of_all_seeds_also_below_zero() -> None:
    assert relative(np.array([9.0, 22.0]), np.array([10.0, 20.0])) == pytest.approx([-1 / 15, 2 / 15])
    assert relative(np.array([-11.0, -19.0]), np.array([-10.0, -20.0])) == pytest.approx([-1 / 15, 1 / 15])


def rows_of(better: float, *, noise: float = 0.02, seeds: int = 20) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(5)
    theirs = 2_000 * (1 + 0.2 * rng.standard_normal(seeds))  # seeds differ by far more than arms do
    other = 0.6 * theirs
    return {"best": theirs, "poor": other}, theirs * (1 + better) + 2_000 * noise * rng.standard_normal(seeds)


def test_not_inferior_is_who_is_surely_within_the_margin_of_every_rival() -> None:
    found = {row.name: row for row in judged({"as good": rows_of(0.0), "worse": rows_of(-0.1)}, margin=0.05)}
    assert found["as good"].holds and found["as good"].best == "best" and found["as good"].lower > -0.05
    assert not found["worse"].holds and found["worse"].to("poor").difference > 0
    assert found["worse"].lower < found["worse"].to("best").difference == pytest.approx(-0.1, abs=0.02)
    assert not judged({"too noisy": rows_of(0.0, noise=0.5)}, margin=0.05)[0].holds
    assert not judged({"better?": rows_of(0.0)}, margin=0.0)[0].holds, "with no margin: is it better"
    assert judged({"better": rows_of(0.05)}, margin=0.0)[0].holds


@settings(max_examples=50)
@given(st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=30), st.floats(0.001, 0.2))
def test_a_bound_and_a_p_say_the_same(d: list[float], level: float) -> None:
    theirs = np.ones(len(d))
    row = judged({"one": ({"rival": theirs}, theirs + np.array(d))}, margin=0.05, alpha=level)[0]
    bound = lower_bound(np.array(d), level)
    if abs(bound + 0.05) > 1e-9:
        assert row.holds == (bound > -0.05)


def test_a_single_seed_says_nothing() -> None:
    row = judged({"one": ({"rival": np.array([1.0])}, np.array([2.0]))}, margin=0.05)[0]
    assert not row.holds and row.p == 1.0


# --- cases, command, report ---------------------------------------------------------------------------


def test_a_run_that_was_cut_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    path, cases = tmp_path / CASES, [Case(seed, 0.3) for seed in (1, 2)]
    whole = {one.case: one.arms for one in all_of(cases, QUICK, path, jobs=2)}
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[: len(second) // 2])
    again = list(all_of(cases, QUICK, path, jobs=1))
    assert {one.case: one.arms for one in again} == whole
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["pace"] for line in lines] == [mark_of(QUICK)] * 2
    assert json.loads(first) == lines[0] and again[0].cpu_s == lines[0]["cpu_s"], "it was not run again"
    assert mark_of(replace(QUICK, steps=21)) != mark_of(QUICK), "and of another pace nothing is taken over"


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def shoal(*args: str) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["shoal", "experiment", "federation", *args])
        patch.setenv("COLUMNS", "200")
        patch.setenv("TERM", "dumb")
        with pytest.raises(SystemExit) as ended:
            main()
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def course(level: float, rng: np.random.Generator) -> Course:
    cells = [level + float(rng.normal(0, 5)) for _ in range(2)]
    return Course([1, 3], [level / 2, level], cells, cells, [200.0, 200.0])


def made(folder: Path, levels: dict[str, float], seeds: int = 20) -> list[str]:
    """Cases as if they had been run, at the pace that these arguments ask for."""
    folder.mkdir()
    mark = mark_of(Pace(cells=2, rounds=3))
    with (folder / CASES).open("w") as lines:
        for seed in range(seeds):
            for degree in (0.0, 1.5):
                rng = np.random.default_rng((seed, round(10 * degree)))
                arms = {arm: course(levels[arm], rng) for arm in ARMS}
                new = {how: [levels[how] + float(rng.normal(0, 5))] for how in ("scratch", DEFAULT)}
                lines.write(_line(Done(Case(seed, degree), arms, new, 1.0), mark))
    degrees = ("--heterogeneity", "1.5", "--heterogeneity", "0")
    return ["--seeds", str(seeds), *degrees, "--cells", "2", "--rounds", "3", "--out", str(folder)]


LEVELS = dict.fromkeys(ARMS, 1_000.0) | {"adapted": 1_010.0, "scratch": 500.0, "pooled": 3_000.0}


def test_the_command_says_every_row_and_writes_figures_and_a_report_that_needs_no_network(tmp_path: Path) -> None:
    for level, verdict in ((1_010.0, "not inferior"), (900.0, "not shown not inferior")):
        run = tmp_path / verdict
        ended = shoal(*made(run, LEVELS | {"adapted": level}))
        assert ended.code == 0, ended.err
        rows = [line.strip().split("  ") for line in ended.out.splitlines() if "%" in line and ", " in line]
        verdicts = [(row[0], row[-1].strip()) for row in rows if row[0].startswith(("mean", "worst", "new"))]
        names = [f"{what}, {degree}" for degree in ("0", "1.5") for what in ("mean", "worst")]
        new = [(f"new cell, {degree}", "better") for degree in ("0", "1.5")]
        assert verdicts == [*((name, verdict) for name in names), *new]
        figures = [json.loads(line) for line in (run / FIGURES).read_text().splitlines()]
        assert all(set(one) == {"figure", "value", "unit", "target", "holds", "note"} for one in figures)
        bounds = {one["figure"].partition(", ")[2]: one for one in figures if one["figure"].startswith("lower bound")}
        assert len(bounds) == 4 + 2
        assert bounds["shared, adapted, mean, 1.5"]["holds"] == (level > 1_000)
        assert bounds["shared, adapted, new cell, 0"]["holds"]
    page = (tmp_path / "not inferior" / REPORT).read_text()
    assert "Plotly.newPlot" in page and 'src="http' not in page and "shared, adapted" in page


def test_for_programs_it_prints_the_same_figures_and_nothing_else(tmp_path: Path) -> None:
    ended = shoal(*made(tmp_path / "run", LEVELS, seeds=3), "--json")
    assert ended.code == 0
    assert ended.out == (tmp_path / "run" / FIGURES).read_text()


def test_a_quick_look_is_two_small_cells_twice(tmp_path: Path) -> None:
    made(tmp_path / "run", LEVELS, seeds=2)
    before = (tmp_path / "run" / CASES).read_bytes()
    ended = shoal("--quick", "--out", str(tmp_path / "run"))
    assert ended.code == 0 and "(2 seeds" in ended.out
    assert (tmp_path / "run" / CASES).read_bytes() == before, "all that it asks for was there"


def test_the_pooled_arm_is_told_and_not_compared_with() -> None:
    rng = np.random.default_rng(1)
    done = [
        Done(Case(seed, 0.0), {arm: course(LEVELS[arm], rng) for arm in ARMS}, {h: [1.0] for h in LEVELS}, 0.0)
        for seed in range(4)
    ]
    found = Found(done, [0.0])
    assert {one.rival for row in found.claims for one in row.against} == set(RIVALS)
    assert found.returns(0.0, "pooled", "mean").mean() == pytest.approx(3_000, rel=0.01)


def test_wrong_usage_is_told_with_its_cure(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    ended = shoal("--seeds", "2", "--out", str(file))
    assert ended.code == 2 and "name a folder" in ended.err and "Traceback" not in ended.err
    assert shoal("--seeds", "1").code == 2 and shoal("--heterogeneity", "-1").code == 2


async def test_workers_of_a_run_that_was_killed_end_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shoal", "experiment", "federation", "--seeds", "2", "--jobs", "2"]
    running = await asyncio.create_subprocess_exec(*command, "--out", str(tmp_path), stderr=DEVNULL, cwd=ROOT)
    me = psutil.Process(running.pid)

    def at_work() -> list[psutil.Process]:
        found = [one for one in me.children() if "spawn_main" in " ".join(one.cmdline())]
        return found if len(found) == 2 and all(one.cpu_times().user > 1 for one in found) else []

    try:
        workers = await eventually(at_work)
    finally:
        running.kill()
        await running.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    for one in alive:
        one.kill()
    assert not alive
