"""`shoal edge --check-mapping FILE`: what foreign messages become, before a node hears them.

Without a message it lists the topics and what is made of them; with one (`--topic` and `--payload`, or lines
`topic payload` as `mosquitto_sub -v` prints them) it decodes and cleans exactly as a node does and shows rows and
problems. Exit codes: 0 all is well, 1 something could not be read or nothing came out, 2 the file is wrong.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer

from edge.cleaning import Cleaner
from edge.decoding import Decoder
from edge.foreign import bursts_of
from edge.mapping import Mapping, MapRule
from edge.settings import EdgeSettings
from messages.contracts import Series
from messages.errors import ConfigError, UsageError
from messages.plant import Device, MetricSpec
from messages.quality import grade, reasons
from messages.settings import load

MAX_BYTES = 64 * 1024 * 1024
"""Of samples."""
SHOWN = 20
"""Rows of one series of one message."""


def check_mapping(file: Path, config: Path | None, topic: str | None, payload: str | None, sample: Path | None) -> int:
    """Print what the mapping file makes of the given messages, or what it hears; returns the exit code."""
    if not file.is_file():
        raise UsageError(f"{file}: no such mapping file")
    mapping = load(Mapping, file, {})
    devices, assumed = _devices(file, mapping, config)
    try:
        decoder = Decoder(mapping, devices)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    for device in assumed:
        typer.echo(f"note: {device} is not declared in {file}: it must be in the plant file (give --config to check)")
    messages = list(_messages(decoder, topic, payload, sample))
    if not messages and sample is None and topic is None:
        _tell(mapping)
        return 0
    return _show(decoder, devices, messages)


# --- what it hears ------------------------------------------------------------------------------------


def _tell(mapping: Mapping) -> None:
    rows = []
    for rule in mapping.map:
        exact = {topic: device for topic, (_, device) in rule.exact.items()}
        for one in rule.filters:
            device = exact.get(one, f"({'/'.join(rule.names)})")
            for value in rule.value:
                rows.append(
                    (one, value.device or device, value.metric, value.path or "the payload", value.unit, _when(rule))
                )
    _table(("topic", "device", "metric", "from", "unit", "time"), rows)
    typer.echo("\nThe node's user must be allowed to read them. In Mosquitto's ACL, below its `user` line:")
    for line in mapping.access():
        typer.echo(f"  {line}")


def _when(rule: MapRule) -> str:
    return "of arrival" if rule.time is None else f"{rule.time.path} ({rule.time.format})"


# --- what a message becomes -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Message:
    topic: str
    payload: bytes


def _show(decoder: Decoder, devices: tuple[Device, ...], messages: list[_Message]) -> int:
    cleaner = Cleaner(devices)
    seqs: dict[str, int] = {}

    def number(device: str, readings: int) -> tuple[int, int]:
        seqs[device] = seqs.get(device, -1) + 1
        return seqs[device], 0

    rows: list[tuple[str, ...]] = []
    problems: list[str] = []
    notes: list[str] = []
    for one in messages:
        now = time.time_ns() // 1000
        decoded = decoder.decode(one.topic, one.payload, arrived_us=now)
        problems += [f"{one.topic}: {problem.reason}: {problem.why}" for problem in decoded.problems]
        if decoded.skipped:
            notes.append(f"{one.topic}: no reading: {decoded.skipped}")
        bursts = list(bursts_of(decoded.samples, number))
        # As if it had just been measured: how old a sample is says nothing about the device's clock.
        measured = max((at for samples in decoded.samples for at in samples.at), default=now)
        cleaned = cleaner.clean(bursts, min(now, measured))
        for series in cleaned.series:
            rows += _rows(one.topic, series)
        problems += [
            f"{one.topic}: {record.device} {record.metric or ''}: {record.reason} ({record.readings} readings)"
            for record in cleaned.rejected
        ]
    notes += [f"{topic}: {path} is in none of its messages" for topic, path in decoder.silent(after=1)]
    if rows:
        _table(("topic", "device", "metric", "value", "unit", "time", "quality"), rows)
    for note in notes:
        typer.echo(f"note: {note}")
    for problem in problems:
        typer.echo(f"problem: {problem}")
    if not rows and not problems:
        typer.echo("problem: no reading came out of it")
    return 0 if rows and not problems else 1


def _rows(topic: str, series: Series) -> Iterator[tuple[str, ...]]:
    for n, (offset, value) in enumerate(zip(series.at, series.value, strict=True)):
        if n == SHOWN:
            yield topic, series.device, series.metric, f"… {len(series.at) - n} more", "", "", ""
            return
        quality = series.quality if isinstance(series.quality, int) else series.quality[n]
        said = [grade(quality), *reasons(quality)]
        if n in series.raw:
            said.append(f"estimated, it said {'nothing' if series.raw[n] is None else f'{series.raw[n]:g}'}")
        when = datetime.fromtimestamp((series.t0 + offset) / 1e6, UTC).isoformat(timespec="milliseconds")
        yield topic, series.device, series.metric, f"{value:.10g}", series.unit, when, ", ".join(said)


def _messages(decoder: Decoder, topic: str | None, payload: str | None, sample: Path | None) -> Iterator[_Message]:
    if payload is not None:
        if topic is None or sample is not None:
            raise UsageError("--payload goes with --topic, and without --sample")
        yield _Message(topic, payload.encode())
    elif topic is not None:
        yield _Message(topic, _read(sample or Path("-")).rstrip(b"\r\n"))
    elif sample is not None:
        for line in _read(sample).splitlines():
            if line.strip() and not line.startswith(b"#"):
                yield _split(decoder, line)


def _split(decoder: Decoder, line: bytes) -> _Message:
    """`topic payload`, or with a tab between; a topic may have blanks, where the mapping knows it."""
    first = line.find(b"\t") if b"\t" in line else line.find(b" ")
    if first < 0:
        return _Message(line.decode(errors="replace"), b"")
    at = first
    while at >= 0 and line[first : first + 1] == b" ":
        if decoder.hears(line[:at].decode(errors="replace")):
            first = at
            break
        at = line.find(b" ", at + 1)
    return _Message(line[:first].decode(errors="replace"), line[first + 1 :])


def _read(path: Path) -> bytes:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if str(path) == "-" else _head(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: more than {MAX_BYTES} bytes of samples: give a part of them")
    return data


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


# --- devices --------------------------------------------------------------------------------------------


def _devices(file: Path, mapping: Mapping, config: Path | None) -> tuple[tuple[Device, ...], list[str]]:
    """The node's devices; without its settings those declared, and what the mapping implies of others."""
    if config is not None:
        settings = load(EdgeSettings, config).model_copy(update={"mapping": None})
        plant = settings.read_plant()
        try:
            return plant.devices(settings.node) + mapping.devices(plant, settings.node), []
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
    declared = mapping.declared("node")
    known = {one.device for one in declared}
    implied: dict[str, dict[str, MetricSpec]] = {}
    for rule in mapping.map:
        for _, device in rule.exact.values():
            for value in rule.value:
                owner = value.device or device
                if owner not in known:
                    spec = MetricSpec(unit=value.unit, low=-1e12, high=1e12)
                    implied.setdefault(owner, {}).setdefault(value.metric, spec)
    made = [
        Device(device=device, node="node", kind="meter", workshop="unassigned", metrics=metrics)
        for device, metrics in implied.items()
    ]
    return (*declared, *made), sorted(implied)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
