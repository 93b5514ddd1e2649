"""`shoal demo`: a plant plans itself, runs, breaks down, plans again, and is measured. About a minute.

Everything is real but the machines: a private Mosquitto, four edge nodes, the cloud, each a process of its own, on
one lock-step plant clock. On purpose and in view: a kiln breaks down half way, the broker is killed once, an edge
node is killed once. Exit code 0 only if no reading was lost or duplicated and every batch was made. A plant that takes
things apart (`--plant remanufacturing`) is judged task by task instead: `shoal.remanufacture`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from cloud.settings import CloudSettings, PlannerSettings
from cloud.stores import Influx1Store, SqliteStore
from cloud.stores.influxql import InfluxQl, name
from edge.settings import EdgeSettings
from firmware_sim.settings import Breakdown, Faults, SimSettings
from firmware_sim.truth import TrueBurst, read_truth
from messages.broker import find_mosquitto
from messages.carbon import day_of_carbon
from messages.clock import SECOND
from messages.connect import BrokerSettings
from messages.contracts import Signal
from messages.errors import BusLost, StoreError, UsageError
from messages.logs import configure
from messages.observe import observe
from messages.plant import Plant, explain, load_plant
from messages.routes import SIGNAL
from messages.settings import Settings
from shoal.audit import audit
from shoal.outcome import Files, ordered, outcome_of, write_outcome
from shoal.remanufacture import Play
from shoal.script import Script, Tell, Verdict
from shoal.stage import Stage, in_thread
from shoal.view import View

PLANTS = Path(__file__).parent.parent / "firmware_sim" / "plants"
CERAMIC = PLANTS / "ceramic.toml"
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
"""Says that a directory holds a run, and is locked while it runs."""
LOG = "demo.log"
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PUBLISH_S = 10.0
"""Real time a message of the demo's own has to reach the broker."""
DRAIN_S = 30.0
"""Real time the last readings have to reach the store."""
TICK_S = 0.02
"""Least real time of a tick of one plant minute, so that people can follow and the picture is not ahead."""
Result = TypeVar("Result")


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="no picture; the last line is the result as JSON")] = False,
    out: Annotated[
        Path | None, typer.Option(help="keep files here: report.html, logs, store (default: out/demo)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the simulated plant and the solver")] = 1,
    plant: Annotated[str, typer.Option(help="ceramic, remanufacturing, or a plant file (TOML or JSON)")] = "ceramic",
    quiet: Annotated[bool, typer.Option("--quiet", help="no live picture")] = False,
    influx: Annotated[
        str | None, typer.Option(metavar="URL", help="readings go to this InfluxDB 1.x, for the Grafana dashboards")
    ] = None,
    database: Annotated[str, typer.Option(help="of --influx: made if it is not there; must be empty")] = "shoal",
) -> None:
    """Run a whole plant on this computer and watch it plan, break down, plan again and be measured."""
    console = Console(stderr=as_json)
    try:
        plant_file = file_of(plant)
        found = load_plant(plant_file)
        find_mosquitto()  # before anything is cleared away or started
        telemetry = empty_influx(influx, database) if influx else SqliteStore()
        with claimed((out or Path("out") / "demo").resolve()) as directory:
            files = Files(directory, telemetry)
            outcome = _run_and_measure(console, files, plant_file, found, seed, not (as_json or quiet))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _stay_stopped()
        console.print("stopped; all processes ended")
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(outcome.as_json()))
    for why in outcome.failures:
        print(f"shoal: {why}", file=sys.stderr)
    raise typer.Exit(0 if outcome.good else 1)


def file_of(plant: str) -> Path:
    """One of ours by its name, else a file."""
    ours = PLANTS / f"{plant}.toml"
    return ours if "/" not in plant and ours.exists() else Path(plant).resolve()


