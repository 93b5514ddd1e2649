"""`shoal schedule FILE`: plan a problem file for time and energy, and write the plan, its front and a report.

Exit codes: 0 done (also when Ctrl-C ended the search: the best so far counts), 1 no plan was found, 2 wrong usage.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from messages.errors import ShoalError, UsageError
from messages.instances import load_problem, objectives_in_unit, plan_document
from messages.judge import objective, violations
from messages.plan import Plan
from messages.problem import Problem

if TYPE_CHECKING:  # ortools takes a moment: it is loaded when a problem was read
    from cloud.scheduling import Event, Result
    from messages.problem import Measure

RULES = ("fifo", "spt", "lpt", "mwkr", "lwkr", "edd")
SOLVERS = ("cpsat", *RULES)
MEASURES = ("makespan", "energy", "tardiness")
LOOK_S = 0.1


def schedule(
    file: Annotated[Path, typer.Argument(help="problem in JSON, or an .fjs instance", metavar="FILE")],
    objectives: Annotated[
        str, typer.Option(help="one or several of makespan,energy,tardiness; several give a front")
    ] = "makespan",
    budget: Annotated[str, typer.Option(help="seconds to search", metavar="SECONDS")] = "10",
    workers: Annotated[int, typer.Option(help="threads", min=1, max=64)] = 2,
    seed: Annotated[int, typer.Option(help="of the search", min=0)] = 1,
    solver: Annotated[str, typer.Option(help=f"one of {', '.join(SOLVERS)}")] = "cpsat",
    out: Annotated[Path | None, typer.Option(help="write the plan here (JSON)")] = None,
    front: Annotated[Path | None, typer.Option(help="write the list of plans here (JSON)")] = None,
    report: Annotated[Path | None, typer.Option(help="write Gantt, front and convergence here (HTML)")] = None,
    weights: Annotated[
        str | None, typer.Option(help="choose from the front by weights: makespan=0.7,energy=0.3 or 0.7,0.3")
    ] = None,
    lex: Annotated[
        bool, typer.Option("--lex", help="choose by the order of --objectives: the first counts most")
    ] = False,
) -> None:
    """Plan a problem: fast, provably, and with the energy it takes."""
    console = Console(stderr=True)
    try:
        for path in (out, front, report):
            _check_writable(path)
        wanted = _Wanted.read(objectives, budget, workers, seed, solver, weights, lex, many=bool(front or report))
        problem = load_problem(file)
        wanted.check(problem, file)
        code = _run(problem, wanted, console, out=out, front=front, report=report)
    except UsageError as error:
        console.print(f"shoal: {_plain(error)}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from None
    except ShoalError as error:
        console.print(f"shoal: {_plain(error)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True)
class _Wanted:
    """The options, read and checked."""

    measures: tuple[Measure, ...]
    budget_s: float
    workers: int
    seed: int
    solver: str
    weights: dict[Measure, float] | None
    lex: bool
    many: bool

    @classmethod
    def read(
        cls,
        objectives: str,
        budget: str,
        workers: int,
        seed: int,
        solver: str,
        weights: str | None,
        lex: bool,
        *,
        many: bool,
    ) -> _Wanted:
        if solver not in SOLVERS:
            raise UsageError(f"--solver {solver}: unknown; use one of {', '.join(SOLVERS)}")
        measures = _measures(objectives)
        if lex and weights is not None:
            raise UsageError("--lex and --weights: choose by one of them")
        if weights is not None and len(measures) < 2:
            raise UsageError("--weights: they choose from a front; give several --objectives")
        return cls(
            measures,
            _seconds(budget),
            workers,
            seed,
            solver,
            None if weights is None else _weights(weights, measures),
            lex,
            many,
        )

    def check(self, problem: Problem, file: Path) -> None:
        """Whether the file says enough for the objectives."""
        if "tardiness" in self.measures and problem.jobs and all(job.due is None for job in problem.jobs):
            raise UsageError(f"{file}: no job has a due date, so there is no tardiness; add `due` or leave it out")
        powered = any(any(machine.power_kw.model_dump().values()) for machine in problem.machines)
        powered = powered or any(any(step.work_kw.values()) for step in problem.operation.values())
        if "energy" in self.measures and problem.jobs and not powered:
            raise UsageError(f"{file}: no machine has a power, so there is no energy; add powers or leave it out")


def _measures(text: str) -> tuple[Measure, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MEASURES:
            raise UsageError(f"--objectives {name or '(nothing)'}: not available; there are {', '.join(MEASURES)}")
    if len(set(names)) != len(names):
        raise UsageError("--objectives: each one once")
    return tuple(names)  # type: ignore[arg-type]


def _seconds(text: str) -> float:
    try:
        value = float(text.strip().removesuffix("s"))
    except ValueError:
        raise UsageError(f"--budget {text}: give seconds, such as 10") from None
    if not (math.isfinite(value) and 0 < value <= 1e6):
        raise UsageError(f"--budget {text}: give more than 0 and at most 1000000 seconds")
    return value


def _weights(text: str, measures: tuple[Measure, ...]) -> dict[Measure, float]:
    parts = [part.strip() for part in text.split(",")]
    named = ["=" in part for part in parts]
    try:
        if all(named):
            pairs = [(part.split("=", 1)[0].strip(), float(part.split("=", 1)[1])) for part in parts]
        elif not any(named) and len(parts) == len(measures):
            pairs = [(name, float(part)) for name, part in zip(measures, parts, strict=True)]
        else:
            raise ValueError
    except ValueError:
        example = ",".join(f"{name}=1" for name in measures)
        raise UsageError(f"--weights {text}: give one number per objective, such as {example}") from None
    found: dict[Measure, float] = {}
    for name, value in pairs:
        if name not in measures:
            raise UsageError(f"--weights {name}: not among --objectives {','.join(measures)}")
        if not (math.isfinite(value) and value >= 0) or name in found:
            raise UsageError(f"--weights {text}: every weight is a number from 0 on, each objective once")
        found[name] = value
    if not any(found.values()):
        raise UsageError(f"--weights {text}: one of them must be more than 0")
    return found


def _check_writable(path: Path | None) -> None:
    """Before searching: a result that cannot be written is a search for nothing."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist; create {path.absolute().parent}")


