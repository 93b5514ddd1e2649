"""A policy that decides on the node: an interface, a graph, a vector. It works offline, and asks nobody.

    policy = Policy.of(release.interface, graph, parameters=vector, network=release.network, version=4)
    choice = policy.choose(latest, now, device="cell")     # Choice(action="wait", why="") or Choice(None, why)
    policy = policy.with_parameters(newer)                 # the same session; in force by one assignment

`latest` are the newest values, (device, metric) → (µs, value). Features are scaled to 0…1 and clipped. There is no
action where a value is missing, stale or no number, or where the policy's own answer is none (counted in `non_finite`);
what then goes to the machine is for `edge.safety`, which is last in any case.

Where the release states its network, numpy computes it, faster than a runtime could be asked; else onnxruntime does,
with one thread, from bytes alone, into memory that was given to it once. Both agree within 1e-5. Without onnxruntime
(armv7l) graphs that have no network are refused. `checked` must have looked at a graph before it comes here. One
decision at a time: a policy has room for one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.layers import Layers
from messages.clock import SECOND
from messages.errors import BadMessage
from messages.learning import Interface
from messages.network import Network

F32: TypeAlias = NDArray[np.float32]
Latest: TypeAlias = Mapping[tuple[str, str], tuple[int, float]]
Engine = Literal["auto", "numpy", "onnxruntime"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Before anybody imports onnxruntime: from 1.29 on that begins a database at home, whose rows go to its maker.

NONE = -1
"""No action: what went in or came out was no number."""


class Choice(NamedTuple):
    """What a policy wants; without an action, why there is none."""

    action: str | None
    why: str = ""


class _Runner(Protocol):
    def __call__(self) -> F32:
        """(A,) for the state in the buffer it was made with; valid until the next call."""
        ...


class Policy:
    """One version, ready to decide."""

    def __init__(self, interface: Interface, parameters: F32, *, network: Network | None, session: Any, version: int):
        """Use `of`."""
        self.interface = interface
        self.version = version
        self.network = network
        self.parameters = parameters
        """(P,), not to be written to; empty if the graph has its own"""
        self.decisions = 0
        self.non_finite = 0
        """answers that were no numbers"""
        self._session = session
        self._state = np.zeros((1, len(interface.features)), np.float32)
        self._flat = self._state[0]
        self._zeros = np.zeros(len(interface.actions), np.float32)
        self._nothing = np.zeros(len(interface.features), np.float32)
        self._features = [
            (one.device, one.metric, one.low, 1.0 / (one.high - one.low), round(one.stale_s * SECOND))
            for one in interface.features
        ]
        self._run: _Runner
        if session is not None:
            self._run = _Bound(session, self._state, parameters, len(interface.actions))
        elif network is not None:
            self._run = Layers(network, parameters, self._flat)
        else:
            raise BadMessage("a graph without a network needs onnxruntime, which is not here: release it with one")

    @classmethod
    def of(
        cls,
        interface: Interface,
        graph: bytes,
        *,
        parameters: F32 | None = None,
        network: Network | None = None,
        version: int = 0,
        engine: Engine = "auto",
    ) -> Policy:
        """BadMessage if the vector does not fit, is not finite, or nothing here can run the graph."""
        ours = network is not None and engine != "onnxruntime"
        session = None if ours or engine == "numpy" else _session(graph)
        vector = _vector(parameters, network)
        if network is not None and (network.inputs, network.outputs) != (
            len(interface.features),
            len(interface.actions),
        ):
            raise BadMessage(
                f"the network has {network.inputs} inputs and {network.outputs} outputs, the interface "
                f"{len(interface.features)} features and {len(interface.actions)} actions"
            )
        return cls(interface, vector, network=network, session=session, version=version)

    @property
    def engine(self) -> str:
        """What computes it."""
        return "numpy" if self._session is None else "onnxruntime"

    def with_parameters(self, parameters: F32) -> Policy:
        """The same policy with another vector; BadMessage if it does not fit or is not finite."""
        vector = _vector(parameters, self.network)
        return Policy(self.interface, vector, network=self.network, session=self._session, version=self.version)

    def values(self, state: F32) -> F32:
        """(A,) the worth of every action in `state`, (S,); valid until the next call."""
        self._flat[:] = state
        return self._run()

    def decide(self, state: F32) -> int:
        """The index of the action in `state`, (S,); NONE if a number of it, or of the answer, is none."""
        self.decisions += 1
        flat = self._flat
        flat[:] = state
        if flat.dot(self._nothing) != 0.0:  # 0 · finite = 0; 0 · inf and 0 · nan are nan
            return NONE
        values = self._run()
        if values.dot(self._zeros) != 0.0:
            self.non_finite += 1
            return NONE
        return int(values.argmax())

    def choose(self, latest: Latest, now: int, *, device: str) -> Choice:
        """What to do at `device`, from the newest values."""
        state = np.empty(len(self._features), np.float32)
        for k, (whose, metric, low, per_unit, stale_us) in enumerate(self._features):
            name = whose or device
            known = latest.get((name, metric))
            if known is None:
                return Choice(None, f"{metric} of {name} is not known")
            at, value = known
            if not -stale_us <= now - at <= stale_us:
                return Choice(None, f"{metric} of {name} is {(now - at) / SECOND:g} s old")
            scaled = (value - low) * per_unit
            if scaled != scaled or value in (float("inf"), float("-inf")):
                return Choice(None, f"{metric} of {name} is not a number")
            state[k] = 0.0 if scaled < 0.0 else min(scaled, 1.0)
        action = self.decide(state)
        if action == NONE:
            return Choice(None, f"version {self.version} answers with what is not a number")
        return Choice(self.interface.actions[action])


class _Bound:
    """A session with its inputs and its output in our memory: nothing is allocated or looked up per decision."""

    def __init__(self, session: Any, state: F32, parameters: F32, outputs: int) -> None:
        self._kept = state, parameters
        self._out = np.zeros((1, outputs), np.float32)
        self._row: F32 = self._out[0]
        self._binding = session.io_binding()
        self._go = session.run_with_iobinding
        for name, array in (("state", state), ("parameters", parameters)):
            if array.size:
                self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._binding.bind_output("values", "cpu", 0, np.float32, self._out.shape, self._out.ctypes.data)

    def __call__(self) -> F32:
        self._go(self._binding)
        return self._row


def _session(graph: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no root of their own
        raise BadMessage(f"onnxruntime does not take the graph: {str(error)[:300]}") from None


def _vector(parameters: F32 | None, network: Network | None) -> F32:
    """Our own copy, read-only."""
    wanted = 0 if network is None else network.size
    given = np.zeros(0, np.float32) if parameters is None else np.array(parameters, np.float32)
    if given.shape != (wanted,):
        raise BadMessage(f"{given.shape} parameters, the network has {wanted}")
    if not np.isfinite(given).all():
        raise BadMessage(f"{int(np.count_nonzero(~np.isfinite(given)))} parameters are not finite")
    given.setflags(write=False)
    return given
