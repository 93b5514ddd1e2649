"""The report opens in a real browser without a network: three figures are drawn and nothing complains."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cloud.scheduling import Goal, Result
from cloud.scheduling.compare import compare
from cloud.scheduling.explain import explain
from cloud.scheduling.seam import KEY, judged
from messages.curve import Curve
from messages.judge import violations
from messages.plan import Assignment, Measure, Plan
from messages.problem import Job, Machine, Operation, Power, Problem, Transport, Window
from shoal.compare import figures as both
from shoal.compare import told as compared
from shoal.report import Section, write_report
from shoal.schedule_explain import told
from shoal.schedule_figures import pareto_figure
from shoal.schedule_run import Found
from shoal.schedule_show import gantt, plan_figures, report, summary
from shoal.schedule_table import front_section

MEASURES: tuple[Measure, ...] = ("makespan", "energy", "carbon")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: sudo apt-get install chromium")


def shop() -> Problem:
    """A mill with set-ups and a night, a kiln that fires two at once, carbon, tariff and sun."""
    mill = Machine(
        id="mill",
        preheat=1,
        power_kw=Power(work=40, idle=5, preheat=30, setup=10),
        setup={"red": {"blue": 2}, "blue": {"red": 2}},
        unavailable=(Window(start=16, end=24),),
    )
    kiln = Machine(id="kiln", preheat=4, batch=2, power_kw=Power(work=300, idle=120, preheat=250))
    jobs = tuple(
        Job(
            id=name,
            due=due,
            operations=(
                Operation(op=0, alternatives={"mill": ticks}, family=family),
                Operation(op=1, alternatives={"kiln": 8}),
            ),
        )
        for name, due, ticks, family in (("A", 18, 4, "red"), ("B</script>", 20, 5, "blue"), ("C", 30, 4, "red"))
    )
    day = {"electricity": Curve(step=4, values=(0.3, 0.2, 0.1, 0.15, 0.4, 0.35), periodic=True)}
    return Problem(
        name="kiln & mill",
        time_unit="h",
        tick_s=1800,
        machines=(mill, kiln),
        jobs=jobs,
        transport=Transport(ticks={"mill": {"kiln": 1}}, power_kw=5),
        carbon=day,
        tariff=day,
        generation={"electricity": Curve(step=8, values=(0, 60, 0), periodic=True)},
        limits={"makespan": 100},
    )


def plans(problem: Problem) -> list[Plan]:
    """One with a batch of two, one that fires each alone, one that waits for the sun."""
    found, ends = [], (4, 5, 4)
    for mill, kiln in (((0, 6, 26), (12, 12, 31)), ((0, 6, 26), (5, 13, 31)), ((0, 6, 26), (14, 30, 38))):
        work = [(job.id, 0, "mill", at, at + k) for job, at, k in zip(problem.jobs, mill, ends, strict=True)]
        work += [(job.id, 1, "kiln", at, at + 8) for job, at in zip(problem.jobs, kiln, strict=True)]
        new = [Assignment(job=j, op=o, machine=m, start=a, end=b) for j, o, m, a, b in work]
        plan = judged(problem, new, solver="by hand")
        assert violations(problem, plan) == []
        found.append(plan)
    return found


def page(tmp_path: Path) -> Path:
    problem = shop()
    front = plans(problem)
    trail: dict[Measure, dict[str, list[tuple[float, float]]]] = {
        name: {"best so far": [(0.1, 40.0), (0.7, 30.0)], "bound": [(0.2, 10.0), (0.8, 30.0)]} for name in MEASURES
    }
    best = front[0]
    result = Result(tuple(front), best.objectives, None, "feasible", 1.0)
    found = Found(result, Goal(MEASURES, front=True), trail)
    why = explain(problem, best)
    path = tmp_path / "report.html"
    rows = summary(problem, result, best, MEASURES)
    report(path, problem, best, plan_figures(problem, found, best, MEASURES, why), rows, told(problem, why, None))
    return path


def opened(path: Path, tmp_path: Path) -> tuple[str, str]:
    """(the page after its scripts ran, what the browser's console said). No network."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@needs_browser
def test_the_report_draws_three_figures_and_nothing_complains(tmp_path: Path) -> None:
    dom, console = opened(page(tmp_path), tmp_path)
    assert console == ""
    drawn = re.findall(r'<text[^>]* class="gtitle"[^>]*>([^<]*)', dom)
    assert [title.split(":")[0].split(";")[0] for title in drawn] == ["Plan", "Pareto front", "Convergence"]
    for text in ("set-up", "Bottleneck", "critical path", "Late orders", "kg CO2e/kWh", "transport", "generation (kW)"):
        assert text in dom
    assert "B</script>" not in re.sub(r"(?s)<script.*?</script>", "", dom)


@needs_browser
def test_a_comparison_draws_both_plans_and_nothing_complains(tmp_path: Path) -> None:
    problem = shop()
    first, second, _ = plans(problem)
    found = compare(problem, first, second)
    path = tmp_path / "both.html"
    report(path, problem, second, both(problem, first, second, found), (), compared(problem, found))
    dom, console = opened(path, tmp_path)
    assert console == ""
    assert len(re.findall(r'class="gtitle"', dom)) == 3
    assert "Nervousness" in dom and "What moved" in dom


@needs_browser
def test_the_browser_would_have_complained(tmp_path: Path) -> None:
    """The check above can fail: a page with a broken script is noticed."""
    path = tmp_path / "broken.html"
    path.write_text("<!doctype html><script>nothing.here()</script>")
    assert "nothing is not defined" in opened(path, tmp_path)[1]


def test_batches_share_a_row_and_the_framed_operations_are_the_critical_ones() -> None:
    problem = shop()
    best = plans(problem)[0]
    why = explain(problem, best)
    found = Found(Result((best,), best.objectives), Goal(("makespan",)))
    gantt = plan_figures(problem, found, best, ("makespan",), why)[0]
    work = next(trace for trace in gantt.data if trace.name == "planned")
    widths = dict(zip(zip(work.text, work.base, strict=True), work.width, strict=True))
    assert widths["A", 6.0] == pytest.approx(widths["C", 15.5] / 2)
    framed = {text for text, line in zip(work.text, work.marker.line.color, strict=True) if line == "#111"}
    assert framed == {html.escape(one.job) for one in why.critical if one.kind == "work"}


def test_the_gantt_goes_from_the_first_preheating_to_the_horizon_and_shows_closed_times() -> None:
    problem = shop()
    plan = plans(problem)[0]
    drawn = gantt(problem, plan, ("makespan",), None)
    begin, end = drawn.layout.xaxis.range
    first = problem.in_unit(min(one.start for one in plan.machine_states))
    last = problem.in_unit(max(one.end for one in plan.assignments))
    assert first < 0 and begin < first and last < end < last + 1
    closed = next(trace for trace in drawn.data if trace.name == "closed")
    assert list(closed.base) == [problem.in_unit(16)] and list(closed.x) == [problem.in_unit(8)]
    late = Problem.model_validate({**dict(problem), "horizon": 96})
    begin, end = gantt(late, plan, ("makespan",), None).layout.xaxis.range
    assert end >= late.in_unit(96)


@needs_browser
def test_a_front_of_four_measures_is_one_line_per_plan_and_the_one_taken_stands_out(tmp_path: Path) -> None:
    problem = shop()
    front = plans(problem)
    measures: tuple[Measure, ...] = ("makespan", "energy", "carbon", "cost")
    figure = pareto_figure(problem, front, front[1], measures)
    assert [len(trace.x) for trace in figure.data] == [4, 4, 4]
    assert figure.data[-1].name == "taken" and figure.data[-1].line.width > figure.data[0].line.width
    assert all(0 <= y <= 1 for trace in figure.data for y in trace.y)
    path = tmp_path / "four.html"
    section = front_section(problem, front, measures, front[1], proved=False)
    report(path, problem, front[1], [figure], (), [section])
    dom, console = opened(path, tmp_path)
    assert console == ""
    assert "3 plans; 2 is taken" in dom and "cost" in dom and "◀ taken" in dom


def test_the_front_of_three_shows_every_pair_and_units_stand_at_the_axes() -> None:
    problem = shop()
    front = plans(problem)
    found = Found(Result(tuple(front), front[0].objectives), Goal(MEASURES, front=True))
    pareto = plan_figures(problem, found, front[0], MEASURES, None)[1]
    titles = {pareto.layout[f"xaxis{k}"].title.text for k in ("", 2, 3)}
    assert titles == {"makespan (h)", "energy (kWh)"}
    first = pareto.data[0]
    assert list(first.x) == sorted(problem.in_unit(one.objectives[KEY["makespan"]]) for one in front)


def test_a_long_section_is_cut_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "long.html"
    rows = [("a", "b"), *((str(k), "<&>") for k in range(1_500))]
    write_report(path, title="t", figures=(), sections=[Section("much", ["<one>"], rows)])
    text = path.read_text()
    assert "… and 500 more" in text and "&lt;one&gt;" in text and "<&>" not in text
