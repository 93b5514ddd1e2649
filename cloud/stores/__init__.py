"""Stores behind one seam: `append` (idempotent) and `query`. The union is the registry: a class and one word.

A store that is not `durable_on_ack` and `idempotent` may mirror another, never free an outbox.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag

from cloud.stores.influx import Influx1Store, Influx2Store
from cloud.stores.mirror import VictoriaMirror
from cloud.stores.seam import (
    Aggregate,
    Answer,
    Appended,
    BatchKey,
    Mirror,
    Observation,
    Pushed,
    Quarantined,
    QuarantineKind,
    Query,
    RecordSource,
    SeriesInfo,
    Store,
    StoredBatch,
    StoredRecord,
)
from cloud.stores.sqlite import SqliteStore


def _kind(given: object) -> str:
    """A table without `kind` is the embedded store."""
    return str(given.get("kind", "sqlite") if isinstance(given, dict) else getattr(given, "kind", ""))


StoreSettings = Annotated[
    Annotated[SqliteStore, Tag("sqlite")]
    | Annotated[Influx1Store, Tag("influx1")]
    | Annotated[Influx2Store, Tag("influx2")],
    Discriminator(_kind),
]
"""Every store there is, told apart by `kind`."""

__all__ = [
    "Aggregate",
    "Answer",
    "Appended",
    "BatchKey",
    "Influx1Store",
    "Influx2Store",
    "Mirror",
    "Observation",
    "Pushed",
    "QuarantineKind",
    "Quarantined",
    "Query",
    "RecordSource",
    "SeriesInfo",
    "SqliteStore",
    "Store",
    "StoreSettings",
    "StoredBatch",
    "StoredRecord",
    "VictoriaMirror",
]
