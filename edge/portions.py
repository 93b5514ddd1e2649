"""Series and records as parts that each fit a batch: by the contract's numbers and by an upper bound of their bytes."""

from __future__ import annotations

from collections.abc import Iterator

from messages.contracts import MAX_RECORDS, MAX_SERIES, Record, Series


def portions(
    series: list[Series], records: list[Record], batch_bytes: int
) -> Iterator[tuple[list[Series], list[Record]]]:
    """Parts that each fit a batch of so many bytes, in order."""
    pieces: list[tuple[int, Series | None, Record | None]] = []
    for one in series:
        pieces += [(_series_bytes(piece), piece, None) for piece in _pieces(one, batch_bytes)]
    pieces += [(len(record.model_dump_json()), None, record) for record in records]
    held: list[Series] = []
    kept: list[Record] = []
    size = 0
    for cost, piece, record in pieces:
        if (held or kept) and (size + cost > batch_bytes - 300 or len(held) >= MAX_SERIES or len(kept) >= MAX_RECORDS):
            yield held, kept
            held, kept, size = [], [], 0
        if piece is not None:
            held.append(piece)
        if record is not None:
            kept.append(record)
        size += cost + 1
    if held or kept:
        yield held, kept


_ROW = 17 + 25 + 7 + 3
"""Longest offset, float, quality and their commas."""
_RAW = 9 + 25 + 2


def _series_bytes(series: Series) -> int:
    return 300 + _ROW * len(series.at) + _RAW * len(series.raw)


def _pieces(series: Series, batch_bytes: int) -> Iterator[Series]:
    """The series itself, or cut by rows where it alone would burst a batch."""
    if _series_bytes(series) <= batch_bytes - 300:
        yield series
        return
    rows = max(1, (batch_bytes - 600) // (_ROW + _RAW))
    for start in range(0, len(series.at), rows):
        stop = start + rows
        quality = series.quality if isinstance(series.quality, int) else series.quality[start:stop]
        yield series.model_copy(
            update={
                "at": series.at[start:stop],
                "value": series.value[start:stop],
                "quality": quality,
                "raw": {index - start: raw for index, raw in series.raw.items() if start <= index < stop},
            }
        )
