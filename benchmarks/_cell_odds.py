"""The remanufacturing cell decided by who knows its odds but not its future: a dynamic programme, for comparison.

    plan = planned(spec, price=7.0)                      # what every state is worth, by step of the day
    money, kg = by_plan(spec, plan, days)                # (E, D), played in the true cell
    plan, days = within(spec, training, judged)          # at the price at which the limit is kept

It is told what a learner has to find out (rates of arrival, yields, wear, how the wind moves the grid's carbon), and
thinks of every consequence. So it shows about what can be had without foresight; it is attained, and no bound. Where it
is less than best: states between the points of its grid are interpolated, air is as damp as usual for the time of day,
a failure costs the same whenever it comes, and of forecasts it knows only how they move its idea of the wind.

Backwards over two days, each step in two halves: over chance (arrivals, sales, wind; one axis after the other), then
over decisions. The wind is a chain of states with the same variance and memory (Rouwenhorst, 1995).
Dimensions: products A and B, components, materials, wear, wind.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _cell_fast import EMPTY, F64, Constants, Drawn, State, constants, step
from numba import njit
from numpy.typing import NDArray

from firmware_sim.cell import COMPONENTS_MOST, DAY, FORECAST_1H, FORECAST_4H, MATERIALS_MOST, PRODUCTS_MOST, CellSpec

PRODUCTS = np.array([0, 1, 2, 5, 9, 14, 19, 24.0])
COMPONENTS = np.array([0, 2, 5, 8, 12, 16, 20.0])
MATERIALS = np.array([0, 20, 40, 52, 60.0])
WEAR = np.array([0, 0.1, 0.2, 0.32, 0.5])
WINDS = 5
FAILED = 90.0
"""What a failure costs beside its repair: steps in which nothing is done."""
ROUNDS = 2
"""Days that are gone through backwards."""
AHEAD = 4
"""Steps from now at which forecasts are asked for the wind."""
KEEP, SIGMA, BLUR = 0.97, 0.03, 0.02
"""Of the wind: what stays of it from step to step, what comes to it; and the error of a forecast."""


class Plan(NamedTuple):
    """What is known of a step's end, (96, states…): worth of what comes then, before chance has spoken."""

    worth: NDArray[np.float32]
    grid: F64
    """carbon without wind, two days"""
    winds: F64
    damp: F64
    gain: F64
    """(2,): how a surprise in the forecasts of 1 h and 4 h moves the wind"""
    price: float


def planned(spec: CellSpec, price: float, *, rounds: int = ROUNDS) -> Plan:
    """At this price of a kg. For cells whose pieces per step are whole."""
    if spec.pieces != int(spec.pieces):
        raise ValueError(f"{spec.pieces} pieces a step: the programme knows whole numbers only")
    share = (np.arange(2 * DAY) % DAY) / DAY
    shift = 1 + 0.8 * np.sin(2 * np.pi * (share - 0.25))
    grid = 0.38 - 0.16 * np.exp(-(((share - 0.54) / 0.09) ** 2)) + 0.1 * np.exp(-(((share - 0.8) / 0.07) ** 2))
    damp = spec.humid + 0.12 * np.cos(2 * np.pi * (share - 0.2))
    winds, moves = _rouwenhorst(WINDS)
    sales, sold = _sales(spec)
    shape = (len(PRODUCTS), len(PRODUCTS), len(COMPONENTS), len(MATERIALS), len(WEAR), WINDS)
    worth, value = np.zeros((DAY, *shape), np.float32), np.zeros(shape, np.float32)
    p = constants(spec)
    for _ in range(rounds):
        for t in reversed(range(DAY)):
            x = value
            for axis, rate in ((0, spec.arrive_a), (1, spec.arrive_b)):
                come, away = _arrivals(spec, rate * shift[t])
                x = _over(come, x, axis) + _along(away, axis, 6)
            x = _over(sales, x, 2) + _along(sold, 2, 6)
            worth[t] = _over(moves, x, 5)
            _decided(p, worth[t], value, price, grid[t], damp[t], winds)
    return Plan(worth, grid, winds, damp, _gain(), price)


def by_plan(spec: CellSpec, plan: Plan, days: Drawn) -> tuple[F64, F64]:
    """Money and kg of every day, (E, D)."""
    return _by_plan(constants(spec), plan, days)


def within(spec: CellSpec, training: Drawn, judged: Drawn, *, looks: int = 2) -> tuple[float, tuple[F64, F64]]:
    """(price, days judged), at the price at which days of training just keep the limit."""
    prices, emitted = [7.0], []
    for look in range(looks):
        plan = planned(spec, prices[-1])
        emitted.append(float(by_plan(spec, plan, training)[1].mean()))
        if look + 1 < looks:
            prices.append(prices[-1] + (emitted[-1] - spec.limit_kg) / 45)  # kg that one more money a kg saves, about
    return prices[-1], by_plan(spec, plan, judged)


