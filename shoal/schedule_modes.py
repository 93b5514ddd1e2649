"""Which options of `shoal schedule` belong together, and which would be ignored: those are refused."""

from __future__ import annotations

import math
from pathlib import Path

from messages.errors import UsageError


def together(
    compare: object, what_if: object, plan: Path | None, explain: bool, now: str | None, start: Path | None
) -> None:
    """Options that belong together, or do not."""
    if compare is not None and (what_if or plan or explain or start):
        raise UsageError("--compare: it looks at its two plans only; leave --plan, --start, --what-if, --explain out")
    if what_if and plan is None:
        raise UsageError("--what-if: say with --plan plan.json which plan is frozen")
    if plan is not None and not (what_if or explain):
        raise UsageError("--plan: add --explain or --what-if; to begin a search with a plan use --start")
    if now is not None and not what_if:
        raise UsageError("--now: it belongs to --what-if; leave it out")
    if plan is not None and start is not None:
        raise UsageError("--plan and --start: a plan is looked at or begun with; give one of them")


def nothing_ignored(
    compare: object, what_if: object, plan: object, split: object, out: object, front: object, problem_out: object
) -> None:
    """What is to be written will be there to write."""
    if (compare is not None or (plan is not None and not what_if)) and (out or front):
        name, mode = "--out" if out else "--front", "--compare" if compare is not None else "--plan with --explain"
        raise UsageError(f"{name}: {mode} makes no plan, so there is none to write; leave it out, or give --report")
    if problem_out and not (what_if or split):
        raise UsageError("--problem-out: it writes the problem that --what-if or --split made; give one of them")


def price(stay: float | None, what_if: object, *, alone: bool) -> None:
    """`alone`: no other solver, weights or cluster was asked for."""
    if stay is None:
        return
    if not what_if:
        raise UsageError("--stay: it belongs to --what-if; leave it out")
    if not alone:
        raise UsageError("--stay: only the default search weighs it; leave --solver, --weights, --replicas, --ray out")
    if not (math.isfinite(stay) and 0 <= stay <= 1000):
        raise UsageError(f"--stay {stay:g}: give a share from 0 (move as you like) to 1000, such as 0.02")
