"""A flexible job shop as tabu search sees it: operations, machines and the least ticks between them.

    knows(shop)          "" or what of this problem lies beyond it
    net = net_of(shop)   what does not change
    line = line_of(net)  one plan laid out in an order, and room to work

Breakdowns to come, closed times, greatest waits, batches and crews are not in it: what begins as early as its
predecessors allow would not keep them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.scheduling.shop import FAR, Bools, Indices, Ints, Shop

Seeds = npt.NDArray[np.uint64]


class Net(NamedTuple):
    """What does not change: jobs, machines, lags."""

    before: Indices  # (O + 1,) predecessor in the job, O: none
    after: Indices  # (O + 1,)
    alt_first: Indices  # (O + 1,)
    alt_machine: Indices  # (A,)
    alt_ticks: Ints  # (A,)
    alt_ready: Ints  # (A,) not earlier there
    wait: Ints  # (O + 1,) least ticks behind its predecessor
    transport: Ints  # (M, M)
    family: Indices  # (O + 1,) the last entry is unused
    setup_table: Indices  # (M,) -1: none
    setup: Ints  # (tables, F, F)
    first_family: Indices  # (M,) what it is set up for as planning begins
    setup_ready: Ints  # (M,) when the first set-up can begin, -FAR: before planning begins
    room: Indices  # (M + 1,) where the operations of a machine stand in `Line.queue`
    lags: bool  # whether there are waits or transport
    setups: bool


class Line(NamedTuple):
    """A plan laid out in `order`, and room to work."""

    choice: Indices  # (O,)
    order: Indices  # (O,)
    place: Indices  # (O + 1,) of each operation
    jp: Indices  # (O + 1,) place of the predecessor in the job, mp: on the machine
    mp: Indices
    js: Indices
    ms: Indices
    jl: Ints  # (O + 1,) lag behind the predecessor in the job, ml: on the machine
    ml: Ints
    ticks: Ints
    ready: Ints
    end: Ints  # when it ends
    due: Ints  # ticks from its start to the end of everything (its tail and itself)
    end_cut: Ints  # the same with one operation taken out
    due_cut: Ints
    whole: Ints
    most: Ints  # (1,) ticks of the longest operation
    moved: Ints  # (2,) last operation moved, and its longest path as it was foreseen
    machine: Indices  # (O,) by place
    queue: Indices  # (A,) places by machine
    queued: Indices  # (M,)
    slot: Indices  # (O + 1,) by place: its position in the machine's queue, -1: of zero length, in no queue
    last: Indices  # (M,)
    marked: Bools  # (O + 1,)
    path: Indices  # (O,)
    shift: Indices  # (O,)
    tabu: Ints  # (A,) iteration until which an operation may not come (back) there
    seed: Seeds  # (1,)


def knows(shop: Shop) -> str:
    """What of this problem tabu search does not know, and what to use; "" if it knows everything."""
    lacks = []
    if (np.diff(shop.stretch_first) > 1).any():
        lacks.append("breakdowns to come")
    if (shop.closed_end > shop.floor).any():
        lacks.append("closed times")
    first = np.zeros(shop.operations, np.bool_)
    first[shop.job_first[:-1][shop.job_left < 0]] = True
    if (shop.wait_max[~first] < FAR).any():
        lacks.append("greatest waits")
    if (shop.batch[shop.alt_machine] > 1).any():
        lacks.append("batches")
    if shop.crew_need.any():
        lacks.append("crews")
    return f"tabu knows no {', no '.join(lacks)}: use cpsat or the portfolio" if lacks else ""


def net_of(shop: Shop) -> Net:
    """Jobs, machines and lags of `shop`."""
    count, machines = shop.operations, len(shop.preheat)
    before = np.arange(-1, count, dtype=np.int32)
    before[shop.job_first[:-1]] = count
    after = np.arange(1, count + 2, dtype=np.int32)
    after[shop.job_first[1:] - 1] = count
    before[count] = after[count] = count
    last_stretch = shop.stretch_first[1:] - 1
    machine_ready = shop.stretch_ready[last_stretch]
    of = np.repeat(np.arange(count), np.diff(shop.alt_first))  # (A,) operation
    job = shop.op_job[of]
    ready = np.where(shop.job_first[job] == of, shop.job_ready[job], shop.floor)
    here = (shop.job_first[job] == of) & (shop.job_left[job] >= 0)
    carried = np.maximum(shop.transport[shop.job_at[job[here]], shop.alt_machine[here]], shop.wait_min[of[here]])
    ready[here] = np.maximum(ready[here], shop.job_left[job[here]] + carried)
    working = shop.alt_ticks > 0
    ready[working] = np.maximum(ready[working], machine_ready[shop.alt_machine[working]])
    return Net(
        before=before,
        after=after,
        alt_first=shop.alt_first,
        alt_machine=shop.alt_machine,
        alt_ticks=shop.alt_ticks,
        alt_ready=ready,
        wait=np.append(shop.wait_min, 0),
        transport=shop.transport,
        family=np.append(shop.family, np.int32(0)),
        setup_table=shop.setup_table,
        setup=shop.setup,
        first_family=shop.machine_family,
        setup_ready=shop.stretch_setup[last_stretch],
        room=np.cumsum([0, *np.bincount(shop.alt_machine, minlength=machines)]).astype(np.int32),
        lags=bool(shop.transport.any() or shop.wait_min.any()),
        setups=bool((shop.setup_table >= 0).any()),
    )


def line_of(net: Net, seed: int = 1) -> Line:
    """Room for a search; `seed` is not 0."""
    count, alternatives, machines = len(net.before) - 1, len(net.alt_ticks), len(net.setup_table)

    def indices(n: int) -> Indices:
        return np.full(n, count, np.int32)

    def ints(n: int) -> Ints:
        return np.zeros(n, np.int64)

    return Line(
        choice=indices(count),
        order=np.arange(count, dtype=np.int32),
        place=indices(count + 1),
        jp=indices(count + 1),
        mp=indices(count + 1),
        js=indices(count + 1),
        ms=indices(count + 1),
        jl=ints(count + 1),
        ml=ints(count + 1),
        ticks=ints(count + 1),
        ready=ints(count + 1),
        end=ints(count + 1),
        due=ints(count + 1),
        end_cut=ints(count + 1),
        due_cut=ints(count + 1),
        whole=ints(count + 1),
        most=ints(1),
        moved=np.full(2, -1, np.int64),
        machine=indices(count),
        queue=indices(alternatives),
        queued=indices(machines),
        slot=indices(count + 1),
        last=indices(machines),
        marked=np.zeros(count + 1, np.bool_),
        path=indices(count),
        shift=indices(count),
        tabu=ints(alternatives),
        seed=np.array([seed], np.uint64),
    )
