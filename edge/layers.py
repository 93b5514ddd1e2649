"""What a network computes for one state, in numpy: layers are views of the vector, and all room is made once.

run = Layers(network, theta, state)     # theta (P,), state (S,): buffers that stay
state[:] = …; values = run()            # (A,), valid until the next call
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from messages.network import Network

F32: TypeAlias = NDArray[np.float32]


class Layers:
    """One network, one vector, one state."""

    def __init__(self, network: Network, theta: F32, state: F32) -> None:
        part = {one.name: theta[one.start : one.stop].reshape(one.shape) for one in network.slices}
        rooms = [np.zeros(width, np.float32) for width in network.hidden]
        froms = [state, *rooms]
        self._body = [
            (froms[k], part[f"body.{k}.weight"], part[f"body.{k}.bias"], room) for k, room in enumerate(rooms)
        ]
        name = "advantage" if network.dueling else "head"
        self._last = froms[-1]
        self._head = part[f"{name}.weight"], part[f"{name}.bias"]
        self._value = (part["value.weight"][:, 0], part["value.bias"]) if network.dueling else None
        self._out = np.zeros(network.outputs, np.float32)

    def __call__(self) -> F32:
        for x, weight, bias, room in self._body:
            np.dot(x, weight, out=room)
            np.add(room, bias, out=room)
            np.maximum(room, 0, out=room)
        out, (weight, bias) = self._out, self._head
        np.dot(self._last, weight, out=out)
        np.add(out, bias, out=out)
        if self._value is not None:  # Q = V + A - mean(A)
            value, offset = self._value
            out += float(self._last.dot(value)) + float(offset[0]) - float(out.mean())
        return out
