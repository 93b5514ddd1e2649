"""Which options of `shoal schedule` belong together, and which would be ignored: those are refused."""

from __future__ import annotations

import math
from pathlib import Path

from messages.errors import UsageError
from shoal.schedule_options import Wanted


def together(
    compare: object,
    what_if: object,
    plan: Path | None,
    explain: bool,
    now: str | None,
    start: Path | None,
    take: int | None,
    table: object,
) -> None:
    """Options that belong together, or do not."""
    if compare is not None and (what_if or plan or explain or start or take is not None):
        others = "--plan, --start, --what-if, --explain, --take"
        raise UsageError(f"--compare: it looks at its two plans only; leave {others} out")
    if what_if and plan is None:
        raise UsageError("--what-if: say with --plan plan.json which plan is frozen")
    if plan is not None and not (what_if or explain or table or take is not None):
        raise UsageError(
            "--plan: add --explain, --what-if, --take N, --table or --csv; to begin a search with a plan use --start"
        )
    if now is not None and not what_if:
        raise UsageError("--now: it belongs to --what-if; leave it out")
    if plan is not None and start is not None:
        raise UsageError("--plan and --start: a plan is looked at or begun with; give one of them")


def nothing_ignored(
    compare: object,
    what_if: object,
    plan: object,
    split: object,
    out: object,
    front: object,
    problem_out: object,
    take: object,
    table: object,
    begins: object,
) -> None:
    """What is to be written, or shown, will be there."""
    looked = compare is not None or (plan is not None and not what_if)
    if looked and (front or (out and take is None)):
        name = "--out" if out else "--front"
        if compare is not None:
            raise UsageError(
                f"{name}: --compare makes no plan, so there is none to write; leave it out, or give --report"
            )
        more = "; with --take N that plan is written" if out else ""
        raise UsageError(f"{name}: nothing is searched, the plan of --plan is only looked at; leave it out{more}")
    if compare is not None and (table or begins):
        raise UsageError("--csv, --table and --begins: they show one plan, --compare is about two; leave them out")
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


def taken(take: int | None, plan: Path | None, what_if: object, wanted: Wanted) -> None:
    """A plan is taken by its number, or chosen by a rule, and where there are several."""
    if take is None:
        return
    if take < 1:
        raise UsageError(f"--take {take}: plans are numbered from 1")
    if not what_if and (wanted.lex or wanted.weights is not None):  # a what-if takes one and chooses another
        raise UsageError("--take: the number says which plan it shall be; leave --lex and --weights out")
    if plan is None and not wanted.front:
        raise UsageError("--take: it takes from a front; give several --objectives, or a front.json with --plan")
