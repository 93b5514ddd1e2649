"""Which ONNX files may run on a node: judged by our own walk through the bytes, before any runtime sees one of them.

    checked(graph, inputs=12, parameters=18_821, outputs=5)     # BadMessage says what is wrong, and the cure

A graph reads `state` (1, inputs) and, if it has none of its own, `parameters` (size,), float32; it makes `values`
(1, outputs). Weights may be inside. Refused are: everything outside of these bytes (external data), subgraphs,
functions, training information, sparse, string and quantised tensors, operators or domains that are not in
`edge.shapes`, names that are not there yet or are there twice, sizes that cannot be told or are too large, numbers that
are none, and any field this module does not know. Nothing is opened, and nothing is allocated for what a file only
claims to hold.

Bounds: `MAX_ARTEFACT` bytes, `MAX_NODES`, `MAX_TENSORS`, `MAX_ELEMENTS` numbers in all that is made on the way,
`MAX_COST` multiplications; then a decision takes at most some 50 MB and a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, prod
from typing import cast

import numpy as np

from edge.shapes import MAX_PARTS, MAX_RANK, OPERATORS, Call, Shape, Tensor, multiplications
from edge.wire import Field, Fields, read
from messages.errors import BadMessage
from messages.learning import MAX_ARTEFACT

OPSET = 17
IR = 8
MAX_NODES = 512
MAX_TENSORS = 512
MAX_ELEMENTS = 8 * 1024 * 1024
MAX_COST = 50_000_000
MAX_LISTED = 4_096
"""Numbers of a tensor that are listed one by one; more of them belong into `raw_data`."""

FLOAT, INT64 = 1, 7
_INSIDE = "keeps weights outside of the file; save it with all data inside"
_PLAIN = "has a subgraph (If, Loop, Scan); export it without control flow"
_META = Field("metadata_props", "bytes", 256)
_NOTE = Field("doc_string", "text")
_SPARSE = Field("has sparse tensors; save them dense", "never")

_MODEL = {
    1: Field("ir_version", "int"),
    2: Field("producer_name", "text"),
    3: Field("producer_version", "text"),
    4: Field("domain", "text"),
    5: Field("model_version", "int"),
    6: _NOTE,
    7: Field("graph", "bytes"),
    8: Field("opset_import", "bytes", 8),
    14: _META,
    20: Field("has training information; export it for inference", "never"),
    25: Field("has functions; export it with them inlined", "never"),
}
_OPSET = {1: Field("domain", "text"), 2: Field("version", "int")}
_GRAPH = {
    1: Field("node", "bytes", MAX_NODES),
    2: Field("name", "text"),
    5: Field("initializer", "bytes", MAX_TENSORS),
    10: _NOTE,
    11: Field("input", "bytes", 2),
    12: Field("output", "bytes"),
    13: Field("value_info", "bytes", 4 * MAX_NODES),
    14: Field("is quantised; release float32", "never"),
    15: _SPARSE,
    16: _META,
}
_NODE = {
    1: Field("input", "text", MAX_PARTS),
    2: Field("output", "text", MAX_PARTS),
    3: Field("name", "text"),
    4: Field("op_type", "text"),
    5: Field("attribute", "bytes", 8),
    6: _NOTE,
    7: Field("domain", "text"),
    9: _META,
}
_ATTRIBUTE = {
    1: Field("name", "text"),
    2: Field("f", "float"),
    3: Field("i", "int"),
    5: Field("t", "bytes"),
    6: Field(_PLAIN, "never"),
    8: Field("ints", "ints", MAX_PARTS),
    11: Field(_PLAIN, "never"),
    13: _NOTE,
    20: Field("type", "int"),
    22: _SPARSE,
    23: _SPARSE,
}
_KINDS = {1: "f", 2: "i", 4: "t", 7: "ints"}
"""Attribute types that are read, and where their value is."""
_TENSOR = {
    1: Field("dims", "ints", MAX_RANK),
    2: Field("data_type", "int"),
    4: Field("float_data", "floats", MAX_LISTED),
    6: Field("holds texts; only float32 and int64 are read", "never"),
    7: Field("int64_data", "ints", MAX_PARTS),
    8: Field("name", "text"),
    9: Field("raw_data", "bytes"),
    12: _NOTE,
    13: Field(_INSIDE, "never"),
    14: Field("data_location", "int"),
    16: _META,
}
_VALUE = {1: Field("name", "text"), 2: Field("type", "bytes"), 3: _NOTE, 4: _META}
_TYPE = {1: Field("tensor_type", "bytes"), 6: Field("denotation", "text"), 8: _SPARSE}
_TENSOR_TYPE = {1: Field("elem_type", "int"), 2: Field("shape", "bytes")}
_SHAPE = {1: Field("dim", "bytes", MAX_RANK)}
_DIM = {1: Field("dim_value", "int"), 2: Field("dim_param", "text"), 3: Field("denotation", "text")}


def checked(graph: bytes, *, inputs: int, parameters: int, outputs: int) -> None:
    """BadMessage unless a node may run this; `parameters` is 0 for a graph with its own weights."""
    if len(graph) > MAX_ARTEFACT:
        raise BadMessage(f"graph: {len(graph)} bytes, at most {MAX_ARTEFACT}")
    model = read(memoryview(graph), _MODEL, "graph")
    if _one(model, "ir_version", 0) != IR or _opsets(model) != [("", OPSET)]:
        raise BadMessage(f"graph: export it with opset {OPSET} of ai.onnx alone, and IR version {IR}")
    body = read(_bytes(model, "graph", "graph"), _GRAPH, "graph")
    wanted: dict[str, Shape] = {"state": (1, inputs)}
    if parameters:
        wanted["parameters"] = (parameters,)
    given = dict(_declared(one) for one in _views(body, "input"))
    if given != {name: Tensor(shape) for name, shape in wanted.items()} or len(given) < len(body["input"]):
        raise BadMessage(f"graph: its inputs must be {_said(wanted)}, float32, and nothing else")
    known = dict(given)
    for one in _views(body, "initializer"):
        name, tensor = _tensor(one)
        _add(known, name, tensor)
    room, cost = MAX_ELEMENTS, MAX_COST
    for one in _views(body, "node"):
        made, multiplied = _made(one, known)
        cost -= multiplied
        for name, tensor in made.items():
            _add(known, name, tensor)
            room -= prod(tensor.shape)
        if room < 0:
            raise BadMessage(f"graph: makes more than {MAX_ELEMENTS} numbers; make it smaller")
        if cost < 0:
            raise BadMessage(f"graph: takes more than {MAX_COST} multiplications; make it smaller")
    for one in _views(body, "value_info"):
        name, tensor = _declared(one)
        if name in known and (known[name].shape, known[name].whole) != (tensor.shape, tensor.whole):
            raise BadMessage(f"graph: says that {name!r} is {tensor.shape}, but it is {known[name].shape}")
    results = [_declared(one) for one in _views(body, "output")]
    if results != [("values", Tensor((1, outputs)))] or known.get("values") != results[0][1]:
        raise BadMessage(f"graph: its output must be {_said({'values': (1, outputs)})}, float32, and nothing else")


def _opsets(model: Fields) -> list[tuple[str, int]]:
    found = [read(one, _OPSET, "graph.opset_import") for one in _views(model, "opset_import")]
    return [(_text(one, "domain").replace("ai.onnx", ""), _one(one, "version", 0)) for one in found]


def _made(node: memoryview, known: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """What a node makes, by name, and its multiplications."""
    fields = read(node, _NODE, "graph.node")
    op, domain = _text(fields, "op_type"), _text(fields, "domain")
    names = [str(one) for one in fields["input"]]
    outputs = [str(one) for one in fields["output"]]
    if domain not in ("", "ai.onnx"):
        raise BadMessage(f"graph: operator {op!r} of domain {domain!r}: only those of ai.onnx are run")
    missing = next((name for name in names if name and name not in known), None)
    if missing is not None:
        raise BadMessage(f"graph: {op} reads {missing!r}, which nothing before it makes")
    if op == "Constant":
        return _constant(fields, names, outputs), 0
    given = [_attribute(one, op) for one in _views(fields, "attribute")]
    operator = OPERATORS.get(op)
    if operator is None:
        raise BadMessage(f"graph: operator {op!r} is not run here; there are Constant, {', '.join(sorted(OPERATORS))}")
    attributes = {name: value for name, value in given if not isinstance(value, Tensor)}
    if len(attributes) < len(given) or attributes.keys() - operator.attributes:
        named = ", ".join(name for name, _ in given)
        raise BadMessage(f"graph: {op}: attributes {named}: of these one is not read, or is given twice")
    if len(names) not in operator.inputs or len(outputs) not in operator.outputs:
        raise BadMessage(f"graph: {op} with {len(names)} inputs and {len(outputs)} outputs")
    call = Call(op, [known[name] if name else None for name in names], len(outputs), attributes)
    shapes = operator.made(call)
    if any(len(shape) > MAX_RANK or min(shape, default=1) < 1 for shape in shapes):
        raise call.wrong(f"makes {shapes}: sizes are 1 or more, of at most {MAX_RANK} axes")
    return dict(zip(outputs, map(Tensor, shapes), strict=True)), multiplications(call, shapes)


def _constant(fields: Fields, names: list[str], outputs: list[str]) -> dict[str, Tensor]:
    found = [_attribute(one, "Constant") for one in _views(fields, "attribute")]
    if names or len(outputs) != 1 or len(found) != 1 or found[0][0] != "value" or not isinstance(found[0][1], Tensor):
        raise BadMessage("graph: Constant: one tensor `value` and one output are read")
    return {outputs[0]: found[0][1]}


def _attribute(data: memoryview, op: str) -> tuple[str, int | tuple[int, ...] | Tensor]:
    """Name and value; a float's is 0, for no size depends on it."""
    fields = read(data, _ATTRIBUTE, f"graph: {op}: an attribute")
    name, kind = _text(fields, "name"), _one(fields, "type", 0)
    where = _KINDS.get(kind)
    if where is None or any(fields[other] for other in _KINDS.values() if other != where):
        raise BadMessage(f"graph: {op}: attribute {name!r} of type {kind}: one integer, float, list or tensor is read")
    if where == "ints":
        return name, tuple(cast("list[int]", fields["ints"]))
    if where == "t":
        return name, _tensor(_bytes(fields, "t", f"graph: {op}.{name}"))[1]
    if where == "f":
        if not all(isfinite(cast("float", one)) for one in fields["f"]):
            raise BadMessage(f"graph: {op}: attribute {name!r} is not finite")
        return name, 0
    return name, _one(fields, "i", 0)


