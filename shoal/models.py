"""`shoal models`: versions of models, who runs which, and an operator's word against the automatic.

    shoal models list                                   every version that is kept, and where it runs
    shoal models show cell 7                            one version: metrics, its trial, its history
    shoal models release cell 7 --why "…"               the fleet gets it now; --try: through simulation and canaries;
                                                        --try --unvalidated: through canaries alone
    shoal models rollback cell --why "…"                ends a trial; else the fleet gets back what it ran before
    shoal models pin cell 5 --node s1/press-4 --why "…" this node keeps it, until unpin
    shoal models nodes cell                             who learns, strikes, evidence, quarantine
    shoal models lift cell press-4 --why "…"            nothing is held against this node; put-away: quarantine it
    shoal models rebase cell 7 --why "…"                the next round begins with this version
    shoal models import detector.onnx --model detector --interface detector.toml
    shoal models key                                    the key that nodes must know the cloud by

They work on the registry in the cloud's data directory. What changes something is left there as a wish, which the
running cloud takes up; exit codes: 0 done, 1 the cloud refused it or did not take it up in time, 2 wrong usage.
"""

from __future__ import annotations

import getpass
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from cloud.learning_settings import first_of, read_interface
from cloud.registry import EVENTS, FILE, Registry
from cloud.release_state import State
from cloud.settings import KEY_FILE
from cloud.versions import ROUND_KINDS, Draft, Event, Kind, Version
from messages.errors import BadMessage, ShoalError, UsageError
from messages.learning import MAX_ARTEFACT
from messages.route import check_id
from shoal.model_nodes import nodes_of
from shoal.query import iso

LOOK_S = 0.1
"""Between two looks for an answer."""

MOST_SAID = 500
"""Characters of a line of history."""

models = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="its name, as `list` shows it")]
MOST = 2**53 - 1
"""The highest number of a version."""
Number = Annotated[int, typer.Argument(metavar="VERSION", min=1, max=MOST)]
Some = Annotated[int | None, typer.Argument(metavar="[VERSION]", min=1, max=MOST, show_default=False)]
Node = Annotated[str, typer.Option(metavar="SITE/NODE", help="which node")]
Learner = Annotated[str, typer.Argument(metavar="NODE", help="as `nodes` shows it")]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="the cloud's data directory")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
By = Annotated[str | None, typer.Option(help="who says so, for the record [default: the user]")]
Why = Annotated[str, typer.Option(help="the reason, for the record")]
Wait = Annotated[
    float, typer.Option(min=0, max=3600, help="seconds until the cloud must have taken it up; 0: leave it")
]
CLOUD_DATA = Path("cloud-data")


@models.command("list")
def list_versions(data: Data = CLOUD_DATA, as_json: Json = False) -> None:
    """Every version that is kept, and where it runs."""
    with opened(data) as registry:
        found = [facts(registry, one) for name in registry.models() for one in registry.versions(name)]
    if as_json:
        print(json.dumps(found))
        return
    table = _table("model", "version", "stage", "parent", "from", "made (UTC)", "metrics", "on")
    for one in found:
        table.add_row(
            one["model"],
            str(one["version"]),
            one["stage"],
            str(one["parent"] or ""),
            one["origin"],
            iso(one["made_at"]),
            ", ".join(f"{name} {value:,.4g}" for name, value in list(one["metrics"].items())[:3]),
            _where(one),
        )
    _print(table if found else "no version yet: a round of learning makes one, or shoal models import")


