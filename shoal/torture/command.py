"""`shoal torture`: the command line around one run.

The last line with `--json` is one object: counts of readings, kills, repeats, forks, `holds`, and the first offenders.
Exit code 0 only if every reading is where it should be and everybody was killed as often as asked.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from messages.errors import UsageError
from messages.logs import configure
from shoal.torture.executioner import Executioner
from shoal.torture.run import Outcome, Plan, torture

KILLS_PER_MINUTE = 2.2
"""Of each kind of victim."""
SHORT = Plan(seconds=24.0, kills=3, home_s=45.0)
LONG_MINUTES = 10.5
LOG = "torture.log"


def command(
    short: Annotated[bool, typer.Option("--short", help="under a minute, three kills of each victim")] = False,
    minutes: Annotated[float, typer.Option(help="of traffic under kills", min=0.2, max=1440)] = LONG_MINUTES,
    seed: Annotated[int, typer.Option(help="of devices, faults and kills", min=0)] = 1,
    store: Annotated[str, typer.Option(help="sqlite, or influx1: a real influxd, killed as well")] = "sqlite",
    power_cuts: Annotated[
        bool, typer.Option("--power-cuts", help="edge nodes and ingest lose what was not synced (needs strace)")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="no picture; the last line is the result as JSON")] = False,
    keep: Annotated[Path | None, typer.Option(help="keep oracle, logs and databases here", show_default=False)] = None,
) -> None:
    """Kill everything again and again, and prove by an oracle that each reading is stored exactly once."""
    if store not in ("sqlite", "influx1"):
        raise UsageError(f"--store {store}: sqlite or influx1")
    if short and minutes != LONG_MINUTES:
        raise UsageError("--short has its own length: leave --minutes out")
    if power_cuts and store != "sqlite":
        raise UsageError("--power-cuts work on SQLite files: leave --store out")
    plan = Plan(
        seed=seed,
        seconds=SHORT.seconds if short else 60 * minutes,
        kills=SHORT.kills if short else max(1, round(KILLS_PER_MINUTE * minutes)),
        store=store,
        power_cuts=power_cuts,
        home_s=SHORT.home_s if short else Plan().home_s,
    )
    console = Console(stderr=as_json)
    for number in (
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # as Ctrl-C: the broker gives up its link to its parent with its rights
        signal.signal(number, signal.default_int_handler)
    with kept(keep) as directory:
        try:
            outcome = _run(plan, directory.path, console, live=not as_json and console.is_terminal)
        except (KeyboardInterrupt, asyncio.CancelledError):
            directory.keep = keep is not None
            console.print("stopped; all processes ended")
            raise typer.Exit(1) from None
        except UsageError:  # nothing has run
            directory.keep = keep is not None
            raise
        directory.keep = keep is not None or not outcome.holds
        show(console, plan, outcome)
        if directory.keep:
            console.print(f"files: {directory.path}", soft_wrap=True)
    if as_json:
        print(json.dumps(as_dict(plan, outcome)))
    for why in outcome.troubles:
        print(f"shoal: {why}", file=sys.stderr)
    raise typer.Exit(0 if outcome.holds else 1)


@dataclass
class Directory:
    """Where the files of a run are, and whether they stay."""

    path: Path
    keep: bool = True


@contextmanager
def kept(wanted: Path | None) -> Iterator[Directory]:
    """An empty directory; one of our own making goes when all is well. UsageError: it is not empty, or not writable."""
    if wanted is None:
        directory = Directory(Path(tempfile.mkdtemp(prefix="shoal-torture-")))
    else:
        directory = Directory(wanted.resolve())
        try:
            wanted.mkdir(parents=True, exist_ok=True)
            if any(wanted.iterdir()):
                raise UsageError(f"--keep {wanted}: it is not empty; name a new directory")
        except OSError as error:
            raise UsageError(f"--keep {wanted}: {error.strerror}; name a directory that can be written") from None
    try:
        yield directory
    finally:
        if not directory.keep:
            shutil.rmtree(directory.path, ignore_errors=True)


def _run(plan: Plan, directory: Path, console: Console, *, live: bool) -> Outcome:
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.fields[kills]}"),
        console=console,
    )  # fmt: skip
    task = bar.add_task("starting", total=None, kills="")

    def tell(phase: str, executioner: Executioner) -> None:
        _draw(bar, task, plan, phase, executioner)

    with (directory / LOG).open("w", encoding="utf-8") as log, bar if live else nullcontext():
        configure("torture", stream=log)  # what our own client says when the broker dies belongs there
        try:
            return asyncio.run(torture(plan, directory, tell=tell))
        finally:
            configure("torture", stream=sys.stderr)


def _draw(bar: Progress, task: TaskID, plan: Plan, phase: str, executioner: Executioner) -> None:
    wanted = plan.kills * len(executioner.victims)
    done = sum(min(plan.kills, n) for n in executioner.counts.values())
    kills = "  ".join(f"{kind} {executioner.counts[kind]}" for kind in executioner.victims)
    bar.update(task, description=phase, total=wanted, completed=done, kills=kills)


def as_dict(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """The result as people script it."""
    verdict = outcome.verdict
    at_stake = sorted(kill.unconfirmed for kill in outcome.kills)
    return {
        "holds": outcome.holds,
        "seed": plan.seed,
        "store": plan.store,
        "traffic_s": round(outcome.traffic_s, 1),
        "readings_produced": verdict.produced,
        "readings_stored": verdict.stored,
        "rejected": dict(sorted(verdict.rejected.items())),
        "gaps": verdict.gaps,
        "gaps_cooperative": verdict.gaps_cooperative,
        "events_produced": verdict.events,
        "events_stored": verdict.events_stored,
        "events_refused": verdict.events_refused,
        "events_gaps": verdict.events_gaps,
        "lost": verdict.lost,
        "duplicated": verdict.duplicates,
        "corrupt": verdict.corrupt,
        "unexplained": verdict.unexplained,
        "kills": outcome.killed,
        "unconfirmed_at_kill": {"least": at_stake[0], "median": at_stake[len(at_stake) // 2]} if at_stake else {},
        "kills_given_up": outcome.spared,
        "pauses": outcome.pauses,
        "power_cuts": outcome.power_cuts,
        "batches": outcome.batches,
        "repeats": outcome.repeats,
        "forks": outcome.forks,
        "bursts": outcome.bursts,
        "bursts_sent_again": outcome.bursts_sent - outcome.bursts,
        "offenders": [str(one) for one in verdict.offenders],
        "troubles": outcome.troubles,
    }


def show(console: Console, plan: Plan, outcome: Outcome) -> None:
    """The table."""
    found, verdict = as_dict(plan, outcome), outcome.verdict
    table = Table(title=f"shoal torture, seed {plan.seed}, store {plan.store}", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left")
    for kind, number in outcome.killed.items():
        least = min((kill.unconfirmed for kill in outcome.kills if kill.victim == kind), default=0)
        table.add_row(f"kills of {kind}", str(number), f"each with ≥ {least} unconfirmed batches")
    if plan.store == "sqlite":
        table.add_row("kills of store", str(outcome.killed["ingest"]), "SQLite lives and dies in ingest")
    if outcome.power_cuts:
        table.add_row("power cuts", str(outcome.power_cuts), f"{outcome.unsure} changes were not synced")
    table.add_row("bursts sent again", f"{found['bursts_sent_again']:,}", f"of {outcome.bursts:,}")
    table.add_row("batches repeated", f"{outcome.repeats:,}", f"of {outcome.batches:,}; forks {outcome.forks}")
    table.add_section()
    table.add_row("produced", f"{verdict.produced:,}", f"readings in {outcome.traffic_s:.0f} s")
    changed = f"{verdict.replaced:,} replaced by cleaning, {verdict.moved:,} moved in time"
    table.add_row("stored", f"{verdict.stored:,}", changed)
    for reason, number in sorted(verdict.rejected.items()):
        table.add_row(f"rejected: {reason}", f"{number:,}", "")
    table.add_row("gaps before intake", f"{verdict.gaps:,}", f"of cooperative devices: {verdict.gaps_cooperative}")
    without = f"{verdict.events_refused} in refused bursts, {verdict.events_gaps} in gaps"
    table.add_row("events recorded", f"{verdict.events_stored:,}", f"of {verdict.events:,}; {without}")
    table.add_section()
    for name, number in (
        ("lost", verdict.lost),
        ("duplicated", verdict.duplicates),
        ("corrupt", verdict.corrupt),
        ("unexplained", verdict.unexplained),
    ):
        table.add_row(name, f"{number:,}", "" if not number else "WRONG", style="" if not number else "bold red")
    console.print(table)
    for offender in verdict.offenders:
        console.print(f"  {offender}", soft_wrap=True, markup=False)
    console.print("exactly once: it holds" if outcome.holds else "exactly once: IT DOES NOT HOLD")
