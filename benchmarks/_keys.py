"""Random keys to measures, compiled, for pymoo: our decoder and shifting, every second machine chosen by time."""

from __future__ import annotations

from cloud.scheduling.compiled import compiled
from cloud.scheduling.decode import key_order
from cloud.scheduling.scratch import Scratch
from cloud.scheduling.searchkernel import NEVER, Room, Rule, Trial, lay_out
from cloud.scheduling.shop import Floats, Shop


@compiled
def measured(shop: Shop, scratch: Scratch, room: Room, rule: Rule, trial: Trial, keys: Floats, out: Floats) -> None:
    """(W, 2 O) keys from 0 to 1 into (W, 7) measures."""
    count = len(trial.order)
    for w in range(len(keys)):
        key_order(keys[w, :count], shop.job_first, trial.order)
        for o in range(count):
            options = shop.alt_first[o + 1] - shop.alt_first[o]
            key = min(keys[w, count + o], 1.0 - 1e-12)
            trial.choice[o] = -1 if key < 0.5 else int((2.0 * key - 1.0) * options)
        lay_out(shop, scratch, room, rule, trial, NEVER)
        out[w] = trial.values
