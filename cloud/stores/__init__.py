"""Stores behind one seam: `append` (idempotent) and `query`. The union is the registry: a class and one word.

A store that is not `durable_on_ack` and `idempotent` may mirror another, never free an outbox.
"""

from __future__ import annotations

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

StoreSettings = SqliteStore
"""Every store there is, told apart by `kind`; the second makes it `Annotated[A | B, Field(discriminator="kind")]`."""

__all__ = [
    "Aggregate",
    "Answer",
    "Appended",
    "BatchKey",
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
]
