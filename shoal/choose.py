"""`shoal choose`: the plans that no other beats, and an operator's word which of them it shall be.

    shoal choose --site s1                    what there is to choose from, and what is in force
    shoal choose 2 --site s1 --by eva         plan 2, and later plans by the same preference

Exit codes: 0 said, 1 the planner did not take it up within `--wait` seconds, 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import getpass
import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from messages.contracts import Choice, Choices
from messages.errors import ShoalError, UsageError
from messages.process import run_until_stopped
from messages.route import check_id
from messages.routes import CHOICE, CHOICES

LOOK_S = 5.0
"""A planner that has choices has said them within this time: the topic is retained."""


def choose(
    choice: Annotated[int | None, typer.Argument(min=0, help="number of a plan; none: show them")] = None,
    site: Annotated[str, typer.Option(help="whose planner")] = "s1",
    by: Annotated[str | None, typer.Option(help="who chooses, for the record [default: the user]")] = None,
    host: Annotated[str, typer.Option(help="of the broker")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the broker")] = 1883,
    username: Annotated[str | None, typer.Option(help="at the broker; the password is in SHOAL_PASSWORD")] = None,
    wait: Annotated[float, typer.Option(min=0.1, max=3600, help="seconds until the planner must have answered")] = 60.0,
) -> None:
    """Show the plans to choose from; with a number, choose one."""
    check_id("site", site)
    password = os.environ.get("SHOAL_PASSWORD") if username else None
    who = by or getpass.getuser()
    raise SystemExit(run_until_stopped(_choose(choice, site, who, host, port, username, password, wait)))


async def _choose(
    choice: int | None,
    site: str,
    by: str,
    host: str,
    port: int,
    username: str | None,
    password: str | None,
    wait: float,
) -> None:
    from messages.observe import observe

    async with observe(host, port, username=username, password=password) as watcher:
        news: asyncio.Queue[Choices] = asyncio.Queue(maxsize=100)

        async def listen() -> None:
            async for seen in watcher.messages(CHOICES, site=site):
                if seen.message is not None and not news.full():
                    news.put_nowait(seen.message)

        listening = asyncio.create_task(listen())
        try:
            offered = await _next(news, LOOK_S, f"the planner of {site!r} offers nothing yet; has it an order?")
            Console().print(table(offered))
            if choice is None:
                return
            if choice >= len(offered.alternatives):
                raise UsageError(f"choice {choice}: there are 0 to {len(offered.alternatives) - 1}")
            await watcher.publish(CHOICE, Choice(revision=offered.revision, choice=choice, by=by), site=site)
            taken = offered
            while taken.revision == offered.revision or taken.chosen_by != by:
                taken = await _next(news, wait, "the planner has not taken it up; is it running?")
            Console().print(table(taken))
        finally:
            listening.cancel()


async def _next(news: asyncio.Queue[Choices], seconds: float, otherwise: str) -> Choices:
    try:
        async with asyncio.timeout(seconds):
            return await news.get()
    except TimeoutError:
        raise ShoalError(otherwise) from None


def table(offered: Choices) -> Table:
    """The alternatives, the one in force marked."""
    by = f", preferred by {offered.chosen_by}" if offered.chosen_by else ""
    shown = Table(title=f"revision {offered.revision}: {', '.join(offered.objectives)}{by}", title_justify="left")
    known = [key for key in ("energy_kwh", "carbon_kg", "cost", "peak_kw") if _any(offered, key)]
    for head in ("plan", "ends (UTC)", "late", *known):
        shown.add_column(head, justify="right")
    for one in offered.alternatives:
        mark = " in force" if one.choice == offered.in_force else ""
        ends = datetime.fromtimestamp(one.ends_at / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
        values = [getattr(one, key) for key in known]
        shown.add_row(
            f"{one.choice}{mark}",
            ends,
            f"{one.tardiness_s / 3600:,.1f} h",
            *("" if value is None else f"{value:,.1f}" for value in values),
        )
    return shown


def _any(offered: Choices, key: str) -> bool:
    return any(getattr(one, key) is not None for one in offered.alternatives)
