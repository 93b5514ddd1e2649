"""Every solve ends soon after it is told to, joins what it started, and leaves the process in peace."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from shops import Impatience

from cloud.scheduling import Budget, CpSat, Exchange, Goal, Portfolio, Shift, front
from cloud.scheduling.cpmodel import Model, TooLarge
from cloud.scheduling.cpsat import Search
from cloud.scheduling.gridbound import grid_bound
from cloud.scheduling.linear import Program, solve
from cloud.scheduling.lns import Lns
from cloud.scheduling.seam import Strategy
from cloud.scheduling.shop import shop_of
from messages.curve import Curve
from messages.instances import load_problem
from messages.judge import violations
from messages.plan import Measure

REPO = Path(__file__).parent.parent
CERAMIC = load_problem(REPO / "examples" / "ceramic.json")
HOURLY = CERAMIC.model_copy(
    update={"horizon": 96, "carbon": {"electricity": Curve(step=2, values=(0.3, 0.5, 0.4), periodic=True)}}
)
LONG_S = 3600.0
"""No run here lasts so long: each is stopped, and the limit of pytest ends one that does not hear it."""


def ours() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith(("front-", "lane-", "shift", "stop-cpsat"))}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("looks", [5, 60, 150])
@pytest.mark.parametrize("solver", [CpSat(), Shift(), Lns(), Portfolio()])
def test_whatever_look_it_is_told_at_a_solver_ends_with_a_plan_and_without_threads(
    solver: Strategy, looks: int
) -> None:
    goal = Goal(("carbon",))
    run = Exchange(HOURLY, goal, Budget(LONG_S, workers=2), stop=Impatience(looks))
    result = solver.solve(HOURLY, seed=1, exchange=run)
    assert ours() == set()
    assert result.plans or result.reason
    for plan in result.plans:
        assert violations(HOURLY, plan) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("looks", [5, 60, 150])
def test_a_front_of_four_measures_is_not_begun_again_for_each_pair_when_time_is_over(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[bool] = []
    prepare = Search.prepare

    def counted(search: Search) -> None:
        prepared.append(search.exchange.over)
        prepare(search)

    monkeypatch.setattr(Search, "prepare", counted)
    measures: tuple[Measure, ...] = ("makespan", "energy", "carbon", "peak")
    run = Exchange(HOURLY, Goal(measures, front=True), Budget(LONG_S, workers=2), stop=Impatience(looks))
    result = front(HOURLY, measures=measures, seed=1, exchange=run)
    assert sum(prepared) <= 2  # the first pair's, where it was told before the first plan
    assert ours() == set()
    assert result.plans
    assert "no time was left for the front of" in result.reason
    assert result.status == "feasible"


def test_a_model_is_given_up_at_any_look_there_is() -> None:
    """All looks are passed once, counted; then a model is stopped at each of some of them."""
    run = Exchange(HOURLY, Goal(("carbon",)), Budget(LONG_S))
    search = Search(CpSat(), HOURLY, run, 1)
    search.prepare()
    looks: list[int] = []

    def made(stop_at: float) -> Model:
        looks.clear()
        return Model(
            HOURLY,
            search.shop,
            search.names,
            horizon=96,
            sunk=search.sunk,
            measures={"carbon"},
            over=lambda: looks.append(1) or len(looks) > stop_at,  # type: ignore[func-returns-value]
        )

    made(float("inf"))
    count = len(looks)
    assert count > 100  # some ms apart: a model of this size takes a fraction of a second
    for stop_at in (0, count // 3, 2 * count // 3, count - 1):
        with pytest.raises(TooLarge, match="time was over"):
            made(stop_at)


def test_a_linear_program_is_solved_in_a_process_of_its_own() -> None:
    program = Program()
    x, y = program.variable(2.0), program.variable(1.0, -5.0, 5.0)
    program.row([(1.0, x), (0.5, y), (0.5, y)], 0.5, float("inf"))
    program.row([(1.0, y)], float("-inf"), 0.25)
    value, reason = solve(program, seconds=60, over=lambda: False)
    assert (value, reason) == (pytest.approx(0.75), "")
    program.row([(1.0, x)], 2.0, 3.0)
    assert solve(program, seconds=60, over=lambda: False) == (None, "the linear program was not solved: infeasible")


def test_files_beside_the_linear_program_are_no_modules_of_its_process(tmp_path: Path) -> None:
    beside = tmp_path / "linear.py"
    beside.write_text((REPO / "cloud" / "scheduling" / "linear.py").read_text())
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of ours with that name')")
    asked = "from linear import *; p = Program(); p.variable(1.0, 2.0, 3.0); print(solve(p, seconds=60, over=bool))"
    code = f"import numpy, sys; sys.path.append({str(tmp_path)!r}); {asked}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert told.stdout.strip() == "(2.0, '')", told.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("looks", [0, 10, 40])
def test_a_bound_is_given_up_at_the_look_that_says_so(looks: int) -> None:
    shop, _ = shop_of(HOURLY)
    impatience = Impatience(looks)
    found = grid_bound(shop, {"carbon": 1.0}, latest=96, seconds=LONG_S, over=impatience.is_set)
    assert found.value is None
    assert "there was no time" in found.reason
    assert impatience.looks == -1  # nobody looked again


def test_a_bound_that_cannot_be_had_in_the_time_is_not_begun() -> None:
    shop, _ = shop_of(HOURLY)
    looks: list[int] = []
    found = grid_bound(shop, {"carbon": 1.0}, latest=96, seconds=0.01, over=lambda: bool(looks.append(1)))  # type: ignore[func-returns-value]
    assert found.value is None
    assert "too few" in found.reason
    assert not looks


LEFT_ALONE = """
import sys, threading
from ortools.sat.python import cp_model
from cloud.scheduling import Budget, Exchange, Goal
from cloud.scheduling.lns import Lns
from messages.instances import load_problem
problem = load_problem(sys.argv[1])
calls = threading.Semaphore(0)
class Told(cp_model.CpSolver):
    def solve(self, *args):
        calls.release()
        return super().solve(*args)
cp_model.CpSolver = Told
run = Exchange(problem, Goal(("energy",)), Budget(3600, workers=1))
threading.Thread(target=lambda: Lns(slice_s=0.1).solve(problem, seed=1, exchange=run), daemon=True).start()
for _ in range(4):
    calls.acquire()
"""


@pytest.mark.timeout(600)
def test_a_process_that_ends_in_the_middle_of_a_search_of_a_daemon_thread_ends_in_peace() -> None:
    command = [sys.executable, "-c", LEFT_ALONE, str(REPO / "examples" / "ceramic.json")]
    for _ in range(2):
        ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
