"""`shoal backup` and `shoal restore`: a consistent copy of a cloud while it runs, and the way back.

shoal backup --config cloud.toml --to backup-2026-05-01.tar
shoal restore --from backup-2026-05-01.tar --config cloud.toml [--force] [--without-broker]
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from cloud import backup as copies
from cloud.settings import CloudSettings
from cloud.unsaid import take_back
from messages.connect import BrokerSettings
from messages.errors import UsageError
from messages.settings import load

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="the cloud's settings (TOML)")]


def backup(
    config: Config,
    to: Annotated[Path, typer.Option("--to", metavar="FILE_OR_DIR", help="a new .tar, or a new directory")],
) -> None:
    """Copy the store with its ledger, the planner's book, keys, certificates, plant and settings, while the cloud runs.

    The copy holds keys and passwords: it is readable by you alone, keep it so. InfluxDB has its own backup: make it
    after this one.
    """
    settings = load(CloudSettings, config)
    made = copies.back_up(settings, to, config=config, now=datetime.now(UTC), shoal=_version())
    for one in made.files:
        typer.echo(f"{one.role:20} {one.bytes:>14,} bytes  {one.came_from}")
    typer.echo(f"{to}: complete, as of {made.began_at}")


def restore(
    source: Annotated[Path, typer.Option("--from", metavar="FILE_OR_DIR", help="what `shoal backup` made")],
    config: Config,
    force: Annotated[bool, typer.Option("--force", help="replace what is there")] = False,
    without_broker: Annotated[
        bool, typer.Option("--without-broker", help="do not take back at the broker what the cloud said to its nodes")
    ] = False,
) -> None:
    """Put a backup back where the settings say; with no settings file there, that of the backup is put there first.

    Refuses while the cloud runs. What was stored after the backup, and freed by the nodes since, is not in it; so that
    they free no more of it, the broker must be there, and forgets what it retained for them.
    """
    with copies.opened(source) as found:
        made = _settings_file(found, config) if not config.exists() else False
        try:
            settings = load(CloudSettings, config)
            before = _warn if without_broker else partial(_take_back, settings)
            written, skipped = copies.restore(found, settings, force=force, before=before)
        except BaseException:
            if made:
                config.unlink()
            raise
        for path in [config, *written] if made else written:
            typer.echo(f"restored {path}")
        for role in skipped:
            typer.echo(f"not restored: {role}, which {config} does not name")
        typer.echo(f"as of {found.manifest.began_at}; start the cloud, and the nodes send what they still hold")


def _take_back(settings: CloudSettings, broker: BrokerSettings) -> None:
    words = take_back(broker, settings.sites, settings.nodes)
    typer.echo(f"took back at the broker {broker.host}:{broker.port} what {words} node(s) were told is stored")


def _warn(_broker: BrokerSettings) -> None:
    typer.echo(
        "warning: the broker was not asked. If it retains what the cloud said after this backup, nodes that had not "
        "heard it may free what this copy lacks: clear down/stored there before they come back",
        err=True,
    )


def _settings_file(found: copies.Backup, config: Path) -> bool:
    text = found.text(copies.CONFIG)
    if text is None:
        raise UsageError(f"{config}: no such file, and the backup holds no settings: write them first")
    config.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(config, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    return True


def _version() -> str:
    try:
        return version("shoal")
    except PackageNotFoundError:
        return "unknown"
