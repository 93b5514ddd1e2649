"""The ONNX graph of a network: code that a release names once, its parameters are data beside it.

    graph = graph_of(Network(inputs=12, hidden=(128, 128), outputs=5))    # bytes, the same for the same network

Inputs are `state` (1, inputs) and `parameters` (size,), both float32; the output is `values` (1, outputs). One Split
cuts the vector into layers, so the graph holds no weights, only the sizes and shapes of the cuts: versions of a model
share one graph, and a new vector needs no new session. Opset 17 and IR 8, which every onnxruntime since 1.13 reads.
"""

from __future__ import annotations

from math import prod

import onnx
from onnx import TensorProto, helper

from messages.network import Network

OPSET = 17
IR = 8


def graph_of(network: Network) -> bytes:
    """What the network computes, as an ONNX model without weights; checked by `onnx.checker`."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, numbers: list[int]) -> str:
        constants.append(helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers))
        return name

    def layer(x: str, name: str, out: str) -> str:
        nodes.append(helper.make_node("Gemm", [x, f"{name}.weight", f"{name}.bias"], [out], name=name))
        return out

    cuts = constant("cuts", [prod(one.shape) for one in network.slices])
    flat = [one.name if len(one.shape) == 1 else f"{one.name}.flat" for one in network.slices]
    nodes.append(helper.make_node("Split", ["parameters", cuts], flat, name="layers", axis=0))
    for one, cut in zip(network.slices, flat, strict=True):
        if cut != one.name:
            shape = constant(f"{one.name}.shape", list(one.shape))
            nodes.append(helper.make_node("Reshape", [cut, shape], [one.name], name=f"{one.name}.view"))
    x = "state"
    for k in range(len(network.hidden)):
        before = layer(x, f"body.{k}", f"body.{k}.sum")
        x = f"body.{k}.out"
        nodes.append(helper.make_node("Relu", [before], [x], name=f"body.{k}.relu"))
    if network.dueling:  # Q = V + A - mean(A)
        advantage = layer(x, "advantage", "advantage.out")
        value = layer(x, "value", "value.out")
        nodes.append(helper.make_node("ReduceMean", [advantage], ["advantage.mean"], name="mean", axes=[1], keepdims=1))
        nodes.append(helper.make_node("Sub", [advantage, "advantage.mean"], ["advantage.off"], name="centred"))
        nodes.append(helper.make_node("Add", ["advantage.off", value], ["values"], name="dueling"))
    else:
        layer(x, "head", "values")
    graph = helper.make_graph(
        nodes,
        "policy",
        [
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, network.inputs]),
            helper.make_tensor_value_info("parameters", TensorProto.FLOAT, [network.size]),
        ],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, network.outputs])],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="shoal"
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
