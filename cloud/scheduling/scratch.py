"""Room for kernels to work in, made once per problem and thread: their hot loops allocate nothing.

    scratch = scratch_of(shop)           # of `cloud.scheduling.packed`

About 400 bytes per operation. What is in it means nothing between calls, except what a function says it leaves.
Dimensions as in `cloud.scheduling.shop`; D draws of power: at most 5 per operation, 2 per breakdown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloud.scheduling.shop import FAR, Bools, Floats, Indices, Ints, Shop


class Scratch(NamedTuple):
    """Never shared between threads."""

    # a draft, read machine by machine
    line: Indices  # (O,) operations of positive length by machine, then start
    line_first: Indices  # (M + 1,)
    ticks: Ints  # (O,) how long each lasts where it is; of a batch, its longest
    kw: Floats  # (O,) drawn by its work; a batch's by its first in `line`, 0 by the others
    lot_end: Ints  # (L,)
    spare: Indices  # (max(O, 2 D),)
    # draws of power
    draw_carrier: Indices  # (D,)
    draw_kw: Floats  # (D,)
    draw_start: Ints  # (D,)
    draw_end: Ints  # (D,)
    event: Indices  # (2 (D + H),) in time order
    event_at: Ints  # (2 (D + H),)
    event_kw: Floats  # (2 (D + H),) rise of the load
    # a schedule being made
    job_next: Indices  # (J,) occurrences so far
    job_time: Ints  # (J,) end of the last operation placed
    placed: Bools  # (O,)
    begin: Ints  # (O,) start of each
    end: Ints  # (O,) of a batch, of its longest
    low: Ints  # (O,) not earlier, because of a greatest wait
    on: Indices  # (O,) machine
    before: Indices  # (O,) on its machine, -1: none; members of a batch but the first are in no line
    after: Indices  # (O,)
    head: Indices  # (M,) first of the line, -1: none
    tail: Indices  # (M,)
    leader: Indices  # (O,) first of its batch; itself if it stands alone
    filled: Indices  # (O,) places taken of the batch it leads
    mate: Indices  # (O,) the next of its batch, -1: none
    was_begin: Ints  # (O,) of the batch it joined, before it did
    was_end: Ints  # (O,)
    setup_ticks: Ints  # (O,) of the set-up before it
    free: Ints  # (M,) fast path: end of the line
    crew_more: Indices  # (O, C) people it brought to its batch
    crew_led: Indices  # (O, C) people at work in the batch it leads
    crew_ask: Indices  # (C,) people needed by what is being placed
    crew_count: Indices  # (C,) steps of each profile
    crew_at: Ints  # (C, 2 O + 2 P + 1) where a step begins
    crew_busy: Ints  # (C, 2 O + 2 P + 1) people at work from there on
    since: Ints  # (M,) fast path: powered up to here, -1: not so far
    steady: bool  # the fast path can sum energy up on the way: no gap begins before `floor` or in a breakdown
    plain: bool  # nothing but machines, times and power: the fast path
    chained: bool  # there are greatest waits


def room_for(shop: Shop) -> Scratch:
    """Room for one thread, not yet packed."""
    jobs, ops, machines = len(shop.job_ready), len(shop.op_job), len(shop.preheat)
    draws = 5 * ops + 2 * len(shop.down_start) + machines
    events = 2 * (draws + len(shop.past_kw))
    crews = len(shop.crew_count)
    steps = 2 * (ops + len(shop.crew_past)) + 1 if crews else 1
    since = shop.machine_since
    chained = bool((shop.wait_max < FAR).any())
    plain = not (
        chained
        or crews
        or len(shop.closed_start)
        or len(shop.stretch_start) > machines
        or (shop.batch > 1).any()
        or (shop.setup_table >= 0).any()
        or shop.transport.any()
        or shop.wait_min.any()
    )
    return Scratch(
        line=np.empty(ops, np.int32),
        line_first=np.zeros(machines + 1, np.int32),
        ticks=np.empty(ops, np.int64),
        kw=np.empty(ops, np.float64),
        lot_end=np.empty(len(shop.lot_due), np.int64),
        spare=np.empty(max(ops, events), np.int32),
        draw_carrier=np.empty(draws, np.int32),
        draw_kw=np.empty(draws, np.float64),
        draw_start=np.empty(draws, np.int64),
        draw_end=np.empty(draws, np.int64),
        event=np.empty(events, np.int32),
        event_at=np.empty(events, np.int64),
        event_kw=np.empty(events, np.float64),
        job_next=np.empty(jobs, np.int32),
        job_time=np.empty(jobs, np.int64),
        placed=np.empty(ops, np.bool_),
        begin=np.empty(ops, np.int64),
        end=np.empty(ops, np.int64),
        low=np.empty(ops, np.int64),
        on=np.empty(ops, np.int32),
        before=np.empty(ops, np.int32),
        after=np.empty(ops, np.int32),
        head=np.empty(machines, np.int32),
        tail=np.empty(machines, np.int32),
        leader=np.empty(ops, np.int32),
        filled=np.empty(ops, np.int32),
        mate=np.empty(ops, np.int32),
        was_begin=np.empty(ops, np.int64),
        was_end=np.empty(ops, np.int64),
        setup_ticks=np.empty(ops, np.int64),
        free=np.empty(machines, np.int64),
        crew_more=np.zeros((ops, crews), np.int32),
        crew_led=np.zeros((ops, crews), np.int32),
        crew_ask=np.zeros(crews, np.int32),
        crew_count=np.zeros(crews, np.int32),
        crew_at=np.empty((crews, steps), np.int64),
        crew_busy=np.empty((crews, steps), np.int64),
        since=np.empty(machines, np.int64),
        steady=bool(plain and not len(shop.down_start) and not ((since >= 0) & (since < shop.floor)).any()),
        plain=plain,
        chained=chained,
    )