def _rouwenhorst(count: int) -> tuple[F64, F64]:
    """(states, P(to | from))"""
    p = (1 + KEEP) / 2
    moves = np.array([[p, 1 - p], [1 - p, p]])
    for n in range(3, count + 1):
        more = np.zeros((n, n))
        more[:-1, :-1] += p * moves
        more[:-1, 1:] += (1 - p) * moves
        more[1:, :-1] += (1 - p) * moves
        more[1:, 1:] += p * moves
        more[1:-1] /= 2
        moves = more
    most = SIGMA / np.sqrt(1 - KEEP**2) * np.sqrt(count - 1)
    return np.linspace(-most, most, count), moves


def _gain() -> F64:
    """Conditional mean of a Gaussian course, given where it is now and two noisy means of it."""
    ahead = np.arange(FORECAST_4H)
    comes = np.array([[SIGMA * KEEP ** (k - j) if 0 < j <= k else 0.0 for j in ahead] for k in ahead])
    seen = np.stack([(ahead < FORECAST_1H) / FORECAST_1H, np.ones(FORECAST_4H) / FORECAST_4H])
    both = comes @ comes.T
    gain = both @ seen.T @ np.linalg.inv(seen @ both @ seen.T + BLUR**2 * np.eye(2))
    return np.asarray(gain[AHEAD] / KEEP**AHEAD)


def _poisson(mean: float) -> F64:
    terms = np.cumprod([1.0, *(mean / k for k in range(1, 10))])
    return np.asarray(terms / terms.sum())


def _at(points: F64, value: float) -> F64:
    """Weights by which `value` is a mean of points."""
    return np.array([np.interp(value, points, row) for row in np.eye(len(points))])


def _arrivals(spec: CellSpec, mean: float) -> tuple[F64, F64]:
    odds = _poisson(mean)
    come = [sum(q * _at(PRODUCTS, min(n + k, PRODUCTS_MOST)) for k, q in enumerate(odds)) for n in PRODUCTS]
    away = [
        -spec.turned_away_cost * sum(q * max(0, n + k - PRODUCTS_MOST) for k, q in enumerate(odds)) for n in PRODUCTS
    ]
    return np.array(come), np.array(away)


def _sales(spec: CellSpec) -> tuple[F64, F64]:
    odds = _poisson(spec.demand)
    left = [sum(q * _at(COMPONENTS, max(0.0, n - k)) for k, q in enumerate(odds)) for n in COMPONENTS]
    sold = [spec.price_a * sum(q * min(n, k) for k, q in enumerate(odds)) for n in COMPONENTS]
    return np.array(left), np.array(sold)


