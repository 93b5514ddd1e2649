"""A policy network by its shape: which slice of the one flat float32 vector is which layer.

    net = Network(inputs=12, hidden=(128, 128), outputs=5)
    net.size                                  # 18,821 parameters
    net.slices                                # (Slice("body.0.weight", 0, (12, 128)), …, Slice("head.bias", …))
    net.shared                                # parameters before this index are shared, the rest are the head's

What is learned, averaged, sent and executed is the same vector; a layer is a view of it, never a copy. Weights are
(inputs, outputs), row-major, so that a layer is `x @ weight + bias`; hidden layers are ReLU. The body comes first and
the head last: a node that keeps its head for itself shares one contiguous part. With `dueling` (Wang et al., 2016,
arXiv:1511.06581) the head is a value and an advantage, Q = V + A - mean(A).
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Annotated, NamedTuple

from pydantic import Field

from messages.message import Message

MAX_PARAMETERS = 1_000_000
"""Parameters of one policy, 4 MB; larger models are released as graphs of their own, and not learned at the edge."""


class Slice(NamedTuple):
    """One layer's part of the vector."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """One past its last parameter."""
        return self.start + prod(self.shape)


class Network(Message):
    """A multi-layer perceptron."""

    inputs: int = Field(ge=1, le=4_096)
    hidden: tuple[Annotated[int, Field(ge=1, le=4_096)], ...] = Field((128, 128), max_length=8)
    outputs: int = Field(ge=1, le=256)
    dueling: bool = False

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """Every layer, in the order of the vector."""
        found: list[Slice] = []
        at = 0

        def add(name: str, rows: int, columns: int) -> None:
            nonlocal at
            for part, shape in (("weight", (rows, columns)), ("bias", (columns,))):
                found.append(Slice(f"{name}.{part}", at, shape))
                at = found[-1].stop

        width = self.inputs
        for number, units in enumerate(self.hidden):
            add(f"body.{number}", width, units)
            width = units
        if self.dueling:
            add("value", width, 1)
            add("advantage", width, self.outputs)
        else:
            add("head", width, self.outputs)
        return tuple(found)

    @property
    def size(self) -> int:
        """Parameters in all."""
        return self.slices[-1].stop

    @property
    def shared(self) -> int:
        """Parameters of the body: those before this index; the head follows."""
        return next(one.start for one in self.slices if not one.name.startswith("body."))
