"""The components that are really there: what disassembly found good goes in, what is built takes out.

    bins = Bins(plant, seed=1); bins.know("a7", "alternator")
    bins.why_not("a7", 0)             # None, or what is missing for it to begin
    bins.take("a7", 0)                # its first step begins
    bins.yields("cell-1", "strip~3", 0)   # its last step ended: component → pieces found good

The last fence: whatever was reserved by whom, nothing is built from what is not there. A job that begins again after a
breakdown has its components already. What is found is drawn from (seed, machine, job, operation), so the same run finds
the same. Bound: `REMEMBERED` jobs that have taken their components.
"""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np

from messages.circular import Circular, number_of
from messages.plant import Plant

REMEMBERED = 100_000


class Bins:
    """One plant's components; a plant that recovers nothing has none, and nothing is missing there."""

    def __init__(self, plant: Plant, *, seed: int) -> None:
        self.circular, self.seed = plant.circular or Circular(), seed
        self.pieces: Counter[str] = Counter(self.circular.stock)
        self.recovered: Counter[str] = Counter()
        self.consumed: Counter[str] = Counter()
        self._last = {product: len(plant.route(product)) - 1 for product in plant.products}
        self._products: dict[str, str] = {}
        self._supplied: dict[str, None] = {}

    def know(self, job: str, product: str) -> None:
        """What a job makes; jobs that the plant begins itself say it in their names."""
        self._products[job] = product
        if len(self._products) > REMEMBERED:
            del self._products[next(iter(self._products))]

    def product(self, job: str) -> str | None:
        """What a job makes, if that is known."""
        own = number_of(job)
        return own[0] if own and own[0] in self._last else self._products.get(job)

    def why_not(self, job: str, op: int) -> str | None:
        """None if its components are there, or in it already."""
        missing = [
            f"{pieces} {component} needed, {self.pieces[component]} in stock"
            for component, pieces in self._wants(job, op).items()
            if self.pieces[component] < pieces
        ]
        return "; ".join(missing) or None

    def take(self, job: str, op: int) -> None:
        """They go into the part."""
        wants = self._wants(job, op)
        self.pieces.subtract(wants)
        self.consumed.update(wants)
        if wants:
            self._supplied[job] = None
            if len(self._supplied) > REMEMBERED:
                del self._supplied[next(iter(self._supplied))]

    def yields(self, machine: str, job: str, op: int) -> dict[str, int] | None:
        """What the end of an operation brings; None: this one brings nothing."""
        product = self.product(job)
        if product is None or op != self._last[product] or product not in self.circular.recovers:
            return None
        rng = np.random.default_rng([self.seed, zlib.crc32(f"yield/{machine}/{job}/{op}".encode())])
        found = {name: int(rng.binomial(pieces, chance)) for name, pieces, chance in self.circular.pieces(product)}
        self.pieces.update(found)
        self.recovered.update(found)
        return found

    def _wants(self, job: str, op: int) -> dict[str, int]:
        if op != 0 or job in self._supplied:
            return {}
        return dict(self.circular.needs.get(self.product(job) or "", {}))
