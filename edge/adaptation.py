"""What was released becomes a cell's own: it is learned on, on what this cell remembers, and decides part of the way.

    making = Adaptation(learner, version, rng, steps=300, half=2_000)     # `learner` stays as it is
    while making.left:
        making.work(10)                                                   # optimiser steps, in slices
    making.vector                                                         # (P,): what decides
    vector = adapted(learner, version, rng, steps=300, half=2_000)        # the same at once

With v the version, (P,), and a the mean of its copy over the last half of the steps (Polyak & Juditsky, 1992: one that
was just stepped is off by the noise of its last batches), what decides is v + n / (n + half) · (a - v), where n is the
number of transitions that are remembered. Who knows nothing decides by what was learned together; half of the way is
gone at `half`. Between a policy and what fine-tuning makes of it lies one that is better than both (Wortsman et al.,
2022, arXiv:2109.01903).

Where `version` is a body alone, (shared,), the learner's own head is put under it, and a decides: a head fits one body,
so there is nothing to go part of the way to. Bounds: six vectors of P until it is done; the memory is the learner's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.layers import F32
from edge.learner import Learner, learn, pull


class Adaptation:
    """One version on its way to become one cell's own."""

    def __init__(self, learner: Learner, version: F32, rng: np.random.Generator, *, steps: int, half: int) -> None:
        """`steps`: optimiser steps; with none, or less than a batch remembered, `version` decides as it is."""
        self.known = len(learner.memory)
        """transitions that it is made of"""
        self.left = steps if self.known >= learner.settings.batch else 0
        """steps to do"""
        vectors = {name: getattr(learner, name).copy() for name in ("theta", "target", "first", "second")}
        self._apart = replace(learner, **vectors, head_steps=0)
        self._apart.first[:] = self._apart.second[:] = 0
        pull(self._apart, version)
        self._version = self._apart.theta.copy()
        self._share = self.known / max(1, self.known + half) if len(version) == learner.network.size else 1.0
        self._rng = rng
        self._last = self.left - self.left // 2
        self._total = np.zeros(len(self._version))

    def work(self, steps: int) -> None:
        """At most so many optimiser steps."""
        for _ in range(min(steps, self.left)):
            learn(self._apart, self._rng)
            self.left -= 1
            if self.left < self._last:
                self._total += self._apart.theta

    @property
    def vector(self) -> F32:
        """What decides, (P,), when nothing is left."""
        if not self._last:
            return self._version
        mean = self._total / self._last
        return np.asarray(self._version + self._share * (mean - self._version), np.float32)


def adapted(learner: Learner, version: F32, rng: np.random.Generator, *, steps: int, half: int) -> F32:
    """What decides, (P,), for the cell that `learner` knows."""
    making = Adaptation(learner, version, rng, steps=steps, half=half)
    making.work(steps)
    return making.vector