def _plain(error: Exception) -> str:
    return str(error).replace("[", r"\[")


# --- running ----------------------------------------------------------------------------------------


def _run(
    problem: Problem, wanted: _Wanted, console: Console, *, out: Path | None, front: Path | None, report: Path | None
) -> int:
    result = _searched(problem, wanted, console)
    if not result.plans:
        console.print(f"[bold red]{result.status}:[/] {result.reason.replace('[', '(')}", soft_wrap=True)
        return 1
    for plan in result.plans:
        faults = violations(problem, plan)
        if faults or objective(problem, plan) != plan.objectives:
            console.print(f"shoal: the solver's plan does not hold: {faults[:1] or 'objective'}")
            return 1
    best = _chosen(result, wanted)
    try:
        if out:
            _write(out, plan_document(problem, best))
        if front:
            _write(front, [plan_document(problem, plan) for plan in result.plans])
        if report:
            _report(report, problem, result, best, wanted)
    except OSError as error:
        raise ShoalError(f"cannot be written: {error}; choose another file") from None
    _print_summary(problem, result, best, wanted)
    return 0


def _chosen(result: Result, wanted: _Wanted) -> Plan:
    from cloud.scheduling import KEY
    from cloud.scheduling.front import choose

    if len(wanted.measures) == 1 or len(result.plans) == 1:
        return result.plans[0]
    if wanted.lex:
        return min(result.plans, key=lambda plan: [round(plan.objectives[KEY[m]], 6) for m in wanted.measures])
    return choose(result.plans, wanted.measures, wanted.weights)


def _searched(problem: Problem, wanted: _Wanted, console: Console) -> Result:
    """Solve in a thread, so that Ctrl-C is heard at once and the best so far comes back."""
    stop = threading.Event()
    news = _News()
    box: list[Result] = []
    broken: list[BaseException] = []

    def work() -> None:
        try:
            box.append(_solver(problem, wanted, news.hear, stop))
        except BaseException as error:
            broken.append(error)  # raised again in the main thread

    thread = threading.Thread(target=work, name="solve", daemon=True)
    with _interrupt_sets(stop), _bar(console) as progress:
        task = progress.add_task("solving", total=wanted.budget_s, news="")
        started = time.monotonic()
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_S)
            text = news.text(problem) + ("  stopping" if stop.is_set() else "")
            progress.update(task, completed=min(time.monotonic() - started, wanted.budget_s), news=text)
    if broken:
        raise broken[0]
    return box[0]