def _tensor(data: memoryview) -> tuple[str, Tensor]:
    """A tensor that is in the file, with all its numbers."""
    fields = read(data, _TENSOR, "graph: a tensor")
    name, kind = _text(fields, "name"), _one(fields, "data_type", 0)
    what = f"graph: tensor {name!r}"
    if _one(fields, "data_location", 0) != 0:
        raise BadMessage(f"{what} {_INSIDE}")
    if kind not in (FLOAT, INT64):
        raise BadMessage(f"{what} is of type {kind}; only float32 and int64 are read")
    shape = _sizes(cast("list[int]", fields["dims"]), what)
    listed = fields["float_data" if kind == FLOAT else "int64_data"]
    other = fields["int64_data" if kind == FLOAT else "float_data"]
    raw = cast("list[memoryview]", fields["raw_data"])
    size = len(raw[0]) / (4 if kind == FLOAT else 8) if raw else len(listed)
    if other or (raw and listed) or size != prod(shape):
        raise BadMessage(f"{what} does not hold the {prod(shape)} numbers it says")
    if kind == FLOAT:
        _finite(np.frombuffer(raw[0], "<f4") if raw else np.array(listed, np.float32), what)
        return name, Tensor(shape)
    if prod(shape) > MAX_PARTS or len(shape) > 1:
        return name, Tensor(shape, whole=True)
    return name, Tensor(shape, tuple(np.frombuffer(raw[0], "<i8").tolist() if raw else cast("list[int]", listed)), True)


