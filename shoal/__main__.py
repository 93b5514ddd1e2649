"""The `shoal` command: one door to every process and tool.

Each command imports what it needs when it is called: `shoal edge` on a small node loads no solver, and
`shoal --help` answers at once. Exit codes: 0 done, 1 failed honestly, 2 wrong usage.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NamedTuple

INTERRUPTED = "\nshoal: interrupted"
LEFT = 130
"""What shells report for a command ended by Ctrl-C."""

try:
    import typer
    from typer.core import TyperGroup
    from typer.main import get_command

    from messages.errors import ShoalError, UsageError
except KeyboardInterrupt:  # Ctrl-C before the command line was read
    print(INTERRUPTED, file=sys.stderr)
    raise SystemExit(LEFT) from None

EXTRAS = {
    "numpy": "edge",
    "ortools": "cloud",
    "influxdb_client": "cloud",
    "urllib3": "cloud",
    "aiomqtt": "tools",
    "plotly": "tools",
    "pytest": "dev",
    "jsonschema": "dev",
    "psutil": "dev",
}
"""Which extra brings a package that need not be installed."""


class Lazy(NamedTuple):
    """A command whose module is imported only when it is named."""

    module: str
    function: str
    about: str


LAZY = {
    "demo": Lazy("shoal.demo", "demo", "A whole plant end to end: plan or judge, run, break down, go on, measure."),
    "schedule": Lazy("shoal.schedule", "schedule", "Plan a problem (JSON or .fjs); explain and compare plans."),
    "swarm": Lazy(
        "shoal.swarm.command", "swarm", "A plant as a swarm: bids, awards, disturbances; every promise checked."
    ),
    "choose": Lazy("shoal.choose", "choose", "Show the plans to choose from; with a number, choose one."),
    "workpiece": Lazy("shoal.workpiece", "workpiece", "Show a workpiece: state, place, and its whole history."),
    "models": Lazy("shoal.models", "models", "Versions of learned models: show, release, roll back, pin, import."),
    "experiment": Lazy("shoal.experiment", "experiment", "Claims put to the test: edge against cloud, and more."),
    "torture": Lazy("shoal.torture.command", "command", "Kill everything again and again; prove nothing was lost."),
    "query": Lazy("shoal.query", "query", "Read telemetry and records back from the store."),
    "backup": Lazy("shoal.backup", "backup", "Copy store, ledger, plans and keys of a cloud while it runs."),
    "restore": Lazy("shoal.backup", "restore", "Put such a copy back."),
    "watch": Lazy("shoal.watch", "watch", "Live view of the bus: topics, rates and last messages."),
    "doctor": Lazy("shoal.doctor", "doctor", "Check this machine and the broker; name the cure for what is wrong."),
    "topics": Lazy("shoal.topics", "topics", "The topic map; --write regenerates docs, schemas and AsyncAPI."),
}


class FrontDoor(TyperGroup):
    """Lists every command at once and loads a lazy one only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in ORDER if name in self.commands or name in LAZY]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in LAZY:
            return super().get_command(ctx, cmd_name)
        return get_command(_one(_nothing, cmd_name, LAZY[cmd_name].about))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in LAZY:
            lazy = LAZY[name]
            function = getattr(importlib.import_module(lazy.module), lazy.function)
            command = get_command(function if isinstance(function, typer.Typer) else _one(function, name, None))
        return name, command, rest


app = typer.Typer(
    cls=FrontDoor,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A factory floor as a self-scheduling, carbon-aware swarm over one MQTT bus.",
)
ORDER = (
    "demo",
    "sim",
    "edge",
    "cloud",
    "schedule",
    "swarm",
    "choose",
    "workpiece",
    "models",
    "experiment",
    "query",
    "backup",
    "restore",
    "torture",
    "watch",
    "doctor",
    "topics",
)

Config = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="settings file (TOML)", show_default=False)
]
Check = Annotated[bool, typer.Option("--check", help="print the effective settings and exit")]


@app.command()
def sim(config: Config, check: Check = False) -> None:
    """Simulated machines of a plant: firmware that publishes raw readings and obeys actions."""
    _process("sim", "firmware_sim", "SimSettings", config, check)


