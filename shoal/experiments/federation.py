"""`shoal experiment federation`: does it pay to learn together, when cells are alike and when they are not?

    shoal experiment federation                            20 seeds, heterogeneity 0, 0.3, 1 and 1.5
    shoal experiment federation --quick                    under a minute: 2 seeds of 2 cells, 3 rounds; says little
    shoal experiment federation --out run --jobs 2         cases, figures and report in that folder; goes on after a cut

Arms, pace and objective: `shoal.experiments.arms`; the test: `shoal.experiments.inferiority`. The margin is 5 %, the
rows are heterogeneity x (mean of the cells, worst cell), and they are judged together (Holm). Exit codes: 0 it ran,
whatever came out; 2 wrong usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from messages.errors import UsageError
from shoal.experiments.arms import ARMS, DEFAULT, RIVALS, Case, Pace
from shoal.experiments.inferiority import Returns, Row, judged
from shoal.experiments.trials import Done, all_of

HETEROGENEITY = (0.0, 0.3, 1.0, 1.5)
MARGIN = 0.05
CASES, FIGURES, REPORT = "cases.jsonl", "figures.jsonl", "report.html"
TITLES = {
    "local": "local only",
    "fedavg": "FedAvg",
    "tuned": "fine-tuned",
    "longer": "… longer",
    "own": "own copy",
    "body": "body + local head",
    "adapted": "shared, adapted",
    "pooled": "pooled",
}
BEGINNINGS = {"scratch": "from scratch", DEFAULT: f"with {TITLES[DEFAULT]}"}


def federation(
    seeds: Annotated[int, typer.Option(min=2, max=1_000, help="paired runs of every heterogeneity")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, max=10**6, help="the first of them")] = 0,
    heterogeneity: Annotated[
        list[float] | None,
        typer.Option(min=0, max=3, help="how unlike the cells are (again: more)  [default: 0, 0.3, 1, 1.5]"),
    ] = None,
    cells: Annotated[int, typer.Option(min=2, max=50, help="that learn together")] = Pace.cells,
    rounds: Annotated[int, typer.Option(min=1, max=1_000, help="of learning")] = Pace.rounds,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="cases, figures and report; a run that was cut goes on")
    ] = Path("experiment-federation"),
    jobs: Annotated[int, typer.Option(min=1, max=256, help="processes that work at once")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="2 seeds, heterogeneity 0 and 1.5, 2 cells, 3 rounds: a look, no answer")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="figures as JSON lines, for programs")] = False,
) -> None:
    """Learning together, the product's default against six other ways; alike cells and unlike ones."""
    if quick:
        seeds, heterogeneity, cells, rounds = 2, [0.0, 1.5], 2, 3
    pace = Pace(cells=cells, rounds=rounds)
    degrees = sorted(set(heterogeneity or HETEROGENEITY))
    cases = [Case(seed, degree) for seed in range(first_seed, first_seed + seeds) for degree in degrees]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; name a folder that can be written") from None
    done = _watched(cases, pace, out / CASES, jobs)
    found = Found(done, degrees)
    lines = list(found.lines(pace))
    (out / FIGURES).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    from shoal.experiments.federation_report import write  # plotly: not before it is needed

    write(out / REPORT, found, pace)
    if as_json:
        for line in lines:
            print(json.dumps(line))
        return
    _show(found, out)


