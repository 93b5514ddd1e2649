"""`shoal demo`: the ceramic plant plans itself, runs, breaks down, plans again, and is measured. About a minute.

Everything is real but the machines: a private Mosquitto, four edge nodes, the cloud, each a process of its own, on
one lock-step plant clock. On purpose and in view: a kiln breaks down half way, the broker is killed once, an edge
node is killed once. Exit code 0 only if no reading was lost or duplicated and every batch was made.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from cloud.settings import CloudSettings, PlannerSettings
from edge.settings import EdgeSettings
from firmware_sim.settings import Breakdown, Faults, SimSettings
from firmware_sim.truth import read_truth
from messages.carbon import day_of_carbon
from messages.clock import SECOND
from messages.connect import BrokerSettings
from messages.errors import UsageError
from messages.logs import configure
from messages.observe import observe
from messages.plant import Plant, load_plant
from messages.routes import SIGNAL
from messages.settings import Settings
from shoal.audit import audit
from shoal.outcome import Files, Outcome, outcome_of, write_outcome
from shoal.stage import Stage
from shoal.view import View

CERAMIC = Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml"
HOUR = 3600 * SECOND
LONGEST_H = 72.0
"""Plant hours after which the demo gives up."""
BROKER_DIES_H = 6.0
BROKER_DOWN_S = 1.0
NODE_DIES_H = 10.0
NODE_DOWN_S = 1.0
KILN_DIES_H = 15.0
KILN_REPAIR_H = 5.0
VICTIM = "drying"
START_BEFORE_H = 36.0
SOLVER_S = 6.0
FAULTS = Faults(
    missing=0.002,
    spike=0.001,
    out_of_range=0.0005,
    stuck=0.00002,
    drift=0.00001,
    wrong_unit=0.001,
    duplicate=0.005,
    duplicate_burst=0.002,
    out_of_order=0.005,
    out_of_order_burst=0.001,
)
MARK = "shoal-demo.txt"
DRAIN_S = 30.0
"""Real time the last readings have to reach the store."""
TICK_S = 0.02
"""Least real time of a tick of one plant minute, so that people can follow and the picture is not ahead."""


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="no picture; the last line is the result as JSON")] = False,
    out: Annotated[
        Path | None, typer.Option(help="keep files here: report.html, logs, store (default: out/demo)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the simulated plant and the solver")] = 1,
    plant: Annotated[Path, typer.Option(help="plant file, TOML or JSON")] = CERAMIC,
    quiet: Annotated[bool, typer.Option("--quiet", help="no live picture")] = False,
) -> None:
    """Run a whole plant on this computer and watch it plan, break down, plan again and be measured."""
    console = Console(stderr=as_json)
    files = Files(fresh((out or Path("out") / "demo").resolve()))
    log_file = (files.directory / "demo.log").open("w")
    configure("demo", stream=log_file)  # what the bus says when the broker dies belongs there, not on the screen
    try:
        outcome = asyncio.run(_demo(console, files, plant.resolve(), seed, live=not (as_json or quiet)))
    except KeyboardInterrupt:
        console.print("stopped; all processes ended")
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(outcome.as_json()))
    raise typer.Exit(0 if outcome.good else 1)


def fresh(directory: Path) -> Path:
    """An empty directory for a run; UsageError if it holds something that is no earlier run."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            raise UsageError(f"{directory} is not empty and holds no earlier run; choose another --out")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).write_text("the files of one `shoal demo`; the next one replaces them\n")
    return directory