@app.command()
def edge(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="settings file (TOML)", show_default=False)
    ] = None,
    check: Check = False,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--check-mapping", metavar="FILE", help="show what foreign messages become by this file, and exit"
        ),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="with --check-mapping: topic of one message")] = None,
    payload: Annotated[str | None, typer.Option(help="its payload; absent: --sample, or standard input")] = None,
    sample: Annotated[
        Path | None, typer.Option(metavar="FILE", help="lines `topic payload`, as mosquitto_sub -v prints; - is stdin")
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="hand over what this disk still holds, take nothing in, and end")
    ] = False,
    retire: Annotated[
        bool, typer.Option("--retire", help="the same for good: take back retained messages, refuse to start again")
    ] = False,
    unretire: Annotated[bool, typer.Option("--unretire", help="let a retired node start again")] = False,
) -> None:
    """One edge node: take in, clean, keep, execute."""
    ends = [name for name, asked in {"drain": drain, "retire": retire, "unretire": unretire}.items() if asked]
    if len(ends) + check + (mapping is not None) > 1:
        raise UsageError("--check, --check-mapping, --drain, --retire and --unretire each stand alone")
    if mapping is not None:
        from shoal.mapping import check_mapping

        raise typer.Exit(check_mapping(mapping, config, topic, payload, sample))
    if topic is not None or payload is not None or sample is not None:
        raise UsageError("--topic, --payload and --sample go with --check-mapping FILE")
    if config is None:
        raise UsageError("shoal edge needs its settings file: --config FILE")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # matrices are small here: more threads only wait for each other
    module, function = ("endings", ends[0]) if ends else ("service", "run")
    _process("edge", "edge", "EdgeSettings", config, check, module=module, function=function)


@app.command()
def cloud(
    config: Config,
    check: Check = False,
    init_store: Annotated[bool, typer.Option("--init-store", help="make database and retention, and exit")] = False,
) -> None:
    """The fleet's services: ingest, store, plan, monitor."""
    if init_store:
        from cloud.settings import CloudSettings
        from cloud.stores.init import init_store as made
        from messages.settings import load

        for line in made(load(CloudSettings, config).store_file):
            typer.echo(line)
        return
    _process("cloud", "cloud", "CloudSettings", config, check)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"shoal {installed('shoal')}")
        except PackageNotFoundError:
            typer.echo("shoal (not installed, run from its source)")
        raise typer.Exit()


def main() -> None:
    """Run the command line; the entry point of `shoal`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot write °C still gets its answer
    try:
        _run()
    except ShoalError as error:
        from messages.process import report

        raise SystemExit(report(error)) from None
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in EXTRAS:
            raise
        named = " ".join(sys.argv[1:2])
        cure = f"pip install 'shoal[{_extra(named, missing)}]'"
        print(f"shoal: shoal {named} needs {missing}, which is not installed: {cure}", file=sys.stderr)
        raise SystemExit(2) from None
    except (typer.Exit, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == LEFT:  # typer ends so, without a word
            print(INTERRUPTED, file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        raise SystemExit(LEFT) from None
    except BrokenPipeError:  # the reader of a pipe has seen enough; stdout must not be flushed into it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            from messages.process import defect

            raise SystemExit(defect(error)) from None
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = error.filename or "standard output, or a file it writes"
        print(f"shoal: no room is left on the disk of {where}: make room, or write elsewhere", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:  # the last net: a defect of ours is said in one line, with all there is in the log
        from messages.process import defect

        raise SystemExit(defect(error)) from None


def _run() -> None:
    """The command; what it printed is out when this returns, so that a full disk is told and not swallowed."""
    try:
        app(prog_name="shoal")
    finally:
        sys.stdout.flush()


def _extra(command: str, missing: str) -> str:
    roles = {
        "sim": "sim",
        "cloud": "cloud",
        "schedule": "cloud",
        "swarm": "cloud",
        "query": "cloud",
        "workpiece": "cloud",
        "models": "cloud",
        "backup": "cloud",
        "restore": "cloud",
        "demo": "all",
        "experiment": "all",
        "torture": "all",
    }
    role = roles.get(command)
    return role if role and EXTRAS[missing] != "tools" else "all" if role == "all" else EXTRAS[missing]


def _process(
    process: str, package: str, name: str, config: Path, check: bool, *, module: str = "service", function: str = "run"
) -> None:
    """Settings, logging, and the service until it ends or is stopped."""
    from messages.logs import configure
    from messages.process import run_until_stopped
    from messages.settings import describe, load

    settings = load(getattr(importlib.import_module(f"{package}.settings"), name), config)
    if check:
        settings.read_plant()  # what the settings name must fit, too
        typer.echo(describe(settings), nl=False)
        for line in settings.facts():
            typer.echo(f"# {line}")
        return
    bound = {key: getattr(settings, key) for key in ("site", "node") if isinstance(getattr(settings, key, None), str)}
    configure(process, **bound)
    service = importlib.import_module(f"{package}.{module}")
    run: Callable[..., Coroutine[Any, Any, None]] = getattr(service, function)
    given = {} if process != "cloud" or settings.learning is None else {"simulate": _simulation(settings)}
    raise SystemExit(run_until_stopped(run(settings, **given)))


def _simulation(settings: Any) -> Callable[..., Any]:
    """What a cloud validates versions of models by: it knows no simulator itself."""
    from shoal.simulated import Simulation

    return Simulation(settings.learning.simulation, settings.data)


def _one(function: Callable[..., Any], name: str, about: str | None) -> typer.Typer:
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name=name, help=about)(function)
    return single


def _nothing() -> None:
    """Stands for a command that is not loaded yet."""


if __name__ == "__main__":
    main()