def _finite(numbers: np.ndarray[tuple[int], np.dtype[np.float32]], what: str) -> None:
    for start in range(0, len(numbers), 65_536):
        if not np.isfinite(numbers[start : start + 65_536]).all():
            raise BadMessage(f"{what} has numbers that are not finite")


def _declared(data: memoryview) -> tuple[str, Tensor]:
    """An input, output or value as it is declared."""
    fields = read(data, _VALUE, "graph: a value")
    name = _text(fields, "name")
    what = f"graph: {name!r}"
    kind = read(_bytes(fields, "type", what), _TYPE, what)
    tensor = read(_bytes(kind, "tensor_type", f"{what}: a dense tensor's type"), _TENSOR_TYPE, what)
    dims = [read(one, _DIM, what) for one in _views(read(_bytes(tensor, "shape", what), _SHAPE, what), "dim")]
    if any(len(dim["dim_value"]) != 1 or dim["dim_param"] for dim in dims):
        raise BadMessage(f"{what} has a size without a number; export it for one state at a time, without dynamic axes")
    element = _one(tensor, "elem_type", 0)
    if element not in (FLOAT, INT64):
        raise BadMessage(f"{what} is of type {element}; only float32 and int64 are read")
    return name, Tensor(_sizes([_one(dim, "dim_value", 0) for dim in dims], what), whole=element == INT64)


def _sizes(dims: list[int], what: str) -> Shape:
    if any(not 1 <= size <= MAX_ELEMENTS for size in dims) or prod(dims) > MAX_ELEMENTS:
        raise BadMessage(f"{what}: sizes {dims}: 1 or more, at most {MAX_ELEMENTS} in all")
    return tuple(dims)


def _add(known: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if not name or name in known:
        raise BadMessage(f"graph: {name!r} is made twice, or has no name")
    known[name] = tensor


def _views(fields: Fields, name: str) -> list[memoryview]:
    return cast("list[memoryview]", fields[name])


def _bytes(fields: Fields, name: str, what: str) -> memoryview:
    if not fields[name]:
        raise BadMessage(f"{what}: {name} is missing")
    return _views(fields, name)[0]


def _one(fields: Fields, name: str, otherwise: int) -> int:
    return cast("int", fields[name][0]) if fields[name] else otherwise


def _text(fields: Fields, name: str) -> str:
    return str(fields[name][0]) if fields[name] else ""


def _said(shapes: Mapping[str, Shape]) -> str:
    return " and ".join(f"{name} {shape}" for name, shape in shapes.items())
