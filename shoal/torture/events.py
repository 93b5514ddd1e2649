"""Records of machine events against the events that were sent: one to one.

    settle(bursts, gone, records, verdict)

Every event of the torture's machines is numbered and must become one record. A record that equals none is *corrupt*
where an event without a record has its time or its words, and *unexplained* otherwise. Events of a burst that must be
refused, or that is within a gap, have no record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from messages.contracts import PartIdentified, Record, StateChanged
from shoal.torture.oracle import ROWS, Produced
from shoal.torture.verdict import Verdict

Key = tuple[str, int, str, str]
"""machine, time, kind of the record, what it says"""


def settle(
    bursts: Iterable[Produced], gone: set[tuple[str, str, int]], records: Iterable[Record], verdict: Verdict
) -> None:
    """Every event its record, and every record its event."""
    sent = _sent(bursts, gone, verdict)
    stored = Counter(_key(record) for record in records)
    absent = sent.keys() - stored.keys()
    for key in sorted(stored.keys()):
        verdict.events_stored += stored[key]
        if key in sent:
            twice = stored[key] - 1
        else:
            twice = 0
            _accuse_stranger(key, stored[key], absent, verdict)
        if twice:
            verdict.duplicates += twice
            verdict.accuse("duplicate", key[0], key[2], key[1], None, f"{key[3]!r} is recorded {twice + 1} times")
    for key in sorted(absent):
        verdict.lost += 1
        verdict.accuse("lost", key[0], key[2], key[1], sent[key], f"{key[3]!r} happened: no record")


def _sent(bursts: Iterable[Produced], gone: set[tuple[str, str, int]], verdict: Verdict) -> dict[Key, int]:
    """What must be recorded, and in which burst it was told."""
    sent: dict[Key, int] = {}
    for one in bursts:
        verdict.events += len(one.events)
        if one.fate != ROWS:
            verdict.events_refused += len(one.events)
        elif (one.device, one.boot, one.seq) in gone:
            verdict.events_gaps += len(one.events)
        else:
            sent |= {(one.device, at, kind, what): one.seq for at, kind, what in one.events}
    return sent


def _key(record: Record) -> Key:
    match record:
        case PartIdentified():
            return record.machine, record.at, record.kind, record.job
        case StateChanged():
            repair = "" if record.repair_at is None else f" {record.repair_at}"
            return record.machine, record.at, record.kind, f"{record.state}{repair}"
        case _:  # of no kind that was sent: it equals nothing, and is named
            return getattr(record, "machine", "-"), record.at, record.kind, str(record)[:200]


def _accuse_stranger(key: Key, times: int, absent: set[Key], verdict: Verdict) -> None:
    machine, at, kind, what = key
    meant = min((one for one in absent if one[0] == machine and (one[1] == at or one[3] == what)), default=None)
    if meant is None:
        verdict.unexplained += times
        verdict.accuse("unexplained", machine, kind, at, None, f"{what!r} is recorded, nobody said so")
    else:
        absent.discard(meant)
        verdict.corrupt += times
        verdict.accuse("corrupt", machine, kind, at, None, f"{what!r} is recorded, {meant[1:]} was said")