def empty_influx(url: str, database: str) -> Influx1Store:
    """A database for one run. UsageError: there is no InfluxDB, or there are readings in it already, which the verdict
    could not tell from the run's.
    """
    try:
        store = Influx1Store(url=url, database=database)
    except ValidationError as error:
        raise UsageError(f"--influx {url}: {explain(error, Influx1Store)}") from None
    with closing(store.http()) as http:
        ql = InfluxQl(http, database, init="--database")
        try:
            ql.tell(f"CREATE DATABASE {name(database)}")
            found = ql.tell(f"SHOW MEASUREMENTS ON {name(database)} LIMIT 1")
        except StoreError as error:
            raise UsageError(f"--influx: {str(error).removesuffix('; trying again')}") from None
    if found:
        raise UsageError(f"database {database!r} at {url} is not empty: name another with --database, or drop it")
    return store


@contextmanager
def claimed(directory: Path) -> Iterator[Path]:
    """An empty directory for one run, its own until the end. UsageError: it holds something that is no earlier run,
    another run has it, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / MARK).exists() and any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty and holds no earlier run; choose another --out")
        mark = (directory / MARK).open("a")
    except OSError as error:
        raise _unwritable(directory, error) from None
    with mark:
        try:
            _lock(mark, directory)
            for old in directory.iterdir():
                if old.name != MARK:
                    shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            mark.truncate(0)
            mark.write("the files of one `shoal demo`; the next one replaces them\n")
            mark.flush()
        except OSError as error:
            raise _unwritable(directory, error) from None
        yield directory


def _lock(mark: TextIO, directory: Path) -> None:
    """Until `mark` is closed, or this process gone, however it went."""
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f"another `shoal demo` runs in {directory}; wait for its end, or choose another --out"
        ) from None


def _unwritable(directory: Path, error: OSError) -> UsageError:
    return UsageError(f"{directory} cannot be written ({error.strerror or error}); choose another --out")


def _run_and_measure(console: Console, files: Files, plant_file: Path, plant: Plant, seed: int, live: bool) -> Verdict:
    began = time.monotonic()
    # The run ends at about now: dashboards that look back find it.
    start_at = (time.time_ns() // 1000 - round(START_BEFORE_H * HOUR)) // HOUR * HOUR
    carbon = day_of_carbon(start_at)
    if plant.circular is None:
        script = _planned(files, plant_file, plant, seed, start_at, carbon)
    else:
        script = Play(files, plant_file, plant, seed, start_at, carbon, FAULTS).script()
    view = script.view
    with (files.directory / LOG).open("w", encoding="utf-8") as log_file:
        # What the bus says when the broker dies belongs there, not on the screen.
        configure("demo", stream=log_file)
        try:
            run = _run(console, Stage(files.directory, plant, start_at, script.cast), files, script, carbon, live=live)
            # From here to its end a signal interrupts nothing half way, not even the making of the loop.
            early: list[int] = []
            before = {number: signal.signal(number, lambda number, _: early.append(number)) for number in STOPS}
            try:
                given_up = asyncio.run(_stoppable(run, early))
            finally:
                for number, handler in before.items():
                    if signal.getsignal(number) is not signal.SIG_IGN:  # `_stay_stopped`
                        signal.signal(number, handler)
        finally:
            configure("demo", stream=sys.stderr)
    view.phase = "measured"
    # Every process has ended: from here on Ctrl-C stops at once.
    outcome, report = script.measure(time.monotonic() - began, given_up or "")
    outcome.show(console)
    console.print(f"report: {report}", soft_wrap=True)
    return outcome


def _planned(files: Files, plant_file: Path, plant: Plant, seed: int, start_at: int, carbon: Signal) -> Script:
    """The demo of a plant that is planned as a whole."""
    view = View(plant, start_at)

    def cast(port: int, clock: str) -> Mapping[str, tuple[str, Settings]]:
        return settings_of(files, plant_file, plant, seed, start_at, port, clock)

    def measure(seconds: float, given_up: str) -> tuple[Verdict, Path]:
        outcome = outcome_of(files, plant, carbon, ordered(plant), seconds=seconds, given_up=given_up)
        return outcome, write_outcome(files, plant, outcome, list(view.told))

    return Script(view, cast, ((BROKER_DIES_H, _broker_dies), (NODE_DIES_H, _node_dies)), measure)


async def _stoppable(run: Coroutine[Any, Any, Result], early: list[int]) -> Result:
    """The first SIGINT, SIGTERM or SIGHUP cancels `run`; it then ends in order, which further ones do not disturb.

    `early`: those that came before we listened.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(run)
    for number in STOPS:
        loop.add_signal_handler(number, _cancel_once(task))
    if early:
        task.cancel()
    try:
        return await task
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)
        if task.cancelled():
            _stay_stopped()


