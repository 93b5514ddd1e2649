"""`shoal workpiece`: where a workpiece is, what it waits for, and everything that happened to it.

    shoal workpiece b07 --site s1                 its baton, as the judge says it on the bus
    shoal workpiece b07 --data cloud-data         its history from the store, however long ago it was made
    shoal workpiece b07 --data out/swarm          its baton at the end of `shoal swarm … --out out/swarm`

Exit codes: 0 shown, 1 nobody knows of it, 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cloud.settings import CloudSettings
from cloud.stores import SqliteStore, StoreSettings
from messages.contracts import OrderedJob, Record
from messages.dispatch.workpieces import Workpieces
from messages.errors import ShoalError, UsageError
from messages.negotiation import Step, Workpiece
from messages.process import run_until_stopped
from messages.route import check_id, topic_id
from messages.routes import WORKPIECE
from messages.settings import load
from shoal.query import iso
from shoal.swarm import batons

LOOK_S = 5.0
"""A baton that is retained has come within this time."""
READ_AT_ONCE = 10_000
KINDS = ("started", "finished", "interrupted", "part")


def workpiece(
    job: Annotated[str, typer.Argument(help="its name, as it was ordered")],
    site: Annotated[str | None, typer.Option(help="whose; absent: s1, or that of the run", show_default=False)] = None,
    host: Annotated[str, typer.Option(help="of the broker")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the broker")] = 1883,
    username: Annotated[str | None, typer.Option(help="at the broker; the password is in SHOAL_PASSWORD")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="read the store in this directory, or what `shoal swarm --out DIR` wrote there"
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="read the store of these settings instead")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: one object")] = False,
) -> None:
    """Show a workpiece: state, place, and its whole history."""
    if site is not None:
        check_id("site", site)
    if data is not None and config is not None:
        raise UsageError("give --data or --config, not both")
    if data is not None and (data / batons.FILE).exists():
        show(batons.read(data / batons.FILE, job, site=site), as_json=as_json)
        return
    site = site or "s1"
    if data is None and config is None:
        password = os.environ.get("SHOAL_PASSWORD") if username else None
        raise SystemExit(run_until_stopped(_from_bus(job, site, host, port, username, password, as_json)))
    store = load(CloudSettings, config).store_file if config else SqliteStore().below(data or Path())
    steps = history(job, site, store)
    if not steps:
        raise ShoalError(f"no record of {job!r} at {site!r} in {store.path}; is it the right store and site?")
    if as_json:
        print(json.dumps({"job": job, "steps": [one.model_dump(exclude_none=True) for one in steps]}))
        return
    Console(highlight=False).print(table(f"{job}: {_count(steps)}", steps))


def history(job: str, site: str, settings: StoreSettings) -> list[Step]:
    """What the records of a store say of one workpiece."""
    with settings.open(read_only=True) as store:

        def records() -> Iterable[Record]:
            cursor = 0
            while rows := store.records(after=cursor, limit=READ_AT_ONCE, kinds=KINDS):
                cursor = rows[-1].cursor
                yield from (row.record for row in rows if row.site == site)

        return steps_of(job, records())


def steps_of(job: str, records: Iterable[Record]) -> list[Step]:
    """Its steps, in the order of time."""
    pieces = Workpieces()
    pieces.add([OrderedJob(job=job, product=job)])
    for record in records:
        pieces.on_record(record)
    [baton] = pieces.news({}, (), 0)
    return baton.steps


async def _from_bus(
    job: str, site: str, host: str, port: int, username: str | None, password: str | None, as_json: bool
) -> None:
    from messages.observe import observe

    async with observe(host, port, username=username, password=password) as watcher:
        try:
            async with asyncio.timeout(LOOK_S):
                async for seen in watcher.messages(WORKPIECE, site=site, workpiece=topic_id(job)):
                    if seen.message is not None and seen.message.job == job:
                        show(seen.message, as_json=as_json)
                        return
        except TimeoutError:
            raise ShoalError(
                f"no baton of {job!r} at {site!r}: no judge has it in an open order or among the last that ended; "
                "what was done to it long ago is in the store: add --data DIR, the cloud's directory"
            ) from None


def show(baton: Workpiece, *, as_json: bool) -> None:
    """To people, or to a program."""
    if as_json:
        print(baton.encode().decode())
        return
    next_op = "" if baton.op is None else f", operation {baton.op}"
    place = f" at {baton.place}" if baton.place else ""
    why = f" ({baton.why})" if baton.why else ""
    title = f"{baton.job} ({baton.product}): {baton.state}{next_op}{place}{why}, {_count(baton.steps)}"
    Console(highlight=False).print(table(title, baton.steps))


def table(title: str, steps: Iterable[Step]) -> Table:
    """One row per run."""
    shown = Table(title=title, title_justify="left", box=None, header_style="bold")
    for head in ("op", "machine", "start (UTC)", "end (UTC)", "kWh", ""):
        shown.add_column(head, justify="right" if head in ("op", "kWh") else "left")
    for one in steps:
        remark = "interrupted" if one.interrupted else "at work" if one.end_at is None else ""
        shown.add_row(
            str(one.op),
            one.machine,
            iso(one.start_at),
            "" if one.end_at is None else iso(one.end_at),
            "" if one.energy_kwh is None else f"{one.energy_kwh:,.2f}",
            remark,
        )
    return shown


def _count(steps: list[Step]) -> str:
    return f"{len(steps)} run" + ("" if len(steps) == 1 else "s")