class Found:
    """What came of all cases."""

    def __init__(self, done: Sequence[Done], degrees: Sequence[float]) -> None:
        self.degrees = list(degrees)
        self.done = {
            degree: sorted((one for one in done if one.case.heterogeneity == degree), key=lambda one: one.case.seed)
            for degree in degrees
        }
        self.seeds = len(self.done[self.degrees[0]])
        self.claims = self._claims()
        self.new = self._new()

    def _claims(self) -> list[Row]:
        rows = {
            f"{what}, {degree:g}": (
                {rival: self.returns(degree, rival, what) for rival in RIVALS},
                self.returns(degree, DEFAULT, what),
            )
            for degree in self.degrees
            for what in ("mean", "worst")
        }
        return judged(rows, margin=MARGIN)

    def _new(self) -> list[Row]:
        rows = {
            f"new cell, {degree:g}": ({"scratch": self.new_cell(degree, "scratch")}, self.new_cell(degree, DEFAULT))
            for degree in self.degrees
        }
        return judged(rows, margin=0.0)

    def returns(self, degree: float, arm: str, what: str) -> Returns:
        """Objective a day of every seed: mean of the cells, or worst cell, (seeds,)."""
        of = np.mean if what == "mean" else np.min
        return np.array([float(of(one.arms[arm].cells)) for one in self.done[degree]])

    def new_cell(self, degree: float, how: str) -> Returns:
        """Objective a day over the first days of a new cell, as lived, (seeds,)."""
        return np.array([float(np.mean(one.new[how])) for one in self.done[degree]])

    def curve(self, degree: float, arm: str) -> tuple[list[int], Returns, Returns]:
        """Rounds; the mean over seeds of the cells' mean after each, and its standard error."""
        curves = np.array([one.arms[arm].curve for one in self.done[degree]])
        return (
            self.done[degree][0].arms[arm].rounds,
            curves.mean(axis=0),
            curves.std(axis=0, ddof=1) / np.sqrt(len(curves)),
        )

    @property
    def cpu_s(self) -> float:
        """CPU time of all cases."""
        return sum(one.cpu_s for each in self.done.values() for one in each)

    def lines(self, pace: Pace) -> Iterator[dict[str, Any]]:
        """One JSON line per figure."""
        for degree in self.degrees:
            for arm in ARMS:
                for what in ("mean", "worst"):
                    values = self.returns(degree, arm, what)
                    yield {
                        "figure": f"objective a day, {TITLES[arm]}, {what} cell, heterogeneity {degree:g}",
                        "value": round(float(values.mean()), 1),
                        "unit": "money",
                        "target": None,
                        "holds": None,
                        "note": f"standard error {values.std(ddof=1) / np.sqrt(len(values)):.1f}, {len(values)} seeds",
                    }
        for degree in self.degrees:
            for how in BEGINNINGS:
                days = np.array([one.new[how] for one in self.done[degree]]).mean(axis=0)
                yield {
                    "figure": f"objective a day, a new cell, {BEGINNINGS[how]}, heterogeneity {degree:g}",
                    "value": round(float(days.mean()), 1),
                    "unit": "money",
                    "target": None,
                    "holds": None,
                    "note": "day by day " + ", ".join(f"{day:,.0f}" for day in days),
                }
        for row, better in (*((row, False) for row in self.claims), *((row, True) for row in self.new)):
            to = row.to(row.best)
            yield {
                "figure": f"lower bound of the relative difference, {TITLES[DEFAULT]}, {row.name}",
                "value": round(100 * row.lower, 2),
                "unit": "%",
                "target": "> 0" if better else f">= -{100 * MARGIN:g}",
                "holds": row.holds,
                "note": f"against {TITLES.get(row.best, row.best)}: {100 * to.difference:+.2f} %; "
                f"one-sided level {row.level:.4f} (Holm), p {row.p:.2g}; {self.seeds} seeds of {pace.cells} cells",
            }
        yield {
            "figure": "CPU time of all cases", "value": round(self.cpu_s, 1), "unit": "s",
            "target": None, "holds": None, "note": f"{self.seeds * len(self.degrees)} cases",
        }  # fmt: skip


def _watched(cases: Sequence[Case], pace: Pace, path: Path, jobs: int) -> list[Done]:
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    done = []
    with progress:
        task = progress.add_task("cases", total=len(cases))
        for one in all_of(cases, pace, path, jobs=jobs):
            done.append(one)
            progress.update(
                task, advance=1, description=f"seed {one.case.seed}, heterogeneity {one.case.heterogeneity:g}"
            )
    return done


def _show(found: Found, out: Path) -> None:
    console = Console()
    for what, title in (("mean", "mean of the cells"), ("worst", "worst cell")):
        table = Table(
            title=f"Objective a day, {title} ({found.seeds} seeds; unlike: heterogeneity)",
            title_justify="left",
            box=None,
        )
        table.add_column("unlike")
        for arm in ARMS:
            table.add_column(TITLES[arm], justify="right")
        for degree in found.degrees:
            table.add_row(f"{degree:g}", *(f"{found.returns(degree, arm, what).mean():,.0f}" for arm in ARMS))
        console.print(table)
    console.print(_beginnings(found))
    name = TITLES[DEFAULT].capitalize()
    console.print(_verdicts(f"{name}: not inferior by more than 5 %?", found.claims, "not inferior"))
    console.print(_verdicts(f"{name}: a new cell, against from scratch", found.new, "better"))
    console.print(f"pooled: reported, not compared with. {found.cpu_s:,.0f} s of CPU; report: {out / REPORT}")


def _beginnings(found: Found) -> Table:
    table = Table(title="Objective a day, first days of a new cell, as lived", title_justify="left", box=None)
    table.add_column("unlike")
    for how in BEGINNINGS.values():
        table.add_column(how, justify="right")
    for degree in found.degrees:
        table.add_row(f"{degree:g}", *(f"{found.new_cell(degree, how).mean():,.0f}" for how in BEGINNINGS))
    return table


def _verdicts(title: str, rows: Sequence[Row], word: str) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("row")
    for name in ("best other", "difference", "lower bound", "level", "p"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows:
        table.add_row(
            row.name,
            TITLES.get(row.best, row.best),
            f"{100 * row.to(row.best).difference:+.1f} %",
            f"{100 * row.lower:+.1f} %",
            f"{row.level:.4f}",
            f"{row.p:.2g}",
            f"[green]{word}[/]" if row.holds else f"[red]not shown {word}[/]",
        )
    return table