@models.command()
def show(model: Model, version: Number, data: Data = CLOUD_DATA, as_json: Json = False) -> None:
    """One version: what it is, how it did, where it runs, its history."""
    with opened(data) as registry:
        _known(registry, model)
        one = registry.version(model, version)
        found = facts(registry, one)
        events = registry.history(model, version)
    if as_json:
        print(json.dumps({**found, "history": [event._asdict() for event in events]}))
        return
    table = Table(title=f"{model} {version}: {one.stage}", title_justify="left", box=None, show_header=False)
    parameters = one.parameters.sha256 if one.parameters else "in the graph"
    rows = {
        "from": one.origin,
        "parent": str(one.parent or ""),
        "made (UTC)": iso(one.made_at),
        "parameters": parameters,
        "graph": one.graph.sha256,
        "network": one.network.encode().decode() if one.network else "as the graph says",
        "reads": ", ".join(feature.metric for feature in one.interface.features),
        "decides": ", ".join(one.interface.actions),
        "runs on": _where(found),
        "note": one.note,
        **{f"metric {name}": f"{value:,.6g}" for name, value in one.metrics.items()},
        **{f"trial {name}": str(value) for name, value in (found["trial"] or {}).items()},
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    _print(table)
    _print(_lines(events))


@models.command()
def history(
    model: Model,
    version: Some = None,
    limit: Annotated[int, typer.Option(min=1, max=EVENTS, help="the last lines")] = 50,
    data: Data = CLOUD_DATA,
    as_json: Json = False,
) -> None:
    """Who did what to which version, when and why."""
    with opened(data) as registry:
        _known(registry, model)
        events = registry.history(model, version, limit)
    if as_json:
        print(json.dumps([event._asdict() for event in events]))
        return
    _print(_lines(events))


@models.command()
def release(
    model: Model,
    version: Number,
    why: Why,
    tried: Annotated[bool, typer.Option("--try", help="through simulation and canaries, as a new candidate")] = False,
    unvalidated: Annotated[
        bool, typer.Option("--unvalidated", help="with --try: without simulation, canaries alone judge")
    ] = False,
    by: By = None,
    data: Data = CLOUD_DATA,
    wait: Wait = 30.0,
) -> None:
    """Give the fleet this version now, without a test; with --try, test it (again)."""
    if unvalidated and not tried:
        raise UsageError("--unvalidated goes with --try; a plain release is given to the fleet without any test")
    kind: Kind = "canary" if unvalidated else "try" if tried else "release"
    _wish(data, model, kind, version, None, by, why, wait)


@models.command()
def rollback(
    model: Model, why: Why, version: Some = None, by: By = None, data: Data = CLOUD_DATA, wait: Wait = 30.0
) -> None:
    """End a trial; where there is none, or a version is named, the fleet gets that, or what it ran before."""
    _wish(data, model, "rollback", version, None, by, why, wait)


@models.command()
def pin(
    model: Model, version: Number, node: Node, why: Why, by: By = None, data: Data = CLOUD_DATA, wait: Wait = 30.0
) -> None:
    """This node keeps this version, whatever the fleet does."""
    _wish(data, model, "pin", version, node, by, why, wait)


@models.command()
def unpin(model: Model, node: Node, why: Why, by: By = None, data: Data = CLOUD_DATA, wait: Wait = 30.0) -> None:
    """This node goes with the fleet again."""
    _wish(data, model, "unpin", None, node, by, why, wait)


@models.command()
def nodes(model: Model, data: Data = CLOUD_DATA, as_json: Json = False) -> None:
    """Who learns: when an update was taken last, strikes, quarantine, and what is held against whom."""
    found = nodes_of(data, model)
    if as_json:
        print(json.dumps(found))
        return
    table = _table("node", "key", "taken in round", "strikes", "in quarantine", "evidence, the newest")
    for one in found:
        since = "" if one["quarantined"] is None else f"since round {one['quarantined']}"
        last = (one["evidence"] or [""])[-1]
        table.add_row(one["node"], (one["key"] or "")[:12], str(one["taken"] or ""), str(one["strikes"]), since, last)
    _print(table if found else "no node yet: none took part in a round, none showed a key")


@models.command()
def lift(model: Model, node: Learner, why: Why, by: By = None, data: Data = CLOUD_DATA, wait: Wait = 30.0) -> None:
    """End a quarantine: nothing is held against this node any more."""
    _wish(data, model, "lift", None, node, by, why, wait)


@models.command("put-away")
def put_away(model: Model, node: Learner, why: Why, by: By = None, data: Data = CLOUD_DATA, wait: Wait = 30.0) -> None:
    """Quarantine this node: its updates are judged, and not taken."""
    _wish(data, model, "put_away", None, node, by, why, wait)


@models.command()
def rebase(model: Model, version: Number, why: Why, by: By = None, data: Data = CLOUD_DATA, wait: Wait = 30.0) -> None:
    """The next round begins with this version; one that is open ends first."""
    _wish(data, model, "rebase", version, None, by, why, wait)


@models.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="an ONNX graph with its weights inside")],
    model: Annotated[str, typer.Option(help="its name")],
    interface: Annotated[Path, typer.Option(metavar="FILE", help="what it reads and decides, TOML or JSON")],
    note: Annotated[str, typer.Option(help="for the record, at most 500 characters")] = "",
    new_interface: Annotated[
        bool, typer.Option("--new-interface", help="it reads or decides other things than the versions before")
    ] = False,
    by: By = None,
    data: Data = CLOUD_DATA,
    as_json: Json = False,
) -> None:
    """Make a version of a file; the cloud takes it up as a candidate. What a node would refuse is refused here."""
    from edge.graphs import checked

    check_id("model", model)
    if not file.name.isprintable() or len(file.name) > 128:
        raise UsageError(f"{file}: rename it, at most 128 printable characters: it is kept as where the model is from")
    face, graph = read_interface(interface), _bytes(file)
    try:
        checked(graph, inputs=len(face.features), parameters=0, outputs=len(face.actions))
        draft = Draft(model=model, graph=graph, interface=face, origin=file.name, note=note)
    except BadMessage as error:
        raise UsageError(f"{file}: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{file}: {first_of(error)}") from None
    by = _who(by)
    with opened(data, make=True) as registry:
        before = registry.versions(model)[-1:]
        if before and before[0].interface != face and not new_interface:
            raise UsageError(
                f"{interface}: another interface than version {before[0].version} of {model} has; nodes may "
                "not have what it reads: give it another --model, or say --new-interface"
            )
        made = registry.add(draft, now=time.time_ns() // 1000, by=by, why=note or file.name)
    text = f"{model} {made.version}: {made.stage}; the cloud validates it, then tries it"
    print(json.dumps(_dump(made)) if as_json else text)


@models.command()
def key(data: Data = CLOUD_DATA) -> None:
    """The key that nodes must know the cloud by; it is made if there is none yet."""
    from messages.signing import SigningKey

    public = SigningKey.at(data / KEY_FILE).public
    print(f'[learning.keys]\ncloud = "{public}"')


@contextmanager
def opened(data: Path, *, make: bool = False) -> Iterator[Registry]:
    """The registry of a cloud."""
    path = data / FILE
    try:
        with closing(Registry(path, make=make)) as registry:
            yield registry
    except OSError as error:
        raise UsageError(
            f"{str(data)[:200]!r}: {error.strerror}; name the cloud's data directory with --data"
        ) from None
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path}: not a registry of models as Shoal keeps it ({error}); restore a backup") from None


