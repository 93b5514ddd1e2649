"""ONNX files that nobody should run: made with the `onnx` package, and by hand where it would not make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
BAIT = "bait.bin"
"""What external data would be read from, in the working directory."""


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        out.append((number & 0x7F) | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(out)


def sized(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def value(name: str, shape: list[Any], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weights(name: str = "w", shape: tuple[int, ...] = (3, 2)) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full(shape, 0.5, np.float32), name)


def whole(name: str, numbers: list[int]) -> onnx.TensorProto:
    return helper.make_tensor(name, INT64, [len(numbers)], numbers)


def call(op: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs or ["values"], **attributes)


def model(
    nodes: list[onnx.NodeProto] | None = None, constants: list[onnx.TensorProto] | None = None, *, opset: int = 17,
    ir: int = 8, inputs: list[onnx.ValueInfoProto] | None = None, outputs: list[onnx.ValueInfoProto] | None = None,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:  # fmt: skip
    """Sound, if nothing is said: `values = state @ w`, three features, two actions."""
    graph = helper.make_graph(
        [call("MatMul", ["state", "w"])] if nodes is None else nodes,
        "g",
        inputs or [value("state", [1, 3])],
        outputs or [value("values", [1, 2])],
        [weights()] if constants is None else constants,
    )
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    found = model()
    change(found)
    return bytes(found.SerializeToString())


def _external(found: onnx.ModelProto, location: str = BAIT) -> None:
    tensor = found.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def _sparse(found: onnx.ModelProto) -> None:
    found.graph.sparse_initializer.add(
        values=numpy_helper.from_array(np.float32([1]), "s"),
        indices=numpy_helper.from_array(np.int64([10**9]), "i"),
        dims=[10**9, 10**9],
    )


def _branch() -> onnx.GraphProto:
    return helper.make_graph([call("MatMul", ["state", "w"])], "b", [], [value("values", [1, 2])])


def _doubled(times: int) -> bytes:
    """Every node is twice as large as the one before."""
    nodes = [call("Concat", ["state", "state"], ["x0"], axis=0)]
    nodes += [call("Concat", [f"x{k}", f"x{k}"], [f"x{k + 1}"], axis=0) for k in range(times)]
    nodes += [call("ReduceMax", [f"x{times}"], ["m"], axes=[0]), call("MatMul", ["m", "w"])]
    return bytes(model(nodes).SerializeToString())


def _outer(size: int) -> bytes:
    """A row plus a column is a square."""
    nodes = [
        call("Add", ["row", "column"], ["big"]),
        call("ReduceMax", ["big"], ["m"], axes=[0, 1]),
        call("MatMul", ["state", "w"], ["sum"]),
        call("Add", ["m", "sum"]),
    ]
    constants = [weights(), weights("row", (1, size)), weights("column", (size, 1))]
    return bytes(model(nodes, constants).SerializeToString())


def _slow() -> bytes:
    """Small numbers of numbers, but very many multiplications."""
    nodes = [call("MatMul", ["square", "square" if not k else f"s{k - 1}"], [f"s{k}"]) for k in range(4)]
    nodes += [call("ReduceMax", ["s3"], ["m"], axes=[0, 1]), call("MatMul", ["state", "w"], ["sum"])]
    return bytes(
        model([*nodes, call("Add", ["m", "sum"])], [weights(), weights("square", (600, 600))]).SerializeToString()
    )


def _nested(depth: int) -> bytes:
    """Subgraphs in subgraphs, by hand."""
    graph = b""
    for _ in range(depth):
        graph = sized(1, sized(4, b"If") + sized(5, sized(1, b"then_branch") + sized(6, graph) + b"\xa0\x01\x05"))
    sound = model([])
    return b"\x08\x08" + sized(7, bytes(sound.graph.SerializeToString()) + graph) + sized(8, b"\x10\x11")


def _with_tensor(data: bytes) -> bytes:
    """A sound model whose weights are these bytes of a TensorProto."""
    found = model()
    graph = found.graph
    del graph.initializer[:]
    body = bytes(graph.SerializeToString()) + sized(5, data)
    return b"\x08\x08" + sized(7, body) + sized(8, b"\x10\x11")


def hostile() -> Iterator[tuple[str, bytes, str]]:
    """What it is, its bytes, and what the refusal must speak of."""
    good = bytes(model().SerializeToString())

    def made(*args: Any, **kwargs: Any) -> bytes:
        return bytes(model(*args, **kwargs).SerializeToString())

    def tensor(change: Callable[[onnx.TensorProto], object]) -> bytes:
        return changed(lambda found: change(found.graph.initializer[0]))

    def filled(number: float) -> bytes:
        return made(constants=[numpy_helper.from_array(np.full((3, 2), number, np.float32), "w")])

    yield "external data beside it", changed(_external), "outside of the file"
    yield "external data up the tree", changed(lambda m: _external(m, "../../" + BAIT)), "outside of the file"
    yield "external data by its full name", changed(lambda m: _external(m, "/etc/passwd")), "outside of the file"
    yield (
        "external data named, but not marked",
        tensor(lambda t: t.external_data.add(key="location", value=BAIT)),
        "outside of the file",
    )
    yield "external, without a name", tensor(lambda t: setattr(t, "data_location", 1)), "outside of the file"
    outside = weights("c")
    outside.external_data.add(key="location", value=BAIT)
    yield (
        "external data in a constant's attribute",
        made([call("Constant", [], ["c"], value=outside), call("MatMul", ["state", "c"])], []),
        "outside of the file",
    )
    yield "sparse weights", changed(_sparse), "sparse"
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", FLOAT, [1], [1.0]), helper.make_tensor("i", INT64, [1], [5]), [10**6, 10**6]
    )
    yield "a sparse constant", made([call("Constant", [], ["values"], sparse_value=sparse)]), "sparse"
    yield (
        "a branch",
        made([call("If", ["state"], then_branch=_branch(), else_branch=_branch())]),
        "subgraph",
    )
    loop = helper.make_graph([], "body", [], [])
    yield "a loop without end", made([call("Loop", ["", ""], body=loop)]), "subgraph"
    yield "a scan", made([call("Scan", ["state"], body=loop, num_scan_inputs=1)]), "subgraph"
    yield "subgraphs a hundred deep", _nested(100), "subgraph"
    yield "subgraphs five thousand deep", _nested(5_000), "subgraph"
    function = helper.make_function(
        "f", "Relu", ["x"], ["y"], [call("Relu", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    yield "functions", changed(lambda m: m.functions.append(function)), "functions"
    yield "training information", changed(lambda m: m.training_info.add()), "training"
    yield (
        "an operator of another domain",
        made([call("MatMul", ["state", "w"], domain="evil")], domains=("evil",)),
        "opset",
    )
    yield "the same, undeclared", made([call("MatMul", ["state", "w"], domain="evil")]), "domain"
    yield "machine learning operators", made([call("Scaler", ["state"], domain="ai.onnx.ml")]), "domain"
    for op, inputs in {
        "ConstantOfShape": ["huge"], "Expand": ["w", "huge"], "Tile": ["w", "huge"], "Range": ["huge", "huge", "huge"],
        "RandomUniform": [], "EyeLike": ["w"], "OneHot": ["huge", "huge", "w"], "Pad": ["w", "huge"],
        "Upsample": ["w", "huge"], "GatherND": ["w", "huge"], "StringNormalizer": ["w"], "ImageDecoder": ["w"],
    }.items():  # fmt: skip
        yield f"operator {op}", made([call(op, inputs)], [weights(), whole("huge", [10**12])]), "operator"
    yield "thirty doublings", _doubled(30), "more than 8388608 numbers"
    yield "a square of ten thousand million", _outer(100_000), "more than 8388608 numbers"
    yield "a square of nine million", _outer(3_000), "more than 8388608 numbers"
    yield "far too many multiplications", _slow(), "multiplications"
    yield "opset 18", made(opset=18), "opset"
    yield "opset 7", made(opset=7), "opset"
    yield "IR version 9", made(ir=9), "IR"
    yield "no opset", changed(lambda m: m.ClearField("opset_import")), "opset"
    yield "two opsets", changed(lambda m: m.opset_import.append(helper.make_opsetid("", 17))), "opset"
    yield "two thousand nodes", made([call("Relu", ["state"], [f"r{k}"]) for k in range(2_000)]), "more than 512"
    yield "a thousand weights", made(constants=[weights(f"w{k}", (1,)) for k in range(1_000)]), "more than 512"
    yield "a million inputs of a node", made([call("Max", ["state"] * 1_000_000)]), "more than 64"
    yield "NaN among the weights", filled(float("nan")), "not finite"
    yield "infinity among the weights", filled(float("-inf")), "not finite"
    listed = helper.make_tensor("w", FLOAT, [3, 2], [1, 2, float("nan"), 4, 5, 6])
    yield "NaN in a list", made(constants=[listed]), "not finite"
    bad = call("LeakyRelu", ["state"], alpha=float("nan"))
    yield "NaN as an attribute", made([bad]), "not finite"
    texts = helper.make_tensor("w", TensorProto.STRING, [1], [b"x"])
    yield "texts", made(constants=[texts]), "texts"
    yield "doubles", made(constants=[numpy_helper.from_array(np.ones((3, 2)), "w")]), "type"
    yield "a tensor that claims a terabyte", tensor(lambda t: t.dims.__setitem__(0, 10**12)), "sizes"
    yield "a tensor of a negative size", tensor(lambda t: t.dims.__setitem__(0, -3)), "sizes"
    yield "a tensor whose sizes overflow", tensor(lambda t: t.dims.extend([2**62, 4])), "sizes"
    yield "a tensor of seven axes", tensor(lambda t: t.dims.extend([1] * 7)), "more than 6"
    yield "a tensor with half of its bytes", tensor(lambda t: setattr(t, "raw_data", t.raw_data[:12])), "does not hold"
    yield "a tensor told in two ways", tensor(lambda t: t.float_data.extend([0.0] * 6)), "does not hold"
    yield "another input", made(inputs=[value("state", [1, 3]), value("key", [1])]), "inputs"
    yield "an input of another name", made([call("MatMul", ["x", "w"])], inputs=[value("x", [1, 3])]), "inputs"
    yield "another width", made(constants=[weights(shape=(4, 2))], inputs=[value("state", [1, 4])]), "inputs"
    yield "an input twice", made(inputs=[value("state", [1, 3])] * 2), "inputs"
    yield "a dynamic batch", made(inputs=[value("state", ["batch", 3])]), "size without a number"
    yield "an input of doubles", made(inputs=[value("state", [1, 3], TensorProto.DOUBLE)]), "type"
    yield "an output of another shape", made(outputs=[value("values", [1, 3])]), "output"
    yield "an output that lies", made(constants=[weights(shape=(3, 5))]), "output"
    yield "no output", changed(lambda m: m.graph.ClearField("output")), "output"
    yield "an output nobody makes", made([call("MatMul", ["state", "w"], ["y"])]), "output"
    yield "a node that reads its own output", made([call("Add", ["values", "state"])]), "nothing before it"
    yield "two nodes with one output", made([call("MatMul", ["state", "w"])] * 2), "twice"
    yield "weights that hide the input", made(constants=[weights(), weights("state")]), "twice"
    yield "an unknown attribute", made([call("MatMul", ["state", "w"], path="/etc/passwd")]), "attribute"
    yield "a reference as an attribute", changed(_referred), "attribute"
    yield "shapes that depend on data", made([call("Reshape", ["state", "state"])]), "constant"
    yield "a shape that lies", made([call("Reshape", ["state", "s"])], [whole("s", [1, 10**9])]), "cannot be"
    yield "an intermediate shape that lies", changed(_said), "but it is"
    yield "quantised weights", changed(lambda m: m.graph.quantization_annotation.add(tensor_name="w")), "quantised"
    yield "no graph", changed(lambda m: m.ClearField("graph")), "missing"
    yield "nothing", b"", "opset"
    yield "text", b"not a model at all, but a text", "graph"
    yield "JSON", b'{"graph": {}}', "graph"
    yield (
        "a pickle",
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "graph",
    )
    yield "cut in the middle", good[: len(good) // 2], "beyond the message"
    yield "another graph after the first", good + sized(7, b""), "more than 1"
    yield "a field that nobody knows", good + sized(999, b"x"), "field 999"
    yield "a group", good + b"\x0b\x0c", "wire type"
    yield "a length of 2^60 bytes", good + b"\x3a" + varint(2**60), "beyond the message"
    yield "a number without end", b"\x08" + b"\xff" * 50, "64 bits"
    yield "a number spelt too long", b"\x08\x88\x00" + good[2:], "64 bits"
    yield "a name of a megabyte", changed(lambda m: setattr(m.graph, "name", "x" * 2**20)), "at most"
    yield "a name that is not UTF-8", b"\x08\x08" + sized(2, b"\xff\xfe"), "UTF-8"
    yield "raw data instead of sizes", _with_tensor(sized(8, b"w") + b"\x10\x01" + sized(9, bytes(24))), "does not hold"
    yield "a million sizes", _with_tensor(sized(1, b"\x01" * 10**6) + b"\x10\x01" + sized(8, b"w")), "more than 6"
    yield "seventeen megabytes", good + sized(6, bytes(17 * 2**20)), "at most"


def _referred(found: onnx.ModelProto) -> None:
    one = found.graph.node[0].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT)
    one.ref_attr_name = "other"


def _said(found: onnx.ModelProto) -> None:
    found.graph.value_info.append(value("w", [10**6]))
