"""`shoal watch`: what is said on the bus, live.

On a terminal a table of topics: how many messages, how fast, how old, and the last one. With `--lines`, or
into a pipe, one line per message: time, topic, payload. At most TOPICS topics are kept; the quietest go first.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from messages.errors import UsageError
from messages.process import run_until_stopped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from messages.observe import Watcher

TOPICS = 2_000
"""Topics kept; beyond it the one silent for longest is forgotten."""

_WINDOW = 64
"""Arrivals from which a rate is taken."""


@dataclass
class Heard:
    """What one topic has said so far."""

    count: int = 0
    last: bytes = b""
    retained: bool = False
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def rate_hz(self, now_s: float) -> float:
        """Messages per second over the last arrivals, falling when the topic goes silent."""
        if len(self.arrivals_s) < 2:
            return 0.0
        return (len(self.arrivals_s) - 1) / max(now_s - self.arrivals_s[0], 1e-3)


class Floor:
    """Everything heard, by topic; pure, the time is an argument."""

    def __init__(self) -> None:
        self.topics: dict[str, Heard] = {}
        self.count = 0

    def hear(self, topic: str, payload: bytes, *, retained: bool, now_s: float) -> None:
        """Take one message into account."""
        heard = self.topics.pop(topic, None) or Heard()
        self.topics[topic] = heard  # most recent last
        heard.count += 1
        heard.last, heard.retained = payload, retained
        heard.arrivals_s.append(now_s)
        self.count += 1
        if len(self.topics) > TOPICS:
            self.topics.pop(next(iter(self.topics)))


def watch(
    filters: Annotated[list[str] | None, typer.Argument(help="MQTT topic filters [default: shoal/v1/#]")] = None,
    host: Annotated[str, typer.Option(help="of the broker")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the broker")] = 1883,
    username: Annotated[str | None, typer.Option(help="at the broker; the password is in SHOAL_PASSWORD")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="one line per message, for pipes")] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="end after so many messages")] = None,
) -> None:
    """Live view of the bus: topics, rates and last messages."""
    wanted = filters or ["shoal/v1/#"]
    for name in wanted:
        check_filter(name)
    plain = lines or not sys.stdout.isatty()
    raise SystemExit(run_until_stopped(_watch(wanted, host, port, username, plain=plain, count=count)))


def check_filter(name: str) -> str:
    """`name` if it is an MQTT topic filter; else UsageError naming the cure."""
    levels = name.split("/")
    ends = [level for level in levels[:-1] if level == "#"]
    mixed = [level for level in levels if len(level) > 1 and ("+" in level or "#" in level)]
    if not name or "\0" in name or ends or mixed:
        raise UsageError(f"topic filter {name!r}: + stands for one whole level, # for the rest and only at the end")
    return name


def line(topic: str, payload: bytes, now_s: float) -> str:
    """One message as one line: UTC time, topic, payload; what is not text is shown as its size."""
    stamp = time.strftime("%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s % 1 * 1000):03d}"
    return f"{stamp} {topic} {_text(payload)}"


async def _watch(
    filters: list[str], host: str, port: int, username: str | None, *, plain: bool, count: int | None
) -> None:
    from messages.observe import observe

    floor = Floor()
    password = os.environ.get("SHOAL_PASSWORD") if username else None
    enough = asyncio.Event()

    async def listen(watcher: Watcher, name: str) -> None:
        async for seen in watcher.messages(name):
            if enough.is_set():
                return
            floor.hear(seen.topic, seen.payload, retained=seen.retained, now_s=time.monotonic())
            if plain:
                print(line(seen.topic, seen.payload, time.time()), flush=True)
            if count is not None and floor.count >= count:
                enough.set()

    async with observe(host, port, username=username, password=password) as watcher, asyncio.TaskGroup() as group:
        tasks = [group.create_task(listen(watcher, name), name=f"watch {name}") for name in filters]
        if not plain:
            tasks.append(group.create_task(_draw(floor, f"{host}:{port}"), name="draw"))
        await enough.wait()
        for task in tasks:
            task.cancel()


async def _draw(floor: Floor, place: str) -> None:
    from rich.live import Live

    with Live(_picture(floor, place, time.monotonic()), screen=True, auto_refresh=False) as live:
        while True:
            live.update(_picture(floor, place, time.monotonic(), rows=live.console.height - 5), refresh=True)
            await asyncio.sleep(0.25)


def _picture(floor: Floor, place: str, now_s: float, rows: int = 20) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    shown = sorted(list(floor.topics.items())[-max(rows, 1) :])
    table = Table(expand=True, title=f"{place}: {floor.count} messages, {len(floor.topics)} topics", box=None)
    for name, width in (("topic", None), ("count", 8), ("per s", 7), ("age s", 7)):
        table.add_column(name, width=width, no_wrap=True, justify="left" if width is None else "right")
    table.add_column("last", no_wrap=True, ratio=1, overflow="ellipsis")
    for topic, heard in shown:
        age_s = now_s - heard.arrivals_s[-1]
        table.add_row(
            Text(topic, style="bold" if age_s < 1 else ""),
            str(heard.count),
            f"{heard.rate_hz(now_s):.1f}",
            f"{age_s:.0f}",
            Text(_text(heard.last[:400])),
        )
    return table


def _text(payload: bytes) -> str:
    """Payload as one safe line: control characters never reach the terminal."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return f"<{len(payload)} bytes>"
    return text if text.isprintable() else text.encode("unicode_escape").decode()
