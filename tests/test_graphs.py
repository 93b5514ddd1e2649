"""Which ONNX files may run: ours and plain ones do; of hostile ones nothing is opened and nothing large is made."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.graphs import graph_of
from edge.graphs import MAX_LISTED, checked
from messages.errors import BadMessage
from messages.network import Network
from tests.hostile import BAIT, call, hostile, model, value, weights, whole

HOSTILE = {what: (data, why) for what, data, why in hostile()}
NETWORKS = st.builds(
    Network,
    inputs=st.integers(1, 20),
    hidden=st.lists(st.integers(1, 40), max_size=3).map(tuple),
    outputs=st.integers(1, 8),
    dueling=st.booleans(),
)


def looked_at(data: bytes) -> None:
    checked(data, inputs=3, parameters=0, outputs=2)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_with_the_reason_and_little_memory(what: str) -> None:
    data, why = HOSTILE[what]
    tracemalloc.start()
    try:
        with pytest.raises(BadMessage, match=r"(?s)" + why):
            looked_at(data)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000


def test_there_are_many_hostile_files() -> None:
    assert len(HOSTILE) >= 30


def test_no_file_is_opened_and_no_runtime_is_asked_for_a_hostile_file(tmp_path: Path) -> None:
    """In a process of its own, in a folder that holds the bait; the interpreter reports every file that is opened."""
    for k, (data, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{k:03}.onnx").write_bytes(data)
    (tmp_path / BAIT).write_bytes(bytes(24))
    code = """if True:
        import pathlib, sys
        from edge.graphs import checked
        from messages.errors import BadMessage
        files = [path.read_bytes() for path in sorted(pathlib.Path().glob("*.onnx"))]
        seen = []
        sys.addaudithook(lambda event, args: seen.append((event, args)) if event in EVENTS else None)
        EVENTS = {"open", "os.open", "os.listdir", "os.scandir", "import", "socket.connect", "subprocess.Popen"}
        refused = 0
        for data in files:
            try:
                checked(data, inputs=3, parameters=0, outputs=2)
            except BadMessage:
                refused += 1
        counted = list(seen)
        open("bait.bin").close()
        print(refused, len(counted), len(seen) - len(counted), "onnxruntime" in sys.modules, "onnx" in sys.modules)
    """
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [str(len(HOSTILE)), "0", "1", "False", "False"], done.stderr


@given(NETWORKS)
@settings(max_examples=30, deadline=None)
def test_the_graph_of_a_network_may_run_and_is_always_the_same(network: Network) -> None:
    graph = graph_of(network)
    checked(graph, inputs=network.inputs, parameters=network.size, outputs=network.outputs)
    assert graph == graph_of(network)
    known = onnx.load_from_string(graph)
    assert (known.ir_version, known.opset_import[0].version) == (8, 17)
    assert all(one.data_type == onnx.TensorProto.INT64 for one in known.graph.initializer), "no weights inside"
    with pytest.raises(BadMessage, match="inputs"):
        checked(graph, inputs=network.inputs + 1, parameters=network.size, outputs=network.outputs)
    with pytest.raises(BadMessage, match="output"):
        checked(graph, inputs=network.inputs, parameters=network.size, outputs=network.outputs + 1)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_in_our_own_words(data: bytes) -> None:
    with pytest.raises(BadMessage):
        looked_at(data)


@given(NETWORKS, st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_graph_is_refused_in_our_own_words_or_makes_what_it_should(
    network: Network, data: st.DataObject
) -> None:
    graph = bytearray(graph_of(network))
    for _ in range(data.draw(st.integers(1, 3))):
        graph[data.draw(st.integers(0, len(graph) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        checked(bytes(graph), inputs=network.inputs, parameters=network.size, outputs=network.outputs)
    except BadMessage:
        return
    session = onnxruntime.InferenceSession(bytes(graph), providers=["CPUExecutionProvider"])
    feed = {"state": np.zeros((1, network.inputs), np.float32), "parameters": np.zeros(network.size, np.float32)}
    assert session.run(["values"], feed)[0].shape == (1, network.outputs)


PLAIN = {
    "weights inside": model(),
    "every activation": model(
        [
            *(
                call(op, [a], [b], **more)
                for op, a, b, more in [
                    ("Tanh", "state", "a", {}),
                    ("LeakyRelu", "a", "b", {"alpha": 0.1}),
                    ("Elu", "b", "c", {}),
                    ("Sigmoid", "c", "d", {}),
                    ("Softplus", "d", "e", {}),
                    ("Softmax", "e", "f", {"axis": -1}),
                    ("Clip", "f", "g", {}),
                    ("Identity", "g", "h", {}),
                ]
            ),
            call("MatMul", ["h", "w"]),
        ]
    ),
    "shapes turned about": model(
        [
            call("Transpose", ["state"], ["a"], perm=[1, 0]),
            call("Reshape", ["a", "any"], ["b"]),
            call("Unsqueeze", ["b", "zero"], ["c"]),
            call("Slice", ["c", "zero", "two", "one"], ["d"]),
            call("Slice", ["c", "two", "end", "one"], ["e"]),
            call("Concat", ["d", "e"], ["f"], axis=1),
            call("Squeeze", ["f", "zero"], ["g"]),
            call("Flatten", ["g"], ["h"], axis=0),
            call("ReduceSum", ["h", "one"], ["s"]),
            call("Sub", ["h", "s"], ["hs"]),
            call("Reshape", ["hs", "same"], ["i"]),
            call("Split", ["i", "cuts"], ["j", "k"], axis=1),
            call("Max", ["j", "s"], ["l"]),
            call("Concat", ["l", "k"], ["m"], axis=1),
            call("Gemm", ["m", "w", "bias"], transB=0, alpha=0.5),
        ],
        [
            weights(), weights("bias", (2,)), whole("any", [-1]), whole("same", [0, -1]), whole("zero", [0]),
            whole("one", [1]), whole("two", [2]), whole("end", [2**62]), whole("cuts", [1, 2]),
        ],
    ),
    "a constant node": model([call("Constant", [], ["c"], value=weights("")), call("MatMul", ["state", "c"])], []),
    "shapes said on the way": onnx.shape_inference.infer_shapes(
        model([call("Relu", ["state"], ["r"]), call("MatMul", ["r", "w"])])
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PLAIN)
def test_a_plain_graph_with_its_own_weights_may_run_and_does(what: str) -> None:
    graph = PLAIN[what].SerializeToString()
    looked_at(graph)
    onnx.checker.check_model(PLAIN[what], full_check=True)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"state": np.float32([[0.1, 0.2, 0.3]])})
    assert made.shape == (1, 2) and np.isfinite(made).all()


CHAINED = [
    "Add", "MatMul", "Gemm", "Concat", "Max", "Reshape", "Flatten", "Transpose", "Slice", "Split",
    "Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum",
]  # fmt: skip


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_sizes_are_those_the_runtime_makes(data: st.DataObject) -> None:
    """A random chain of operators, each on what was made before: if it may run, the runtime agrees on every size."""
    nodes, constants, names = [], [weights()], ["state", "w"]
    numbers = st.lists(st.integers(-3, 3), min_size=1, max_size=3)
    for k in range(data.draw(st.integers(1, 5))):
        op = data.draw(st.sampled_from(CHAINED))
        inputs = [data.draw(st.sampled_from(names))]
        more: dict[str, object] = {}
        if op in ("Add", "MatMul", "Gemm", "Concat", "Max"):
            inputs.append(data.draw(st.sampled_from(names)))
        if op in ("Reshape", "Unsqueeze", "Squeeze", "ReduceSum", "Split"):
            constants.append(whole(f"n{k}", data.draw(numbers)))
            inputs.append(f"n{k}")
        if op == "Slice":
            one = [data.draw(st.integers(-4, 4)) for _ in range(4)]
            constants += [whole(f"n{k}{j}", [number]) for j, number in enumerate(one)]
            inputs += [f"n{k}{j}" for j in range(4)]
        if op in ("Concat", "Flatten", "Split"):
            more["axis"] = data.draw(st.integers(-2, 2))
        if op == "Gemm":
            more = {"transA": data.draw(st.integers(0, 1)), "transB": data.draw(st.integers(0, 1))}
        if op in ("ReduceMean", "ReduceSum"):
            more["keepdims"] = data.draw(st.integers(0, 1))
        if op == "ReduceMean" and data.draw(st.booleans()):
            more["axes"] = data.draw(numbers)
        outputs = [f"x{k}"] if op != "Split" else [f"x{k}", f"y{k}"]
        node = call(op, inputs, outputs, **more)
        if _told([*nodes, node], constants, outputs[0]) is not None:
            nodes.append(node)
            names += outputs
    last = names[-1]
    shape = _told(nodes, constants, last)
    if not nodes or shape is None:
        return
    probe = model(nodes, constants, outputs=[value(last, list(shape))])
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run([last], {"state": np.ones((1, 3), np.float32)})
    assert made.shape == shape


def _told(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], name: str) -> tuple[int, ...] | None:
    """The shape our walk works out; None if it refuses the graph."""
    lie = model([*nodes, call("MatMul", ["state", "w"])], list(constants))
    lie.graph.value_info.append(value(name, [77, 77]))
    try:
        looked_at(lie.SerializeToString())
    except BadMessage as error:
        said = str(error)
        if "says that" not in said:
            return None
        inside = said.rpartition("(")[2].rstrip(")")
        return tuple(int(one) for one in inside.split(",") if one.strip())
    raise AssertionError("a shape that lies was believed")


def test_longer_lists_belong_into_raw_data() -> None:
    long = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [3, MAX_LISTED], [0.5] * 3 * MAX_LISTED)
    with pytest.raises(BadMessage, match="float_data"):
        looked_at(model([call("MatMul", ["state", "w"])], [long]).SerializeToString())
