"""The floor as it works, drawn in a terminal: a row per machine and vehicle, a colour per job, a line where now is.

    with Picture(console, swarm, speed=20.0) as picture:
        outcome = simulate(swarm, picture)

`draw(look, …)` is pure. Bounds: `REDRAW_S` between two pictures; of more rows than the terminal has, the first ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from messages.clock import SECOND
from messages.plant import Plant
from shoal.gantt import colour_of
from shoal.swarm.outcome import Look, Run, Swarm

REDRAW_S = 0.2
NEWS = 6
"""Disturbances shown; older ones scroll away."""
AROUND = 14
"""Lines of a terminal that are no rows of machines."""
STATES = {"done": "green", "working": "cyan", "held": "blue", "awarded": "blue", "tendered": "yellow", "unknown": "red"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a row: from, until (µs), what is written in it, how it looks."""

    start: int
    end: int
    label: str
    style: str


def draw(look: Look, plant: Plant, *, start: int, until: int, width: int, height: int) -> RenderableType:
    """The floor between `start` and `until`, as wide and high as the terminal."""
    rows = _rows(look, plant)
    shown = rows[: max(4, height - AROUND)]
    names = max(len(name) for name, _ in shown) + 1
    cells = max(20, width - names - 6)
    table = Table.grid(padding=(0, 1))
    table.add_column(width=names, no_wrap=True)
    table.add_column(width=cells, no_wrap=True)
    for name, pieces in shown:
        broken = any(piece.style == DOWN and piece.start <= look.now < piece.end for piece in pieces)
        table.add_row(Text(name, "bold red" if broken else ""), line(pieces, look.now, start, until, cells))
    if len(rows) > len(shown):
        table.add_row("", Text(f"… and {len(rows) - len(shown)} more", "dim"))
    table.add_row("", _axis(start, until, look.now, cells))
    told = _told(look, start)
    title = f"[bold]{plant.site}[/]  {clock(look.now - start)}  judge: {look.judge or 'none'}"
    body: list[RenderableType] = [table, _tasks(look.tasks)]
    return Panel(Group(*body, *told), title=title, title_align="left", border_style="blue", width=width)


def line(pieces: Iterable[Piece], now: int, start: int, until: int, cells: int) -> Text:
    """One row."""
    per = max(1.0, (until - start) / cells)
    letters, styles = [" "] * cells, [""] * cells
    for piece in pieces:
        first = min(cells - 1, max(0, int((piece.start - start) / per)))
        last = min(cells, max(first + 1, round((piece.end - start) / per)))
        label = (
            piece.label[: last - first].center(last - first) if piece.label.strip() else piece.label * (last - first)
        )
        letters[first:last] = label[: last - first]
        styles[first:last] = [piece.style] * (last - first)
    here = min(cells - 1, int((now - start) / per))
    if not styles[here]:
        letters[here], styles[here] = "│", "bold bright_white"
    text = Text()
    for letter, style in zip(letters, styles, strict=True):
        text.append(letter, style)
    return text


def clock(us: int) -> str:
    """A span of plant time for people."""
    seconds = us / SECOND
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d} h"


DOWN = "bold white on red"


def _rows(look: Look, plant: Plant) -> list[tuple[str, list[Piece]]]:
    rows: dict[str, list[Piece]] = {name: [] for name in plant.machines}
    for run in look.runs:
        rows[run.machine].append(_piece(run, look.now))
    for down in look.downs:
        rows[down.machine].append(Piece(down.start, min(down.end, max(look.now, down.start)), "broken", DOWN))
    vehicles = plant.layout.vehicles if plant.layout else None
    for number in range(vehicles or 0):
        rows[f"vehicle {number + 1}"] = []
    for carry in look.carries:
        pieces = rows.get(f"vehicle {carry.vehicle + 1}")
        if pieces is not None:
            if carry.loads > carry.departs:
                pieces.append(Piece(carry.departs, carry.loads, "·", "dim"))
            pieces.append(Piece(carry.loads, carry.arrives, carry.job, f"bold {colour_of(carry.job)}"))
    return list(rows.items())


def _piece(run: Run, now: int) -> Piece:
    style = f"bold #ffffff on {colour_of(run.job)}"
    if run.interrupted:
        return Piece(run.start, run.end, "✗", f"bold red on {colour_of(run.job)}")
    return Piece(run.start, max(now, run.start) if run.running else run.end, run.job, style)


def _axis(start: int, until: int, now: int, cells: int) -> Text:
    text = [" "] * cells
    for share in (0.0, 0.25, 0.5, 0.75):
        label = clock(round((until - start) * share))
        at = int(cells * share)
        text[at : at + len(label)] = label[: cells - at]
    return Text("".join(text)[:cells], "dim")


def _tasks(tasks: Mapping[str, int]) -> Text:
    text = Text()
    for state, count in sorted(tasks.items()):
        text.append(f" {state} {count} ", STATES.get(state, "white"))
    return text


def _told(look: Look, start: int) -> list[Text]:
    return [
        Text(f" {clock(one.at - start):>9}  {one.kind} {one.what}" + (f"  → {one.answer}" if one.answer else ""), "red")
        for one in look.troubles[-NEWS:]
    ]


@dataclass
class Picture:
    """Draws while a swarm runs. `speed`: plant seconds per second; none: as fast as it goes."""

    console: Console
    swarm: Swarm
    span_s: float
    """How long it should take: as far as the time axis goes at first."""
    speed: float | None = None
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    last: Look | None = None
    _drawn_at: float = -1e9
    _began: float = 0.0
    _live: Live | None = field(default=None, repr=False)

    def __enter__(self) -> Picture:
        self._began = self.monotonic()
        self._live = Live(console=self.console, auto_refresh=False, transient=False)
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, at)

    def wants(self, now: int) -> bool:
        """Wait until `now` has come, drawing meanwhile; then whether the last picture is old."""
        if self.speed is not None:
            due = self._began + (now - self.swarm.start) / SECOND / self.speed
            while (left := due - self.monotonic()) > 0:
                self._between(now - round(left * self.speed * SECOND))
                self.sleep(min(left, REDRAW_S))
        return self.monotonic() - self._drawn_at >= REDRAW_S

    def look(self, look: Look) -> None:
        """Draw the floor."""
        self.last, self._drawn_at = look, self.monotonic()
        if self._live is not None:
            self._live.update(self.drawn(look), refresh=True)

    def drawn(self, look: Look) -> RenderableType:
        """The picture for this terminal."""
        start = self.swarm.start
        ends = max((run.end for run in look.runs), default=start)
        until = max(start + round(self.span_s * SECOND), round(1.02 * (look.now - start)) + start, ends)
        width, height = self.console.size
        return draw(look, self.swarm.plant, start=start, until=until, width=width, height=height)

    def _between(self, now: int) -> None:
        if self.last is not None and self.monotonic() - self._drawn_at >= REDRAW_S:
            self.look(replace(self.last, now=max(now, self.last.now)))