def facts(registry: Registry, one: Version) -> dict[str, Any]:
    """A version, and where it runs."""
    raw = registry.state(one.model)
    state = registry.whole(State, raw, table="model", row=one.model) if raw else State()
    told = registry.told(one.model).values()
    trial = state.trial
    mine = trial is not None and trial.version == one.version
    return {
        **_dump(one),
        "fleet": state.fleet == one.version,
        "nodes": sorted(said.node for said in told if said.version == one.version),
        "pinned": sorted(node for node, version in state.pins.items() if version == one.version),
        "trial": {
            "against": trial.against,
            "pairs": sum(tally.pairs for tally in trial.tallies.values()),
            "decisions": sum(trial.decisions.values()),
        }
        if trial is not None and mine
        else None,
    }


def _wish(
    data: Path, model: str, kind: Kind, version: int | None, node: str | None, by: str | None, why: str, wait: float
) -> None:
    """Leave a wish, and wait for what comes of it."""
    why, by = _line("--why", why, "the reason"), _who(by)
    if node is not None and kind in ROUND_KINDS:
        check_id("NODE", node)
    elif node is not None:
        site, _, name = node.partition("/")
        check_id("--node SITE", site)
        check_id("--node NODE", name)
    with opened(data) as registry:
        _known(registry, model)
        if version is not None:
            registry.version(model, version)
        number = registry.wish(model, kind, version=version, node=node, by=by, why=why)
        until = time.monotonic() + wait
        while (answer := registry.answered(number)) is None and time.monotonic() < until:
            time.sleep(LOOK_S)
    if answer is None and wait:
        raise ShoalError(f"not taken up in {wait:g} s; is the cloud running? The wish stays, and is done when it is")
    if answer is not None and answer.startswith("refused: "):
        raise ShoalError(f"{kind} {answer}")
    print(f"{model}: {kind} {answer or 'is left for the cloud'}")


def _who(by: str | None) -> str:
    """Who says so."""
    if by is None:
        try:
            by = getpass.getuser()
        except (KeyError, OSError):  # a container may run as somebody who is nobody
            raise UsageError("--by: this user has no name; say who wishes it") from None
    return _line("--by", by, "who wishes it")


def _line(option: str, text: str, what: str) -> str:
    """What goes into the history."""
    if not text.strip():
        raise UsageError(f"{option}: say {what}; it is kept in the history")
    if len(text) > MOST_SAID or not text.isprintable():
        raise UsageError(f"{option}: say {what} in at most {MOST_SAID} printable characters, without line breaks")
    return text


def _known(registry: Registry, model: str) -> None:
    if model not in registry.models():
        raise UsageError(f"no model {model!r}; there are: {', '.join(registry.models()) or 'none'}")


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ARTEFACT + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not 0 < len(data) <= MAX_ARTEFACT:
        raise UsageError(f"{path}: {'more' if data else 'fewer'} than {MAX_ARTEFACT if data else 1} bytes")
    return data


def _dump(one: Version) -> dict[str, Any]:
    return one.model_dump(mode="json", exclude_none=False)


def _where(one: dict[str, Any]) -> str:
    nodes: list[str] = one["nodes"]
    words = [f"{len(nodes)} nodes" if len(nodes) > 3 else ", ".join(nodes)]
    words += [f"pinned on {', '.join(one['pinned'])}"] if one["pinned"] else []
    return "; ".join(word for word in words if word)


def _lines(events: list[Event]) -> Table:
    table = _table("at (UTC)", "version", "what", "by", "why")
    for event in events:
        table.add_row(iso(event.at), str(event.version), event.what, event.by, event.why)
    return table


def _table(*heads: str) -> Table:
    shown = Table(box=None, header_style="bold")
    for head in heads:
        shown.add_column(head, justify="right" if head in ("version", "parent") else "left")
    return shown


def _print(shown: Table | str) -> None:
    Console(highlight=False).print(shown)