async def _demo(console: Console, files: Files, plant_file: Path, seed: int, *, live: bool) -> Outcome:
    began = time.monotonic()
    plant = load_plant(plant_file)
    # The run ends at about now: dashboards that look back find it.
    start_at = (time.time_ns() // 1000 - round(START_BEFORE_H * HOUR)) // HOUR * HOUR
    carbon = day_of_carbon(start_at)
    view = View(plant, start_at)

    def cast(port: int, clock: str) -> Mapping[str, tuple[str, Settings]]:
        return settings_of(files, plant_file, plant, seed, start_at, port, clock)

    async with Stage(files.directory, plant, start_at, cast) as stage:
        watcher_of = observe(stage.broker.host, stage.broker.port, retry_s=0.3)
        async with watcher_of as watcher:
            with (
                Live(get_renderable=view.draw, console=console, refresh_per_second=5, screen=False)
                if live
                else (nullcontext())
            ):
                following = asyncio.create_task(view.follow(watcher))
                try:
                    await watcher.publish(SIGNAL, carbon, site=plant.site, signal=carbon.name)
                    await stage.up()
                    view.phase = "running"
                    await _play(stage, view, began)
                    view.phase = "draining"
                    await _drain(stage, files, plant)
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
    view.phase = "measured"
    outcome = outcome_of(files, plant, carbon, seconds=time.monotonic() - began)
    report = write_outcome(files, plant, outcome, [(hour, text) for hour, text in view.told])
    outcome.show(console)
    console.print(f"report: {report}", soft_wrap=True)
    return outcome


async def _play(stage: Stage, view: View, began: float) -> None:
    """Step the plant until all batches are made, with the incidents on the way."""
    incidents = [
        (BROKER_DIES_H, _broker_dies),
        (NODE_DIES_H, _node_dies),
    ]
    waiting: set[asyncio.Task[None]] = set()
    while not view.finished:
        due = time.monotonic() + TICK_S
        await stage.step()
        view.now, view.elapsed_s = stage.clock.now, time.monotonic() - began
        hour = (stage.clock.now - stage.start_at) / HOUR
        if incidents and hour >= incidents[0][0]:
            task = asyncio.create_task(incidents.pop(0)[1](stage, view))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        if hour > LONGEST_H:
            view.say(f"not done after {LONGEST_H:g} plant hours: giving up", "bold red")
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.gather(*waiting)


async def _broker_dies(stage: Stage, view: View) -> None:
    view.say("the broker is killed (SIGKILL)", "bold red")
    await asyncio.to_thread(stage.broker.kill)
    await asyncio.sleep(BROKER_DOWN_S)
    await asyncio.to_thread(stage.broker.start)
    view.say("the broker is back", "green")


async def _node_dies(stage: Stage, view: View) -> None:
    view.say(f"edge node {VICTIM} is killed (SIGKILL)", "bold red")
    await asyncio.to_thread(stage.kill, VICTIM)
    await asyncio.sleep(NODE_DOWN_S)
    stage.start(VICTIM)
    view.say(f"edge node {VICTIM} is started again", "green")


async def _drain(stage: Stage, files: Files, plant: Plant) -> None:
    """Let the last readings reach the store: until everything is accounted for, or DRAIN_S."""
    await asyncio.to_thread(stage.stop, "sim")
    truth = list(await asyncio.to_thread(read_truth, files.truth))
    deadline = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline:
        stage.check()
        with files.store.open(read_only=True) as store:
            if (await asyncio.to_thread(audit, truth, store)).holds:
                return
        await asyncio.sleep(0.5)


def settings_of(
    files: Files, plant_file: Path, plant: Plant, seed: int, start_at: int, port: int, clock: str
) -> dict[str, tuple[str, Settings]]:
    """Who plays: the simulator, one edge node per workshop, the cloud."""
    last = [workshop.name for workshop in plant.workshops if workshop.machines][-1]
    cast: dict[str, tuple[str, Settings]] = {
        "sim": (
            "sim",
            SimSettings(
                plant=plant_file,
                broker=BrokerSettings(port=port),
                clock=clock,
                start=start_at,
                seed=seed,
                truth=files.truth,
                faults=FAULTS,
                scenario=(Breakdown(workshop=last, at_h=KILN_DIES_H, repair_h=KILN_REPAIR_H),),
            ),
        )
    }
    for node in plant.nodes:
        cast[node] = (
            "edge",
            EdgeSettings.model_validate(
                {
                    "site": plant.site,
                    "node": node,
                    "plant": plant_file,
                    "local": BrokerSettings(port=port),
                    "data": files.directory / node,
                    "clock": clock,
                }
            ),
        )
    cast["cloud"] = (
        "cloud",
        CloudSettings(
            sites=(plant.site,),
            broker=BrokerSettings(port=port),
            clock=clock,
            data=files.cloud,
            plant=plant_file,
            planner=PlannerSettings(budget_s=SOLVER_S, seed=seed),
        ),
    )
    return cast
