"""`shoal experiment latency`: the same cell and the same rule, decided on the node or in a cloud whose messages spike.

    shoal experiment latency --out out/latency         # table, and out/latency/latency.html
    shoal experiment latency --bus 30                  # also half a minute of real messages over a broker of its own

The model, in full in docs/guides/experiments.md, was stated and committed before the cloud's half was first run: two
arms at a belt (`firmware_sim.two_arms`), a rule and a line (`remote`). It is simulated; every figure of the cell is
invented and plausible. What is changed to see how far the answer hangs on it (`latency_study`) was named then, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from messages.broker import find_mosquitto
from messages.errors import UsageError
from shoal.experiments.latency_study import (
    ABOUT,
    CLAIM,
    LINES,
    RATES,
    RATES_OVERTAKING,
    SIZES,
    SIZES_OVERTAKING,
    VARIANTS,
    Curve,
    Share,
    Study,
    run_study,
)

REPORT = "latency.html"
AGREE = 0.01
"""With nothing added both halves may differ by so much."""


def latency(
    seeds: Annotated[int, typer.Option(min=2, max=200, help="runs, each with products and luck of its own")] = 20,
    minutes: Annotated[float, typer.Option(min=1, max=60, help="plant time of each")] = 10.0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help=f"write {REPORT} there", show_default=False)
    ] = None,
    bus: Annotated[
        float | None,
        typer.Option(min=8, max=600, metavar="SECONDS", help="then so long over a real broker", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON line per figure")] = False,
) -> None:
    """Edge instead of cloud: what two robot arms achieve, miss and break, by the latency of their commands."""
    if out is not None:
        _writable(out)
    if bus is not None:
        find_mosquitto()  # before a minute's work, not after it
    with _progress() as bar:
        task = bar.add_task("simulating", total=1.0)
        study = run_study(
            seeds=seeds, duration_s=60 * minutes, progress=lambda share: bar.update(task, completed=share)
        )
    found = list(figures(study))
    if bus is not None:
        from shoal.experiments.latency_bus import over_bus

        found += over_bus(seconds=bus)
    if as_json:
        for one in found:
            print(json.dumps(one))
    else:
        _show(study, found)
    if out is not None:
        from shoal.experiments.latency_report import write

        write(out / REPORT, study, found)
        print(f"report: {out / REPORT}", file=sys.stderr if as_json else sys.stdout)


def figures(study: Study) -> Iterator[dict[str, Any]]:
    """One record per figure."""
    zero = study.improvement("nothing added")
    yield _figure("edge over cloud, nothing added", 100 * zero.value, "%", holds=abs(zero.value) <= AGREE, target="≤ 1")
    main = study.improvement("cloud")
    yield _figure(
        "edge over cloud, 10 % of 300 ms",
        100 * main.value,
        "%",
        share=(100 * main.low, 100 * main.high),
        holds=main.low <= CLAIM <= main.high,
        target=f"{100 * CLAIM:g}, the source's claim, in the interval",
    )
    for name in LINES:
        missed, crashed, gain = study.missed(name), study.collisions_h(name), study.improvement(name)
        yield _figure("recovered", study.per_hour(name), "1/h", case=ABOUT[name])
        yield _figure(
            "missed steps", 100 * missed.value, "%", share=(100 * missed.low, 100 * missed.high), case=ABOUT[name]
        )
        yield _figure("collisions", crashed.value, "1/h", share=(crashed.low, crashed.high), case=ABOUT[name])
        yield _figure(
            "edge over this", 100 * gain.value, "%", share=(100 * gain.low, 100 * gain.high), case=ABOUT[name]
        )
    for name in VARIANTS:
        gain = study.improvement(f"cloud, {name}", f"edge, {name}")
        yield _figure("edge over cloud", 100 * gain.value, "%", share=(100 * gain.low, 100 * gain.high), case=name)
        yield _figure("missed steps at the edge", 100 * study.missed(f"edge, {name}").value, "%", case=name)
    for title, curve, unit, scale in CURVES:
        for x, name in curve:
            gain = study.improvement(name)
            share = (100 * gain.low, 100 * gain.high)
            yield _figure("edge over cloud", 100 * gain.value, "%", share=share, case=f"{title}: {scale * x:g} {unit}")
        crossed = study.crossing(curve)
        if crossed is None:
            yield _figure(f"{100 * CLAIM:g} % reached, {title}", None, unit, note="nowhere on the curve")
            continue
        yield _figure(
            f"{100 * CLAIM:g} % reached, {title}",
            scale * crossed.value,
            unit,
            share=(scale * crossed.low, scale * crossed.high),
        )


CURVES: tuple[tuple[str, Curve, str, float], ...] = (
    ("by share of spikes of 300 ms", RATES, "%", 100.0),
    ("by size of 10 % spikes", SIZES, "ms", 1.0),
    ("by share of spikes of 300 ms, overtaking", RATES_OVERTAKING, "%", 100.0),
    ("by size of 10 % spikes, overtaking", SIZES_OVERTAKING, "ms", 1.0),
)


def said(share: Share, scale: float = 100.0, digits: int = 1) -> str:
    """A figure and its interval, for people."""
    return f"{scale * share.value:.{digits}f} [{scale * share.low:.{digits}f}, {scale * share.high:.{digits}f}]"


def conclusion(study: Study) -> list[str]:
    """What came out, in sentences."""
    main = study.improvement("cloud")
    rate, size = study.crossing(RATES), study.crossing(SIZES)
    reached = [
        f"{said(crossed, scale)} {unit}"
        for crossed, scale, unit in ((rate, 100.0, "% of 300 ms"), (size, 1.0, "ms at 10 %"))
        if crossed is not None
    ]
    where = f"at {' or at '.join(reached)}" if reached else "nowhere on these curves"
    overtaking = study.improvement("overtaking")
    inside = "within" if main.low <= CLAIM <= main.high else "outside"
    return [
        f"Edge over cloud at the frozen model: {said(main)} % more components.",
        f"The source says {100 * CLAIM:g} %, {inside} the interval; that is reached {where}.",
        f"Where messages may overtake it is {said(overtaking)} %: what hurts is what waits behind a late one.",
    ]


def _figure(
    name: str,
    value: float | None,
    unit: str,
    *,
    share: tuple[float, float] | None = None,
    **more: object,
) -> dict[str, Any]:
    found: dict[str, Any] = {"figure": name, "value": _number(value), "unit": unit}
    if share is not None:
        found |= {"low": _number(share[0]), "high": _number(share[1])}
    return found | more


def _number(value: float | None) -> float | None:
    """JSON has no infinity."""
    return round(value, 3) if value is not None and isfinite(value) else None


def _show(study: Study, found: list[dict[str, Any]]) -> None:
    console = Console(highlight=False)
    table = _table(f"{study.seeds} seeds of {60 * study.outcome.hours:g} min, the same in both halves", "line")
    for name in LINES:
        _row(table, study, name, ABOUT[name], "edge")
    console.print(table)
    table = _table("one figure of the cell changed, in both halves (cloud's shown)", "cell")
    for name in VARIANTS:
        _row(table, study, f"cloud, {name}", name, f"edge, {name}")
    console.print(table)
    for line in conclusion(study):
        console.print(line)
    for one in found:
        if one.get("over") == "bus":
            console.print(f"{one['figure']}: {one['value']} {one['unit']}{_note(one)}")


def _note(one: dict[str, Any]) -> str:
    return f" ({one['note']})" if one.get("note") else ""


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column(first, no_wrap=True)
    for head in ("recovered/h", "missed %", "collisions/h", "edge better by %"):
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _row(table: Table, study: Study, name: str, about: str, against: str) -> None:
    table.add_row(
        about,
        f"{study.per_hour(name):,.0f}",
        f"{100 * study.missed(name).value:.1f}",
        f"{study.collisions_h(name).value:.1f}",
        said(study.improvement(name, against)),
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    )


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; name a directory that can be written") from None
