"""What every operator of a policy may be, and how large what it makes: sizes are known before anything is allocated.

    made = OPERATORS["Gemm"].made(node)     # shapes of its outputs; BadMessage if they cannot be told from the graph

Shapes are static: a graph whose sizes depend on its data, or that names an operator not in `OPERATORS`, is refused.
Semantics: ONNX opset 17, https://onnx.ai/onnx/operators/. `Call.cost` counts multiplications, so that a decision's time
is bounded as its memory is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeAlias

from messages.errors import BadMessage

Shape: TypeAlias = tuple[int, ...]

MAX_RANK = 6
MAX_PARTS = 64
"""Inputs or outputs of one operator, and numbers of a constant that says a shape."""


class Tensor(NamedTuple):
    """What is known of a tensor before it is computed: its shape, and its numbers if it is a small integer constant."""

    shape: Shape
    numbers: tuple[int, ...] | None = None
    whole: bool = False
    """int64; else float32"""


@dataclass(frozen=True)
class Call:
    """One node: its operator, what goes in (None: left out), how many come out, its attributes."""

    op: str
    inputs: Sequence[Tensor | None]
    outputs: int
    attributes: Mapping[str, int | tuple[int, ...]]

    def shape(self, k: int) -> Shape:
        """Of float input `k`."""
        one = self.inputs[k] if k < len(self.inputs) else None
        if one is None or one.whole:
            raise self.wrong(f"input {k} must be float32")
        return one.shape

    def numbers(self, k: int, name: str) -> tuple[int, ...] | None:
        """Of input `k`, an int64 constant; None if it is left out."""
        one = self.inputs[k] if k < len(self.inputs) else None
        if one is None:
            return None
        if one.numbers is None:
            raise self.wrong(f"{name} must be a constant of up to {MAX_PARTS} integers")
        return one.numbers

    def needed(self, k: int, name: str) -> tuple[int, ...]:
        """The same, not left out."""
        found = self.numbers(k, name)
        if found is None:
            raise self.wrong(f"{name} is missing")
        return found

    def axis(self, value: int, rank: int) -> int:
        """Counted from the front."""
        if not -rank <= value < rank:
            raise self.wrong(f"axis {value} of {rank}")
        return value % rank

    def axes(self, values: Sequence[int] | None, rank: int) -> list[int]:
        """Each once; all if none are given."""
        found = [self.axis(one, rank) for one in values] if values is not None else list(range(rank))
        if len(set(found)) < len(found):
            raise self.wrong("an axis is given twice")
        return found

    def number(self, name: str, otherwise: int) -> int:
        """An attribute."""
        found = self.attributes.get(name, otherwise)
        if not isinstance(found, int):
            raise self.wrong(f"{name} must be one integer")
        return found

    def list(self, name: str) -> tuple[int, ...] | None:
        """An attribute; None if it is not given."""
        found = self.attributes.get(name)
        if isinstance(found, int):
            raise self.wrong(f"{name} must be a list of integers")
        return found

    def wrong(self, text: str) -> BadMessage:
        """To be raised."""
        return BadMessage(f"graph: {self.op}: {text}")


class Operator(NamedTuple):
    """How many inputs it may have, which attributes are read, and what it makes."""

    inputs: range
    made: Callable[[Call], list[Shape]]
    attributes: frozenset[str] = frozenset()
    outputs: range = range(1, 2)


def multiplications(call: Call, made: Sequence[Shape]) -> int:
    """Roughly what it costs."""
    if call.op == "MatMul":
        return prod(made[0]) * call.shape(0)[-1]
    if call.op == "Gemm":
        return prod(made[0]) * call.shape(0)[0 if call.number("transA", 0) else 1]
    return sum(prod(one) for one in made)


def _same(call: Call) -> list[Shape]:
    return [call.shape(0)]


def _along(call: Call) -> list[Shape]:
    shape = call.shape(0)
    call.axis(call.number("axis", -1), len(shape))
    return [shape]


def _clip(call: Call) -> list[Shape]:
    for k in (1, 2):
        if k < len(call.inputs) and call.inputs[k] is not None and call.shape(k) != ():
            raise call.wrong("its limits must be single numbers")
    return [call.shape(0)]


def _broadcast(call: Call, *shapes: Shape) -> Shape:
    out: list[int] = []
    for k in range(max(map(len, shapes)), 0, -1):
        sizes = {shape[-k] for shape in shapes if len(shape) >= k} - {1}
        if len(sizes) > 1:
            raise call.wrong(f"shapes {', '.join(map(str, shapes))} do not fit")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def _elementwise(call: Call) -> list[Shape]:
    return [_broadcast(call, *(call.shape(k) for k in range(len(call.inputs))))]


def _matmul(call: Call) -> list[Shape]:
    a, b = call.shape(0), call.shape(1)
    if not a or not b:
        raise call.wrong("single numbers cannot be multiplied so")
    left, right = (a if len(a) > 1 else (1, *a)), (b if len(b) > 1 else (*b, 1))
    if left[-1] != right[-2]:
        raise call.wrong(f"shapes {a}, {b} do not fit")
    ends = (left[-2],) * (len(a) > 1) + (right[-1],) * (len(b) > 1)
    return [(*_broadcast(call, left[:-2], right[:-2]), *ends)] if len(left) > 2 or len(right) > 2 else [ends]


def _gemm(call: Call) -> list[Shape]:
    a, b = call.shape(0), call.shape(1)
    if len(a) != 2 or len(b) != 2:
        raise call.wrong("its inputs must be matrices")
    rows, inner = reversed(a) if call.number("transA", 0) else a
    inner_b, columns = reversed(b) if call.number("transB", 0) else b
    if inner != inner_b:
        raise call.wrong(f"shapes {a}, {b} do not fit")
    out = (rows, columns)
    if len(call.inputs) > 2 and call.inputs[2] is not None and _broadcast(call, out, call.shape(2)) != out:
        raise call.wrong("the bias does not fit")
    return [out]


def _reshape(call: Call) -> list[Shape]:
    shape, wanted = call.shape(0), list(call.needed(1, "the shape"))
    for k, size in enumerate(wanted):
        if size == 0 and k < len(shape):
            wanted[k] = shape[k]
    if wanted.count(-1) == 1:
        rest = -prod(wanted)
        if rest > 0:
            wanted[wanted.index(-1)] = prod(shape) // rest
    if any(size < 1 for size in wanted) or prod(wanted) != prod(shape):
        raise call.wrong(f"{shape} cannot be {tuple(wanted)}")
    return [tuple(wanted)]


def _flatten(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axis = call.number("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise call.wrong(f"axis {axis} of {len(shape)}")
    axis += len(shape) if axis < 0 else 0
    return [(prod(shape[:axis]), prod(shape[axis:]))]


def _squeeze(call: Call) -> list[Shape]:
    shape = call.shape(0)
    wanted = call.numbers(1, "axes")
    gone = [k for k, size in enumerate(shape) if size == 1] if wanted is None else call.axes(wanted, len(shape))
    if any(shape[k] != 1 for k in gone):
        raise call.wrong("only axes of size 1 can go")
    return [tuple(size for k, size in enumerate(shape) if k not in gone)]


def _unsqueeze(call: Call) -> list[Shape]:
    shape, wanted = call.shape(0), call.needed(1, "axes")
    rank = len(shape) + len(wanted)
    new, rest = call.axes(wanted, rank), iter(shape)
    return [tuple(1 if k in new else next(rest) for k in range(rank))]


def _transpose(call: Call) -> list[Shape]:
    shape = call.shape(0)
    order = call.list("perm") or tuple(reversed(range(len(shape))))
    if sorted(order) != list(range(len(shape))):
        raise call.wrong(f"perm {order} of {len(shape)} axes")
    return [tuple(shape[k] for k in order)]


def _slice(call: Call) -> list[Shape]:
    shape = list(call.shape(0))
    starts, ends = call.needed(1, "starts"), call.needed(2, "ends")
    chosen = call.numbers(3, "axes")
    axes = call.axes(chosen if chosen is not None else range(len(starts)), len(shape))
    steps = call.numbers(4, "steps") or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise call.wrong("starts, ends, axes and steps do not fit")
    for k, start, end, step in zip(axes, starts, ends, steps, strict=True):
        shape[k] = len(range(shape[k])[slice(start, end, step)])
    return [tuple(shape)]


def _split(call: Call) -> list[Shape]:
    shape = call.shape(0)
    axis = call.axis(call.number("axis", 0), len(shape))
    sizes = call.needed(1, "its parts")
    if len(sizes) != call.outputs or sum(sizes) != shape[axis] or any(size < 1 for size in sizes):
        raise call.wrong(f"{sizes} are not {call.outputs} parts of {shape[axis]}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _concat(call: Call) -> list[Shape]:
    shapes = [call.shape(k) for k in range(len(call.inputs))]
    if "axis" not in call.attributes:
        raise call.wrong("axis is missing")
    axis = call.axis(call.number("axis", 0), len(shapes[0]))
    if len({(*shape[:axis], 0, *shape[axis + 1 :]) for shape in shapes}) > 1:
        raise call.wrong("shapes do not fit")
    first = shapes[0]
    return [(*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])]


def _reduce(call: Call) -> list[Shape]:
    shape = call.shape(0)
    wanted = call.numbers(1, "axes") if call.op == "ReduceSum" else call.list("axes")
    gone = call.axes(wanted or None, len(shape))
    keep = call.number("keepdims", 1)
    return [tuple(1 if k in gone else size for k, size in enumerate(shape) if keep or k not in gone)]


_ONE, _TWO, _MANY = range(1, 2), range(2, 3), range(1, MAX_PARTS + 1)

OPERATORS: Mapping[str, Operator] = {
    **{op: Operator(_ONE, _same) for op in ("Abs", "Exp", "Identity", "Neg", "Relu", "Sigmoid", "Softplus", "Sqrt")},
    **{op: Operator(_ONE, _same, frozenset({"alpha"})) for op in ("Elu", "LeakyRelu")},
    **{op: Operator(_ONE, _along, frozenset({"axis"})) for op in ("LogSoftmax", "Softmax")},
    **{op: Operator(_TWO, _elementwise) for op in ("Add", "Div", "Mul", "Sub")},
    **{op: Operator(_MANY, _elementwise) for op in ("Max", "Min")},
    "Clip": Operator(range(1, 4), _clip),
    "Concat": Operator(_MANY, _concat, frozenset({"axis"})),
    "Flatten": Operator(_ONE, _flatten, frozenset({"axis"})),
    "Gemm": Operator(range(2, 4), _gemm, frozenset({"alpha", "beta", "transA", "transB"})),
    "MatMul": Operator(_TWO, _matmul),
    "ReduceMax": Operator(_ONE, _reduce, frozenset({"axes", "keepdims"})),
    "ReduceMean": Operator(_ONE, _reduce, frozenset({"axes", "keepdims"})),
    "ReduceSum": Operator(range(1, 3), _reduce, frozenset({"keepdims"})),
    "Reshape": Operator(_TWO, _reshape),
    "Slice": Operator(range(3, 6), _slice),
    "Split": Operator(_TWO, _split, frozenset({"axis"}), range(1, MAX_PARTS + 1)),
    "Squeeze": Operator(range(1, 3), _squeeze),
    "Tanh": Operator(_ONE, _same),
    "Transpose": Operator(_ONE, _transpose, frozenset({"perm"})),
    "Unsqueeze": Operator(_TWO, _unsqueeze),
}
