"""`shoal swarm FILE`: a plant as a swarm, run to its end in simulation or over a broker, disturbed or not.

    shoal swarm examples/workshop_vehicles.json --judge mcts
    shoal swarm examples/workshop_vehicles.json --judge mcts --disturb storm --speed 20 --out swarm.html
    shoal swarm firmware_sim/plants/ceramic.toml --disturb breakdown:3,node,cloud,lose:0.1 --compare

Exit codes: 0 every promise held, 1 one was broken or the run failed, 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from messages.errors import ShoalError, UsageError
from messages.logs import configure
from shoal.swarm import batons, report
from shoal.swarm.disturb import ABOUT, SIMULATED, STORM, WIRE, refuse_simulated
from shoal.swarm.outcome import Figures, Outcome, Swarm, Watch
from shoal.swarm.picture import Picture
from shoal.swarm.setting import JUDGES, RULE_NAMES, judge_of, swarm_of, weights_of
from shoal.swarm.sim import simulate

FULL = (errno.ENOSPC, errno.EDQUOT)
"""No room: on the disk, or for this user."""
KINDS = "; ".join(f"{kind}: {about}" for kind, about in ABOUT.items())
EVERYTHING = ", ".join(f"{kind}:{size:g}" for kind, size in STORM.items())
DISTURB = (
    f"what befalls it: a comma list of kinds, each perhaps with :NUMBER ({KINDS}). Without a number one of a kind, of "
    f"messages {', '.join(f'{kind}:{size:g}' for kind, size in WIRE.items())}. storm: {EVERYTHING}; "
    f"storm:2: two of them at once. Over a bus there is no {', no '.join(SIMULATED)}, also in a storm. "
    "Times are drawn by --seed. Or a scenario file (TOML or JSON): happenings = "
    "\\[{kind, at_s, lasts_s, machine, node, job, product}, …] and rates lose, double, delay, reorder"
)


def swarm(
    file: Annotated[Path, typer.Argument(help="problem in JSON or .fjs, or a plant file", metavar="FILE")],
    judge: Annotated[str, typer.Option(help=f"who awards: {', '.join(JUDGES)}")] = "mcts",
    budget: Annotated[
        float | None, typer.Option(help="of mcts: seconds per decision; 0.1", metavar="SECONDS", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="of mcts, instead of seconds: repeatable", min=0, max=10**9)
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="what counts, such as makespan=1,waiting=8; also tardiness, energy, carbon; times in ticks. "
            "Absent: makespan alone",
            show_default=False,
        ),
    ] = "",
    over: Annotated[str, typer.Option(help="sim: in simulation; bus: real processes over a real broker")] = "sim",
    disturb: Annotated[str, typer.Option(help=DISTURB, metavar="KINDS|FILE")] = "",
    seed: Annotated[int, typer.Option(help="of everything random", min=0)] = 1,
    vary: Annotated[
        float, typer.Option(help="spread of real working times about the nominal ones, as 0.1", min=0, max=0.5)
    ] = 0.0,
    per_node: Annotated[int, typer.Option(help="of a problem: machines of one node", min=1, max=64)] = 2,
    speed: Annotated[
        float | None,
        typer.Option(help="plant seconds per second; absent: as fast as it goes", min=0.001, show_default=False),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="write the report here: a page in .html, or a directory for page, figures, runs and batons",
            metavar="PATH",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="the same course, simulated, judged by every rule, beside it")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="no picture; one JSON object on standard output")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no picture while it runs")] = False,
) -> None:
    """Run a plant as a swarm: machines bid, a judge awards, disturbances are absorbed; and check every promise."""
    if over not in ("sim", "bus"):
        raise UsageError(f"--over {over}: sim or bus")
    counting = weights_of(weights)
    chosen = judge_of(judge, seconds=budget, iterations=iterations)
    course, span_s = swarm_of(
        file,
        chosen,
        counting,
        disturb=disturb,
        seed=seed,
        sigma=vary,
        machines_per_node=per_node,
        over=over,
    )
    if over == "bus":
        refuse_simulated(course.scenario)
    if speed is not None and over == "sim" and (quiet or as_json):
        raise UsageError("--speed: nobody looks on: leave it out, or --quiet and --json")
    page, folder = _outputs(out)
    console = Console()
    picture = None if quiet or as_json else Picture(console, course, span_s, speed)
    with picture or nullcontext():
        outcome = _run(course, over, picture, speed)
    others = _others(course, over) if compare else {}
    if as_json:
        print(json.dumps(report.document(outcome, others)), flush=True)
    else:
        _say(console, outcome, others)
    if page is not None:
        _write(page, lambda draft: report.write(draft, outcome, others))
    if folder is not None:
        _write_json(folder / "outcome.json", report.document(outcome, others))
        _write_json(folder / "runs.json", report.runs(outcome))
        _write_json(folder / batons.FILE, batons.document(outcome.swarm.plant.site, outcome.batons))
    if page is not None and not as_json:
        print(f"report: {page}" + (f"; a workpiece: shoal workpiece JOB --data {folder}" if folder else ""), flush=True)
    if not outcome.holds:
        for fault in outcome.faults:
            print(f"shoal: broken: {fault}", file=sys.stderr)
        if outcome.kept is not None:
            print(f"shoal: kept: {outcome.kept} (logs, disks, and what machines really said)", file=sys.stderr)
        raise typer.Exit(1)


def _run(course: Swarm, over: str, picture: Watch | None, speed: float | None) -> Outcome:
    if over == "sim":
        return simulate(course, picture)
    from shoal.swarm import over_bus

    try:
        return asyncio.run(_stoppable(over_bus.run(course, watch=picture, speed=speed)))
    except (KeyboardInterrupt, asyncio.CancelledError):  # connections that were being made complain to the last
        configure("swarm", stream=StringIO())
        raise KeyboardInterrupt from None


async def _stoppable(run: Coroutine[Any, Any, Outcome]) -> Outcome:
    """SIGTERM and SIGHUP end it as Ctrl-C does: in order, and without leaving its files."""
    task = asyncio.ensure_future(run)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def _others(course: Swarm, over: str) -> dict[str, Figures]:
    """Simulated: every rule on the same course, and on it undisturbed the judge itself; of a run over a broker the
    judge itself on that course, too."""
    found = {name: simulate(replace(course, judge=judge_of(name))).figures for name in RULE_NAMES}
    if over == "bus" and (kind := str(course.judge.model_dump()["kind"])) not in found:
        found[kind] = simulate(course).figures
    if not course.scenario.calm:
        found["undisturbed"] = simulate(replace(course, scenario=type(course.scenario)())).figures
    return found


def _say(console: Console, outcome: Outcome, others: dict[str, Figures]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in report.rows(outcome):
        style = ("bold green" if outcome.holds else "bold red") if name == "verdict" else ""
        table.add_row(name, value, style=style)
    console.print(table, highlight=False)
    if outcome.troubles:
        console.print(report.table_of(report.troubles(outcome), "\nDisturbances"), highlight=False)
    if others:
        lines = report.compared(others, outcome)
        console.print(report.table_of(lines, "\nThe same course, judged by others"), highlight=False)


def _outputs(out: str | None) -> tuple[Path | None, Path | None]:
    """The page, and the folder of the rest; UsageError before anything is run. Leaves no file behind."""
    if out is None:
        return None, None
    if not out:
        raise UsageError("--out: name a page, such as swarm.html, or a directory")
    path = Path(out)
    is_page = path.suffix == ".html"
    folder = path.parent if is_page else path
    if is_page and path.is_dir():
        raise UsageError(f"--out {out}: cannot be written, it is a directory; name a page within, {out}/report.html")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # rights alone do not tell: a disk may be full, or no files be made there
            pass
    except OSError as error:
        raise UsageError(_cannot(path, error)) from None
    return (path, None) if is_page else (path / "report.html", path)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Whole or not at all: beside its place first, then renamed."""
    draft = path.with_name(f".shoal-{os.getpid()}.html")
    try:
        write(draft)
        draft.replace(path)
    except OSError as error:
        raise ShoalError(_cannot(path, error)) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _write_json(path: Path, what: object) -> None:
    _write(path, lambda draft: draft.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8"))


def _cannot(path: Path, error: OSError) -> str:
    if error.errno in FULL:  # nothing is wrong with the word: the front door says what is, and ends with code 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    return f"--out {path}: cannot be written ({error.strerror or error}); name another place"
