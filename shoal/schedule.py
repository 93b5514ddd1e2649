"""`shoal schedule FILE`: plan a problem for time, energy, carbon, cost; explain, compare and disturb its plans.

    shoal schedule FILE --objectives makespan,energy --out plan.json --report plan.html
    shoal schedule FILE --plan front.json --take 3 --csv plan.csv
    shoal schedule FILE --plan plan.json --explain
    shoal schedule FILE --plan plan.json --what-if "down kiln-1 10h 14h"
    shoal schedule FILE --compare a.json b.json

Exit codes: 0 done (also when Ctrl-C ended the search: the best so far counts), 1 no plan was found, 2 wrong usage,
130 Ctrl-C before anything was found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from messages.errors import ShoalError, UsageError
from messages.instances import load_problem
from shoal import schedule_modes as modes
from shoal import schedule_options as options
from shoal.schedule_leave import Left, leaving


def schedule(
    file: Annotated[Path, typer.Argument(help="problem in JSON, or an .fjs instance", metavar="FILE")],
    objectives: Annotated[
        str, typer.Option(help=f"one or several of {','.join(options.MEASURES)}; several give a front")
    ] = "makespan",
    budget: Annotated[str, typer.Option(help="seconds to search", metavar="SECONDS")] = "10",
    limit: Annotated[
        list[str] | None,
        typer.Option(help="most that a plan may reach, in the unit of the file; again for more", metavar="NAME=VALUE"),
    ] = None,
    max_evaluations: Annotated[
        int | None, typer.Option(help="end after so many: one seed then gives one result on any machine", min=1)
    ] = None,
    workers: Annotated[int, typer.Option(help="threads", min=1, max=64)] = 2,
    seed: Annotated[int, typer.Option(help="of the search", min=0)] = 1,
    solver: Annotated[str, typer.Option(help="by name, else the best there is; a wrong name lists them")] = "",
    replicas: Annotated[
        int, typer.Option(help="independent searches with different seeds; the best of all counts", min=1, max=1000)
    ] = 1,
    ray: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster that searches; needs shoal\\[ray]", metavar="ADDRESS")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="begin the search with this plan (JSON)")] = None,
    out: Annotated[Path | None, typer.Option(help="write the plan here (JSON; a name in .csv: a table)")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="write the plan here as a table", metavar="FILE")] = None,
    table: Annotated[bool, typer.Option("--table", help="print every operation of the plan")] = False,
    begins: Annotated[
        str | None, typer.Option(help="when time 0 is, such as 2026-11-23T06:00: tables show dates", metavar="DATE")
    ] = None,
    front: Annotated[Path | None, typer.Option(help="write the list of plans here (JSON)")] = None,
    take: Annotated[
        int | None, typer.Option(help="take plan N of the front, searched or given with --plan", metavar="N")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="write Gantt, front and convergence here (HTML)")] = None,
    weights: Annotated[
        str | None, typer.Option(help="choose from the front by weights: makespan=0.7,energy=0.3 or 0.7,0.3")
    ] = None,
    lex: Annotated[
        bool, typer.Option("--lex", help="choose by the order of --objectives: the first counts most")
    ] = False,
    split: Annotated[
        list[str] | None, typer.Option(help="cut a job into so many lots; again for more", metavar="JOB=LOTS")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="say what binds: critical path, bottleneck, price of less, late orders")
    ] = False,
    plan: Annotated[
        Path | None, typer.Option(help="the plan that --explain, --take or --what-if is about (JSON)")
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(help='"down MACHINE FROM TO", "rush JOB due TIME" or "add FILE", with --plan; again for more'),
    ] = None,
    now: Annotated[str | None, typer.Option(help="of --what-if: what began earlier is frozen", metavar="TIME")] = None,
    stay: Annotated[
        float | None,
        typer.Option(
            help="of --what-if: price of moving every operation to another machine, as a share of the objective; 0.02",
            metavar="SHARE",
        ),
    ] = None,
    problem_out: Annotated[
        Path | None, typer.Option(help="write the problem that --what-if or --split made here (JSON)", metavar="FILE")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="two plans side by side; nothing is searched", metavar="A B")
    ] = None,
) -> None:
    """Plan a problem: fast, provably, and with the energy it takes."""
    console = Console(stderr=True)
    try:
        with leaving():
            named = ("--out", out), ("--csv", csv), ("--front", front), ("--report", report)
            options.writable(file, *named, ("--problem-out", problem_out))
            wanted = options.wanted(
                objectives,
                budget,
                evaluations=max_evaluations,
                workers=workers,
                seed=seed,
                solver=solver,
                weights=weights,
                lex=lex,
                many=bool(front or report),
                replicas=replicas,
                ray=ray,
            )
            modes.together(compare, what_if, plan, explain, now, start, take, table or csv)
            modes.nothing_ignored(compare, what_if, plan, split, out, front, problem_out, take, table or csv, begins)
            modes.price(stay, what_if, alone=not (solver or weights or replicas > 1 or ray))
            modes.taken(take, plan, what_if, wanted)
            t0 = options.begins(begins)
            problem = load_problem(file)
            limits = options.limits(limit or (), problem)
            if split:
                from cloud.scheduling.lots import split as cut

                problem = cut(problem, options.split_into(split))
            if compare is None:
                options.check(problem, file, [*wanted.measures, *limits])
            # ortools, numba and plotly take a moment: they are loaded when a problem was read
            from shoal import schedule_parts as parts
            from shoal import schedule_tasks as tasks

            if split and problem_out and not what_if:
                parts.write_problem(problem_out, problem)
        task = parts.Task(
            problem, wanted, limits, console, out, front, report, explain, problem_out, stay, csv, table, take, t0
        )
        if compare is not None:
            code = tasks.run_compare(task, compare)
        elif what_if and plan is not None:
            code = tasks.run_what_if(task, plan, what_if, now)
        elif plan is not None and explain:
            code = tasks.run_explain(task, plan)
        elif plan is not None:
            code = tasks.run_take(task, plan)
        else:
            code = tasks.run_search(task, start)
    except Left as left:
        left.out()
    except KeyboardInterrupt:
        Left("interrupted").out()
    except UsageError as error:
        console.print(f"shoal: {error}", soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(2) from None
    except ShoalError as error:
        console.print(f"shoal: {error}", soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(1) from None
    if code:
        raise typer.Exit(code)
