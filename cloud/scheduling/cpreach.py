"""How far an exact model has to look: a tick by which some best plan ends, and where there is none."""

from __future__ import annotations

from collections.abc import Collection
from math import lcm

from cloud.scheduling.shop import FAR, Shop
from messages.curve import CURVES, Curve
from messages.plan import Measure
from messages.problem import Problem


def patient_horizon(problem: Problem, shop: Shop, limit: float = FAR) -> int:
    """A tick by which some best plan ends, whatever the goal: beyond the last fixed event something always happens,
    since a time when nothing does could be cut out; of periodic curves whole periods could. `limit`: of the makespan.

    Where a price is below zero a time when machines idle may pay: then only the horizon or the limit is such a tick,
    and without either there is none (`paid_to_wait`).
    """
    latest = min(shop.horizon, int(limit))
    if latest < FAR and any(min(one.values) < 0 for one in (*problem.tariff.values(), *problem.carbon.values())):
        return latest
    ends = [shop.floor, shop.past_makespan, *shop.closed_end.tolist(), *shop.stretch_start.tolist()]
    ends += [*shop.stretch_warm.tolist(), *shop.job_ready.tolist(), *shop.past_end.tolist()]
    period = 0
    for kind in CURVES:
        for curve in getattr(problem, kind).values():
            if curve.periodic and len(set(curve.values)) > 1:
                period = max(period, curve.step * len(curve.values)) if period == 0 else _common(period, curve)
            elif not curve.periodic:
                ends.append(curve.end)
    work = int((shop.wait_min + int(shop.transport.max(initial=0)) + int(shop.setup.max(initial=0))).sum())
    for o in range(len(shop.op_job)):
        a, b = int(shop.alt_first[o]), int(shop.alt_first[o + 1])
        work += int((shop.alt_ticks[a:b] + shop.preheat[shop.alt_machine[a:b]]).max()) + period
    if shop.job_left.size:
        work += int(shop.transport.max(initial=0))
    return min(max(int(one) for one in ends) + work + period, latest)


def paid_to_wait(problem: Problem, shop: Shop, measures: Collection[Measure]) -> str:
    """Why nothing can be proved of these measures without a latest end; empty: it can.

    Where a price is below zero, ever more idling may pay, so no tick is one by which some best plan ends.
    """
    if shop.horizon < FAR:
        return ""
    for measure in measures:
        if measure in ("cost", "carbon", "ledger"):
            prices = problem.tariff if measure == "cost" else problem.carbon
            if any(min(curve.values) < 0 for curve in prices.values()):
                return f"{measure} has prices below zero, so waiting may pay for ever: nothing is proved; set `horizon`"
    return ""


def _common(period: int, curve: Curve) -> int:
    return lcm(period, curve.step * len(curve.values))
