"""A burst that cleaning cannot bear stops nobody: it is found, left out, and a record says so.

    cleaner, cleaned = clean_apart(rebuild, kept, bursts, now)     # after Cleaner.clean raised for them together

Cleaning begins again from its last committed snapshot and goes burst by burst; whoever raises alone becomes a
Rejected `unprocessable`, and cleaning goes on from before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge.cleaning import Cleaned, Cleaner
from messages.contracts import Burst, Rejected
from messages.logs import get_logger

Rebuild = Callable[[bytes | None], Cleaner]
"""The cleaner of this node's devices as a snapshot has it; None: one that knows nothing."""

log = get_logger("edge")


def clean_apart(
    rebuild: Rebuild, kept: bytes | None, bursts: Sequence[tuple[str, Burst]], now: int
) -> tuple[Cleaner, Cleaned]:
    """Clean one by one from `kept` on; the cleaner to go on with, and what came of all bursts."""
    cleaner, all_of_it = rebuild(kept), Cleaned([], [])
    for device, burst in bursts:
        try:
            cleaned = cleaner.clean([(device, burst)], now)
            kept = cleaner.snapshot()
        except Exception as error:  # of whatever kind: else the node reads this burst, and dies, at every start
            log.exception(
                "edge.unprocessable",
                device=device,
                boot=burst.boot,
                seq=burst.seq,
                exception=f"{type(error).__name__}: {error}"[:500],
                cure="report it with the sample in the `rejected` record; the node goes on without this burst",
            )
            cleaner = rebuild(kept)
            why = f"{type(error).__name__}: {error}"[:150]
            cleaned = Cleaned([], [_unprocessable(device, burst, why, now)])
        all_of_it.tables.extend(cleaned.tables)
        all_of_it.rejected.extend(cleaned.rejected)
    return cleaner, all_of_it


def _unprocessable(device: str, burst: Burst, why: str, now: int) -> Rejected:
    sample = f"{why} in {burst.encode()[:300].decode(errors='replace')}"
    return Rejected(at=now, device=device, reason="unprocessable", readings=burst.readings, sample=sample)