def _over(moves: F64, x: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    found = np.tensordot(moves.astype(np.float32), x, axes=([1], [axis]))
    return np.ascontiguousarray(np.moveaxis(found, 0, axis))


def _along(values: F64, axis: int, dimensions: int) -> NDArray[np.float32]:
    return values.astype(np.float32).reshape([-1 if k == axis else 1 for k in range(dimensions)])


@njit(cache=True)
def _place(points: F64, value: float) -> tuple[int, float]:
    last = len(points) - 1
    if value >= points[last]:
        return last - 1, 1.0
    k = 0
    while points[k + 1] <= value:
        k += 1
    return k, (value - points[k]) / (points[k + 1] - points[k])


@njit(cache=True)
def _worth(x: NDArray[np.float32], a: float, b: float, c: float, m: float, wear: float, wind: int) -> float:
    """Between points: linear in every direction."""
    ia, fa = _place(PRODUCTS, a)
    ib, fb = _place(PRODUCTS, b)
    ic, fc = _place(COMPONENTS, c)
    im, fm = _place(MATERIALS, m)
    iw, fw = _place(WEAR, wear)
    found = 0.0  # most states lie on points of most axes: what weighs nothing is not looked at
    for da in range(2 if fa else 1):
        for db in range(2 if fb else 1):
            both = (fa if da else 1 - fa) * (fb if db else 1 - fb)
            for dc in range(2 if fc else 1):
                three = both * (fc if dc else 1 - fc)
                for dm in range(2 if fm else 1):
                    four = three * (fm if dm else 1 - fm)
                    found += four * (1 - fw) * x[ia + da, ib + db, ic + dc, im + dm, iw, wind]
                    if fw:
                        found += four * fw * x[ia + da, ib + db, ic + dc, im + dm, iw + 1, wind]
    return found


@njit(cache=True)
def _work(
    p: Constants, x: NDArray[np.float32], is_a: bool, a: float, b: float, c: float, m: float, wear: float,
    wind: int, humidity: float, carbon: float, price: float,
) -> float:  # fmt: skip
    n = int(min(p.pieces, a if is_a else b))
    harm = max(0.0, humidity - 0.5)
    good = p.yield_a - p.humid_harm_a * harm if is_a else p.yield_b - p.humid_harm_b * harm
    good -= p.wear_harm * wear
    worn = min(1.0, wear + n * (p.wear_a if is_a else p.wear_b))
    fails = 0.002 + 0.08 * worn**2
    found = -price * carbon * n * (p.energy_a_kwh if is_a else p.energy_b_kwh) * (1 + 0.5 * wear)
    ways = 1.0
    for k in range(n + 1):
        odds = ways * good**k * (1 - good) ** (n - k)
        ways *= (n - k) / (k + 1)
        kept = min(float(k), COMPONENTS_MOST - c) if is_a else 0.0
        kg = n - kept if is_a else k * p.kg_b + (n - k)
        there_a, there_b = (a - n, b) if is_a else (a, b - n)
        stock = min(float(MATERIALS_MOST), m + kg)
        found += odds * (1 - fails) * _worth(x, there_a, there_b, c + kept, stock, worn, wind)
        found += odds * fails * (_worth(x, there_a, there_b, c + kept, stock, 0.0, wind) - p.repair_cost - FAILED)
    return found


@njit(cache=True)
def _five(
    p: Constants, x: NDArray[np.float32], a: float, b: float, c: float, m: float, wear: float,
    wind: int, humidity: float, carbon: float, price: float, out: F64,
) -> None:  # fmt: skip
    """What each action is worth; idling, which all emit, is left out."""
    out[0] = _work(p, x, True, a, b, c, m, wear, wind, humidity, carbon, price) if a else -np.inf
    out[1] = _work(p, x, False, a, b, c, m, wear, wind, humidity, carbon, price) if b else -np.inf
    out[2] = m * p.price_kg - p.transport_cost - price * p.transport_kg + _worth(x, a, b, c, 0.0, wear, wind)
    out[3] = _worth(x, a, b, c, m, wear, wind)
    out[4] = _worth(x, a, b, c, m, 0.0, wind) - p.service_cost


@njit(cache=True)
def _decided(
    p: Constants, x: NDArray[np.float32], value: NDArray[np.float32], price: float, grid: float, damp: float, winds: F64
) -> None:
    out = np.zeros(5)
    for ia, a in enumerate(PRODUCTS):
        for ib, b in enumerate(PRODUCTS):
            for ic, c in enumerate(COMPONENTS):
                for im, m in enumerate(MATERIALS):
                    for iw, wear in enumerate(WEAR):
                        for wind in range(len(winds)):
                            carbon = min(0.8, max(0.05, grid + winds[wind]))
                            _five(p, x, a, b, c, m, wear, wind, damp, carbon, price, out)
                            value[ia, ib, ic, im, iw, wind] = out.max() - price * p.idle_kwh * carbon


@njit(cache=True)
def _felt(plan: Plan, carbon: float, in_1h: float, in_4h: float, day: int) -> float:
    """The wind as it will be, by what is forecast."""
    wind, one, four = carbon - plan.grid[day], 0.0, 0.0
    for k in range(FORECAST_4H):
        usual = min(0.8, max(0.05, plan.grid[day + k] + wind * KEEP**k))
        four += usual / FORECAST_4H
        one += usual / FORECAST_1H if k < FORECAST_1H else 0.0
    return wind + plan.gain[0] * (in_1h - one) + plan.gain[1] * (in_4h - four)


@njit(cache=True)
def _by_plan(p: Constants, plan: Plan, days: Drawn) -> tuple[F64, F64]:
    episodes, steps = days.asked.shape
    money, kg = np.zeros((episodes, steps // DAY)), np.zeros((episodes, steps // DAY))
    low, high = np.zeros(5), np.zeros(5)
    for e in range(episodes):
        s = State(EMPTY.a, EMPTY.b, EMPTY.components, EMPTY.materials, EMPTY.repair, EMPTY.wear)
        for t in range(steps):
            day, damp, carbon = t % DAY, days.humidity[e, t], days.carbon[e, t]
            felt = _felt(plan, carbon, days.in_1h[e, t], days.in_4h[e, t], day)
            k, share = _place(plan.winds, max(plan.winds[0], felt))
            x = plan.worth[day]
            for wind, out in ((k, low), (k + 1, high)):
                _five(p, x, s.a, s.b, s.components, s.materials, s.wear, wind, damp, carbon, plan.price, out)
            action = 0
            for j in range(1, 5):
                if (1 - share) * low[j] + share * high[j] > (1 - share) * low[action] + share * high[action]:
                    action = j
            s, earned, emits = step(p, s, action, days, e, t)
            money[e, t // DAY] += earned
            kg[e, t // DAY] += emits
    return money, kg
