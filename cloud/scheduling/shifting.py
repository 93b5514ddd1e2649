"""Shift: looks for the hours that are clean or cheap. For carbon, cost, energy or the ledger, alone or weighted.

    Shift().solve(problem, goal=Goal(("carbon",), limits={"tardiness": 0}), budget=Budget(seconds=60, workers=2))

Jobs are taken off the plan and put back where they cost least, all operations of one at once, exactly given the others
(`jobkernel`); what is found is retimed as a whole (`timing`), exactly for its sequences and gaps. With two workers the
second one proves a bound on the grid of ticks (`gridbound`) and then searches as well.

Goals: the first measure is carbon, cost, energy or ledger (the others of an order decide ties), or weights of these, of
makespan and of tardiness. All work ends by the horizon, or by a limit of makespan; without either, within a day of what
a rule needs. Limits of tardiness, makespan and peak are kept all the way; those of other measures by giving them more
and more weight, and plans beyond them are not offered.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from cloud.scheduling.boardkernel import copy, load_board, value_of
from cloud.scheduling.dispatch import Dispatch
from cloud.scheduling.gridbound import grid_bound
from cloud.scheduling.packed import packed
from cloud.scheduling.rates import RATED, Rates, curve_values, earliest_draw, rates_of
from cloud.scheduling.seam import KEY, Exchange, Goal, Result, Strategy, nothing_to_do, refusal
from cloud.scheduling.shiftboard import (
    Board,
    Rules,
    board_of,
    desk_cells,
    desk_of,
    packed_board,
    packed_desk,
    packed_rates,
    packed_rules,
)
from cloud.scheduling.shiftkernel import fill, refine
from cloud.scheduling.shop import BASE_LOAD, FAR, GENERATION, Draft, Floats, Names, Shop, draft_of, plan_of, shop_of
from cloud.scheduling.timing import retime
from messages.errors import BrokenInvariant, UsageError
from messages.judge import violations
from messages.plan import Measure, Plan, Status
from messages.problem import Problem

MAX_CELLS = 50_000_000
"""(option, tick) pairs of the longest job: 16 bytes each."""
TIE_WEIGHT = 1e-6
"""Of a measure that only decides ties, against the one before it."""
CYCLES = (0.05, 0.2, 0.5, 1.0)
"""Shares of the budget at which a round of annealing ends and the next begins, at the best so far."""
SLICE = 200
"""Rounds between two looks at the exchange, at first; then as many as fit into `LOOK_S`."""
SLICE_WORK = 100_000
"""Rounds times operations at first, at most, and always where evaluations are the budget (some 60 ms)."""
LOOK_S = 0.03
OFFER_S = 0.25
DEARER = 4.0
"""How much the weight of a measure rises whose limit is not kept."""
PROOF_S = 120.0
"""Its time at most (ceramic: 2 s)."""
EXTENSIONS = 5
"""How often the time is doubled in which a first plan is sought, where nothing limits it."""
TRIES = 30
"""Orders of jobs tried for a first plan."""
RETIME_NODES = 300_000
"""Plans of up to so many (operation, tick) pairs are retimed when they are offered."""


class Shift(Strategy):
    """Clean and cheap hours: annealing over whole jobs, exact timing, a proved bound."""

    kind: Literal["shift"] = "shift"
    default: ClassVar[Goal] = Goal(("carbon",))
    most: int = Field(default=4, ge=1, le=50, description="jobs taken off at once, at most")
    hot: float = Field(default=0.05, gt=0, description="first temperature, against what one job costs")
    cold: float = Field(default=0.0008, gt=0, description="last temperature, against what one job costs")
    blink: float = Field(default=0.01, ge=0, lt=1, description="share of gaps passed over")

    def run(self, problem: Problem, run: Exchange, seed: int, start: Plan | None) -> Result:
        """The best plan within the budget; `bound` of the first measure, or of the weighted sum, where it is proved."""
        shop, names = shop_of(problem)
        lacks = _refusal(run.goal, problem, shop)
        if lacks:
            return refusal(run, lacks)
        if not shop.operations:
            return nothing_to_do(problem, run, "shift")
        search = _Search(self, problem, shop, names, run, seed, start)
        return search.run()

    def step(self, state: Chain, n: int) -> float:
        """`n` rounds of a chain; its best value so far."""
        return state.step(n)


def _refusal(goal: Goal, problem: Problem, shop: Shop) -> str:
    rated = set(RATED)
    if goal.front:
        return "shift looks for one plan: give it one point of the front as limits"
    if "peak" in goal.order:
        return "shift cannot minimise peak power: limit it, or use cpsat"
    if goal.weights is None and goal.order[0] not in rated:
        return f"shift looks for clean or cheap hours: put one of {', '.join(RATED)} first, and limit {goal.order[0]}"
    if goal.weights is not None and not rated.intersection(one for one, weight in goal.weights.items() if weight):
        return f"shift looks for clean or cheap hours: give one of {', '.join(RATED)} a weight"
    lines = np.diff(shop.stretch_first)
    if ((lines > 1) & (shop.setup_table >= 0)).any():
        return "shift knows no set-ups on machines that break down: use cpsat"
    return ""


def weights_of(goal: Goal) -> dict[Measure, float]:
    """The goal as one weighted sum; measures that only decide ties get a little."""
    if goal.weights is not None:
        return {name: float(weight) for name, weight in goal.weights.items()}
    return {name: TIE_WEIGHT**place for place, name in enumerate(goal.order) if name != "peak"}


@dataclass(eq=False)
class Chain:
    """One annealing: its boards, and its best. Not for two threads at once."""

    settings: Shift
    shop: Shop
    rates: Rates
    rules: Rules
    raw_rates: Rates
    weights: dict[Measure, float]
    seed: int
    turns: int = 0
    temperature: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        self.plain = packed(self.shop)
        self.desk = packed_desk(desk_of(self.shop, self.raw_rates))
        self.board, self.trial, self.best = self._new(), self._new(), self._new()
        self.value = np.inf

    def _new(self) -> tuple[Board, Board]:
        board = board_of(self.shop, self.raw_rates)
        return board, packed_board(board)

    def load(self, draft: Draft) -> bool:
        """Take a draft as the present one (and the best, if it is better); False where it does not fit."""
        fresh = self._new()
        alts = np.array(
            [
                next(
                    a
                    for a in range(self.shop.alt_first[o], self.shop.alt_first[o + 1])
                    if self.shop.alt_machine[a] == m
                )
                for o, m in enumerate(draft.machine.tolist())
            ],
            np.int32,
        )
        order = np.argsort(draft.start, kind="stable").astype(np.int32)
        args = (self.plain, self.rates, self.rules, self.desk)
        if not load_board(*args, fresh[1], alts, draft.start, order):
            return False
        self._take(fresh)
        return True

    def construct(self, rng: np.random.Generator) -> bool:
        """A first plan, job after job; False if none of `TRIES` orders leads to one."""
        jobs = len(self.shop.job_ready)
        dues = np.argsort(self.shop.job_due, kind="stable")
        found = False
        for attempt in range(TRIES):
            fresh = self._new()
            order = dues if attempt == 0 else rng.permutation(jobs)
            args = (self.plain, self.rates, self.rules, self.desk)
            if fill(*args, fresh[1], order.astype(np.int32)):
                self._take(fresh)
                found = True
                if attempt >= 2 or jobs * self.shop.operations > 100_000:
                    break
        return found

    def _take(self, fresh: tuple[Board, Board]) -> None:
        value = value_of(self.plain, self.rates, fresh[1])
        copy(fresh[1], self.board[1])
        if value < self.value:
            self.value = value
            copy(fresh[1], self.best[1])

    def back_to_best(self) -> None:
        """Go on from the best so far."""
        copy(self.best[1], self.board[1])

    def step(self, n: int) -> float:
        """`n` rounds at the present temperatures; the best value so far."""
        self.turns += 1
        value: float = refine(
            self.plain, self.rates, self.rules, self.desk, self.board[1], self.trial[1], self.best[1], n,
            *self.temperature, self.settings.most, self.settings.blink, (self.seed * 1_000_003 + self.turns) % 2**31,
        )  # fmt: skip
        self.value = min(self.value, value)
        return self.value

    def draft(self) -> Draft:
        """The best so far."""
        best = self.best[0]
        return Draft(self.shop.alt_machine[best.alt].astype(np.int32), best.start.copy(), best.off.copy())


@dataclass(eq=False)
class _Search:
    """One run."""

    settings: Shift
    problem: Problem
    shop: Shop
    names: Names
    exchange: Exchange
    seed: int
    start: Plan | None
    evaluations: int = 0
    mine: Plan | None = None
    bound: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    failed: list[BaseException] = field(default_factory=list)

    def run(self) -> Result:
        run = self.exchange
        self.weights = weights_of(run.goal)
        self.limits: dict[Measure, float] = dict(run.goal.limits)
        for name, limit in self.problem.limits.items():
            self.limits[name] = min(limit, self.limits.get(name, limit))
        self.closed = self.shop.horizon < FAR or "makespan" in self.limits
        self.latest = self._latest()
        for attempt in range(EXTENSIONS):
            cells = desk_cells(self.shop, self.latest - earliest_draw(self.shop) + 1)
            if cells > MAX_CELLS:
                return self._empty(
                    f"the ticks until {self.latest} are too many for jobs of this kind ({cells} pairs, at most "
                    f"{MAX_CELLS}): take coarser ticks or an earlier horizon"
                )
            raw = rates_of(self.shop, self.weights, latest=self.latest)
            self.rules = packed_rules(self._rules(raw.low, raw.high))
            chain = self._chain(self.seed, self.weights)
            if self._first(chain):
                break
            if self.closed or attempt == EXTENSIONS - 1:
                return self._empty(
                    "no plan keeps the horizon and the limits as far as shift can see: allow more, or use cpsat"
                )
            self.latest += self.latest - self.shop.floor  # a rule's batches may end earlier than what is possible here
        self._offer(chain)
        other = None
        if run.budget.evaluations is None and run.budget.workers > 1:
            other = threading.Thread(target=self._second, args=(chain.draft(),), name="shift")
            other.start()
        try:
            chain = self._anneal(chain)
        except BaseException:
            run.finish()  # nobody waits for what the second worker finds any more
            raise
        finally:
            if other is not None:
                other.join()
        if self.failed:
            raise self.failed[0]
        self._offer(chain)
        plan = self.mine
        if plan is None:
            over = [name for name in self.limits if name not in ("makespan", "tardiness", "peak")]
            return self._empty(f"no plan found keeps the limits of {', '.join(over)}: allow more, or use cpsat")
        status: Status = "feasible"
        value = run.goal.value(plan.objectives)[0]
        if self.bound is not None and value <= self.bound * (1 + 1e-6) + 1e-9:
            status = "optimal" if len(run.goal.order) == 1 or run.goal.weights is not None else "feasible"
        plan = plan.model_copy(update={"status": status, "bound": self.bound if run.goal.weights is None else None})
        return Result(
            (plan,), plan.objectives, self.bound, status, run.elapsed_s, tuple(run.events), evaluations=self.evaluations
        )

    def _empty(self, reason: str) -> Result:
        run = self.exchange
        return Result(reason=reason, runtime_s=run.elapsed_s, history=tuple(run.events), evaluations=self.evaluations)

    def _latest(self) -> int:
        latest = min(self.shop.horizon, int(self.limits.get("makespan", FAR)))
        if latest < FAR:
            return latest
        plans = Dispatch(rule="edd").solve(self.problem, goal=Goal(("makespan",))).plans
        known = [plan.objectives["makespan"] for plan in (*plans, self.start, self.exchange.best) if plan is not None]
        return int(max(known, default=0)) + max(1, int(24 * self.shop.hour_ticks))

    def _rules(self, low: int, high: int) -> Rules:
        headroom: Floats = np.zeros(0)
        crowded = -1
        tracked = self._net()
        if "peak" in self.limits and "electricity" in self.names.carriers:
            crowded = self.names.carriers.index("electricity")
            ticks = np.arange(low, high, dtype=np.int64)
            inside = (ticks >= 0) & (ticks < self.shop.horizon)
            headroom = self.limits["peak"] + curve_values(self.shop, GENERATION, crowded, ticks)
            headroom = headroom - curve_values(self.shop, BASE_LOAD, crowded, ticks) * inside
            tracked[crowded] = True
        tardiness = min(int(self.limits.get("tardiness", FAR)), FAR)
        return Rules(self.latest, tardiness, headroom, crowded, tracked)

    def _net(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return rates_of(self.shop, self.weights, latest=self.latest).net.copy()

    def _chain(self, seed: int, weights: Mapping[Measure, float]) -> Chain:
        raw = rates_of(self.shop, weights, latest=self.latest)
        return Chain(self.settings, self.shop, packed_rates(raw), self.rules, raw, dict(weights), seed)

    def _first(self, chain: Chain) -> bool:
        found = False
        for plan in (self.start, self.exchange.best if self.exchange.budget.evaluations is None else None):
            if plan is not None:
                try:
                    found = chain.load(draft_of(self.shop, self.names, plan)) or found
                except (ValueError, KeyError, StopIteration):
                    continue  # a plan for a problem like this one, that does not fit this one
        if not found:
            found = chain.construct(np.random.default_rng(self.seed))
        if not found:
            ruled = Dispatch(rule="edd").solve(self.problem, goal=Goal(("makespan",), limits=dict(self.limits)))
            found = bool(ruled.plans) and chain.load(draft_of(self.shop, self.names, ruled.plans[0]))
        chain.back_to_best()
        return found

    def _second(self, draft: Draft) -> None:
        """The second worker: a bound, then another chain."""
        try:
            self._prove()
            chain = self._chain(self.seed + 7919, self.weights)
            if not self.exchange.over and chain.load(draft):
                self._anneal(chain)
        except BaseException as error:  # told to the thread that waits for this one
            self.failed.append(error)

    def _prove(self) -> None:
        if not self.closed:
            return  # later plans may be cleaner
        goal = self.exchange.goal
        first = goal.order[0]
        weights: Mapping[Measure, float] = self.weights if goal.weights is not None else {first: 1.0}
        seconds = min(PROOF_S, self.exchange.left_s * 0.9)
        limit = self.limits.get("tardiness")
        found = grid_bound(
            self.shop, weights, latest=self.latest, seconds=seconds, tardiness=limit, over=lambda: self.exchange.over
        )
        if found.value is not None:
            self.bound = found.value
            if goal.weights is None:
                self.exchange.raise_bound(first, found.value, "shift")

    def _anneal(self, chain: Chain) -> Chain:
        run = self.exchange
        limit = run.budget.evaluations
        least = max(1, min(SLICE, SLICE_WORK // self.shop.operations))
        done, n, cycle = 0, least, 0
        last_offer, seen = run.elapsed_s, chain.value
        begun_s = run.elapsed_s
        while not run.over and (limit is None or done < limit):
            spent = (
                done / limit
                if limit is not None
                else (run.elapsed_s - begun_s) / max(1e-9, run.budget.seconds - begun_s)
            )
            while cycle < len(CYCLES) - 1 and spent >= CYCLES[cycle]:
                cycle += 1
                self._adopt(chain)
                chain = self._dearer(chain)
                chain.back_to_best()
                seen = np.inf
            begin = CYCLES[cycle - 1] if cycle else 0.0
            part = min(1.0, (spent - begin) / (CYCLES[cycle] - begin))
            one = abs(chain.value) / max(1, len(self.shop.job_ready)) or 1.0
            heat = one * self.settings.hot * (self.settings.cold / self.settings.hot) ** part
            chain.temperature = (heat, heat)
            if limit is not None:
                n = min(least, limit - done)
            before_s = run.elapsed_s
            chain.step(n)
            done += n
            took_s = run.elapsed_s - before_s
            n = int(min(100_000, max(1, n * LOOK_S / max(took_s, 1e-6)), 4 * n))
            if limit is None and chain.value < seen and run.elapsed_s - last_offer > OFFER_S:
                self._offer(chain)
                last_offer, seen = run.elapsed_s, chain.value
        with self.lock:
            self.evaluations += done
        if limit is None:
            self._offer(chain)
        return chain

    def _dearer(self, chain: Chain) -> Chain:
        """Where the best plan breaks a limit of carbon, cost, energy or the ledger, that measure gets more weight."""
        plan = plan_of(self.problem, self.shop, self.names, chain.draft(), solver="shift")
        goal = self.exchange.goal
        weights = dict(chain.weights)
        for name in RATED:
            over = plan.objectives.get(KEY[name], 0.0) - self.limits.get(name, np.inf)
            if over > 0:
                scale = abs(goal.value(plan.objectives)[0]) / max(abs(plan.objectives[KEY[name]]), abs(over))
                weights[name] = max(weights.get(name, 0.0) * DEARER, scale or 1.0)
        if weights == chain.weights:
            return chain
        other = self._chain(chain.seed, weights)
        return other if other.load(chain.draft()) else chain

    def _adopt(self, chain: Chain) -> None:
        """Take over what others have found, if it is better and fits."""
        best = self.exchange.best
        if self.exchange.budget.evaluations is not None or best is None or best is self.mine:
            return
        try:
            chain.load(draft_of(self.shop, self.names, best))
        except (ValueError, KeyError, StopIteration):
            return

    def _offer(self, chain: Chain) -> None:
        """Retime the best and say it."""
        draft = chain.draft()
        ticks = self.latest - self.shop.floor
        if self.shop.operations * ticks <= RETIME_NODES:
            try:
                better = retime(self.shop, draft, chain.weights, latest=self.latest, limits=self.limits)
            except UsageError:
                better = None
            if better is not None and (better.draft.start != draft.start).any():
                draft = better.draft
                chain.load(draft)
        run = self.exchange
        plan = plan_of(self.problem, self.shop, self.names, draft, solver="shift", runtime_s=run.elapsed_s)
        with self.lock:
            if not run.goal.within(self.problem, plan.objectives):
                return
            if self.mine is not None and not run.goal.better(plan.objectives, self.mine.objectives):
                return
            faults = violations(self.problem, plan)
            if faults:
                raise BrokenInvariant(f"shift made a plan that cannot be carried out: {faults[0]}")
            self.mine = plan
        run.offer(plan)