def _stay_stopped() -> None:
    """Whoever presses Ctrl-C once more now would only disturb the end, which is a matter of moments."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def _cancel_once(task: asyncio.Task[Any]) -> Callable[[], None]:
    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    return stop


async def _run(
    console: Console, stage: Stage, files: Files, script: Script, carbon: Signal, *, live: bool
) -> str | None:
    """The run itself; returns why it was given up, if it was."""
    view = script.view
    began = time.monotonic()
    async with stage, observe(stage.broker.host, stage.broker.port, retry_s=0.3) as watcher:
        picture = Live(get_renderable=view.draw, console=console, refresh_per_second=5, screen=False)
        with picture if live else nullcontext():
            following = asyncio.create_task(view.follow(watcher))
            try:
                tell_carbon = partial(watcher.publish, SIGNAL, carbon, site=stage.plant.site, signal=carbon.name)
                await _until_sent(tell_carbon)
                await stage.up()
                view.phase = "running"
                given_up = await _play(stage, script, began, tell_carbon)
                view.phase = "draining"
                await _drain(stage, files)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    return given_up


async def _until_sent(send: Callable[[], Awaitable[None]]) -> None:
    """Until the broker has it; BusLost after PUBLISH_S."""
    deadline = time.monotonic() + PUBLISH_S
    while True:
        try:
            return await send()
        except BusLost:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


async def _play(stage: Stage, script: Script, began: float, tell_carbon: Tell) -> str | None:
    """Step the plant until all batches are made, with the incidents on the way; returns why it gave up, if it did."""
    view, incidents = script.view, list(script.incidents)
    under_way: list[asyncio.Task[None]] = []
    try:
        while not view.finished:
            due = time.monotonic() + TICK_S
            await stage.step()
            view.now, view.elapsed_s = stage.clock.now, time.monotonic() - began
            hour = (stage.clock.now - stage.start_at) / HOUR
            if incidents and hour >= incidents[0][0]:
                under_way.append(asyncio.create_task(incidents.pop(0)[1](stage, view, tell_carbon)))
            for task in under_way:
                if task.done():
                    task.result()  # what went wrong in it is raised here
            if hour > LONGEST_H:
                given_up = f"not done after {LONGEST_H:g} plant hours: given up"
                view.say(given_up, "bold red")
                return given_up
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*under_way)
        return None
    finally:
        # Nothing may start a process again while the stage is being cleared.
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _broker_dies(stage: Stage, view: View, tell_carbon: Tell) -> None:
    view.say("the broker is killed (SIGKILL)", "bold red")
    await in_thread(stage.broker.kill)
    await asyncio.sleep(BROKER_DOWN_S)
    await in_thread(stage.broker.start)
    view.say("the broker is back", "green")
    await _until_sent(tell_carbon)  # a broker that was killed may have forgotten what it retained


async def _node_dies(stage: Stage, view: View, tell_carbon: Tell) -> None:
    view.say(f"edge node {VICTIM} is killed (SIGKILL)", "bold red")
    await in_thread(partial(stage.kill, VICTIM))
    await asyncio.sleep(NODE_DOWN_S)
    stage.start(VICTIM)
    view.say(f"edge node {VICTIM} is started again", "green")


async def _drain(stage: Stage, files: Files) -> None:
    """Let the last readings reach the store: until everything is accounted for, or DRAIN_S."""
    await in_thread(partial(stage.stop, "sim"))
    truth = list(await in_thread(partial(read_truth, files.truth)))
    deadline = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline:
        stage.check()
        if await in_thread(partial(_accounted_for, truth, files)):
            return
        await asyncio.sleep(0.5)


def _accounted_for(truth: list[TrueBurst], files: Files) -> bool:
    with files.store.open(read_only=True) as store:
        return audit(truth, store).holds


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
            store=files.telemetry,
            plant=plant_file,
            planner=PlannerSettings(budget_s=SOLVER_S, seed=seed),
        ),
    )
    return cast