def _solver(problem: Problem, wanted: _Wanted, on_event: Callable[[Event], None], stop: threading.Event) -> Result:
    from cloud.scheduling import Budget, CpSat, Dispatch, Exchange, Goal
    from cloud.scheduling.front import front

    budget = Budget(wanted.budget_s, workers=wanted.workers)
    run = Exchange(problem, Goal(wanted.measures), budget, on_event=on_event, stop=stop)
    if wanted.solver in RULES:
        return Dispatch(rule=wanted.solver).solve(problem, exchange=run)
    several = len(wanted.measures) > 1 and (wanted.many or not wanted.lex)
    if several and problem.jobs:
        return front(problem, measures=wanted.measures, seed=wanted.seed, exchange=run)
    return CpSat().solve(problem, seed=wanted.seed, exchange=run)


@dataclass
class _News:
    """The last incumbent and bound, for the progress bar."""

    last: dict[str, Event] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        self.last = {**self.last, event.kind: event}

    def text(self, problem: Problem) -> str:
        shown = []
        for kind, event in sorted(self.last.items(), reverse=True):
            unit = "kWh" if event.measure == "energy" else problem.time_unit
            value = event.value if event.measure == "energy" else problem.in_unit(event.value)
            shown.append(f"{kind} {value:g} {unit}".strip())
        return "  ".join(shown)


class _interrupt_sets:
    """Ctrl-C sets a flag; a second one interrupts for good. Only in the main thread, where signals arrive."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._before: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._heard)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _heard(self, *_: object) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[news]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


# --- what comes out ---------------------------------------------------------------------------------


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _print_summary(problem: Problem, result: Result, best: Plan, wanted: _Wanted) -> None:
    values = objectives_in_unit(problem, best.objectives)
    units = {"makespan": problem.time_unit, "tardiness": problem.time_unit, "energy": "kWh", "energy_kgce": "kgce"}
    table = Table(show_header=False, box=None)
    for name in dict.fromkeys((*wanted.measures, "makespan", "energy", "energy_kgce")):
        if name in values and (name in wanted.measures or values[name]):
            table.add_row(name, f"{values[name]:,.6g} {units.get(name, '')}".strip())
    if best.bound is not None and result.plans:
        first = wanted.measures[0]
        shown = best.bound if first == "energy" else problem.in_unit(best.bound)
        if len(result.plans) == 1:
            table.add_row("bound", f"{shown:,.6g} {units.get(first, '')}".strip())
    table.add_row("status", f"{result.status} by {best.solver} in {result.runtime_s:.2f} s")
    if len(result.plans) > 1:
        table.add_row("front", f"{len(result.plans)} plans")
    Console().print(table)


def _report(path: Path, problem: Problem, result: Result, best: Plan, wanted: _Wanted) -> None:
    from cloud.scheduling import KEY
    from shoal.gantt import bands, bars, convergence_figure, gantt_figure, pareto_figure
    from shoal.report import write_report

    makespan = problem.in_unit(best.objectives["makespan"])
    title = f"{problem.name or 'plan'}: {makespan:g} {problem.time_unit}".rstrip()
    figures = [
        gantt_figure(
            bars(problem, best),
            states=bands(problem, best),
            machines=[machine.id for machine in problem.machines],
            unit=problem.time_unit,
            title="Plan",
        )
    ]
    if len(wanted.measures) > 1:
        figures.append(pareto_figure(problem, result.plans, best, [KEY[name] for name in wanted.measures]))
    for measure in dict.fromkeys(event.measure for event in result.history):
        lines = []
        for kind in ("incumbent", "bound"):
            points = [
                (event.at_s, event.value if measure == "energy" else problem.in_unit(event.value))
                for event in result.history
                if event.measure == measure and event.kind == kind
            ]
            if points:
                lines.append((kind, points))
        unit = "kWh" if measure == "energy" else problem.time_unit
        figures.append(convergence_figure(lines, title=f"Convergence: {measure} ({unit})" if unit else measure))
    write_report(path, title=title, figures=figures)
