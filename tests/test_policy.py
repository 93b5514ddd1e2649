"""A policy on the node: numpy and onnxruntime agree, nothing that is no number becomes an action, and it is quick."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.graphs import graph_of
from edge.learner import Learner, LearnerSettings, values
from edge.policy import NONE, Engine, Policy
from messages.clock import SECOND
from messages.errors import BadMessage
from messages.learning import Feature, Interface
from messages.network import Network
from tests.hostile import model
from tests.releasing import INTERFACE, NET, graph, vector, wanting

NETWORKS = st.builds(
    Network,
    inputs=st.integers(1, 20),
    hidden=st.lists(st.integers(1, 40), max_size=3).map(tuple),
    outputs=st.integers(1, 8),
    dueling=st.booleans(),
)
CELL = Network(inputs=12, hidden=(128, 128), outputs=5)
NOW = 1_000 * SECOND
ENGINES: list[Engine] = ["numpy", "onnxruntime"]


def interface(network: Network) -> Interface:
    return Interface(
        features=[Feature(metric=f"m{k}", low=0, high=1) for k in range(network.inputs)],
        actions=[f"a{k}" for k in range(network.outputs)],
    )


def policy(network: Network, theta: np.ndarray, engine: Engine) -> Policy:
    return Policy.of(interface(network), graph_of(network), parameters=theta, network=network, engine=engine)


def at(**other: float) -> dict[tuple[str, str], tuple[int, float]]:
    """What is known of the cell now."""
    known = {"wear": 1.0, "stock": 5.0, "carbon": 2.0} | other
    return {("cell", name): (NOW, value) for name, value in known.items()}


@given(NETWORKS, st.integers(0, 2**32), st.sampled_from([1e-3, 0.3, 10.0]))
@settings(max_examples=60, deadline=None)
def test_numpy_and_onnxruntime_agree(network: Network, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, scale, network.size).astype(np.float32)
    ours, theirs = (policy(network, theta, engine) for engine in ENGINES)
    assert (ours.engine, theirs.engine) == ("numpy", "onnxruntime")
    for state in rng.random((5, network.inputs), np.float32):
        mine = ours.values(state).copy()
        assert np.abs(mine - theirs.values(state)).max() <= 1e-5 * max(1.0, np.abs(mine).max())


@given(NETWORKS, st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_what_was_learned_is_what_decides(network: Network, seed: int) -> None:
    rng = np.random.default_rng(seed)
    learner = Learner.fresh(network, LearnerSettings(), rng)
    state = rng.random(network.inputs, np.float32)
    for engine in ENGINES:
        made = policy(network, learner.theta, engine)
        assert made.values(state) == pytest.approx(values(learner, state), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_action_is_the_one_of_the_largest_output(engine: Engine) -> None:
    for action, name in enumerate(INTERFACE.actions):
        made = Policy.of(INTERFACE, graph(), parameters=wanting(action), network=NET, engine=engine)
        assert made.choose(at(), NOW, device="cell").action == name


@pytest.mark.parametrize("engine", ENGINES)
def test_another_vector_is_in_force_by_one_assignment_and_the_old_policy_is_untouched(engine: Engine) -> None:
    old = Policy.of(INTERFACE, graph(), parameters=wanting(0), network=NET, engine=engine)
    theta = wanting(1)
    new = old.with_parameters(theta)
    theta[:] = np.nan
    state = np.float32([0.1, 0.2, 0.3])
    assert (old.decide(state), new.decide(state), old.decide(state)) == (0, 1, 0)
    assert new._session is old._session
    with pytest.raises(ValueError, match="read-only"):
        new.parameters[0] = 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_that_is_no_number_is_no_action_and_no_fault_of_the_policy(engine: Engine, bad: float) -> None:
    made = Policy.of(INTERFACE, graph(), parameters=wanting(1), network=NET, engine=engine)
    with np.errstate(all="ignore"):
        assert made.decide(np.float32([0.1, bad, 0.3])) == NONE
    action, why = made.choose(at(stock=bad), NOW, device="cell")
    assert (action, why) == (None, "stock of cell is not a number")
    assert made.non_finite == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_that_is_no_number_is_no_action_and_counted(engine: Engine) -> None:
    theta = np.full(NET.size, 3e38, np.float32)
    made = Policy.of(INTERFACE, graph(), parameters=theta, network=NET, engine=engine)
    with np.errstate(all="ignore"):
        choice = made.choose(at(), NOW, device="cell")
    assert choice.action is None and "not a number" in choice.why
    assert (made.non_finite, made.decisions) == (1, 1)


@given(st.lists(st.floats(), min_size=3, max_size=3), st.integers(-200, 200))
def test_whatever_the_values_are_the_policy_sees_numbers_from_0_to_1_or_does_not_decide(
    given_: list[float], age_s: int
) -> None:
    made = Policy.of(INTERFACE, graph(), parameters=vector(1), network=NET)
    latest = {("cell", one.metric): (NOW, value) for one, value in zip(INTERFACE.features, given_, strict=True)}
    latest["cell", "wear"] = NOW - age_s * SECOND, given_[0]
    choice = made.choose(latest, NOW, device="cell")
    if abs(age_s) > 60 or not all(map(math.isfinite, given_)):
        assert choice.action is None and choice.why
        assert made.decisions == 0
        return
    assert choice.action in INTERFACE.actions
    assert made._flat.tolist() == pytest.approx([min(max(value / 10, 0.0), 1.0) for value in given_])


def test_a_value_that_is_missing_or_stale_is_named() -> None:
    made = Policy.of(INTERFACE, graph(), parameters=vector(1), network=NET)
    assert made.choose({}, NOW, device="cell").why == "wear of cell is not known"
    assert made.choose(at(), NOW + 61 * SECOND, device="cell").why == "wear of cell is 61 s old"
    assert made.choose(at(), NOW, device="oven").why == "wear of oven is not known"


def test_a_feature_may_be_of_another_device() -> None:
    elsewhere = Interface(features=[Feature(metric="carbon", low=0, high=1, device="grid")], actions=["wait", "work"])
    network = Network(inputs=1, hidden=(), outputs=2)
    made = Policy.of(elsewhere, graph_of(network), parameters=np.float32([-1, 1, 0.5, 0]), network=network)
    assert made.choose({("grid", "carbon"): (NOW, 0.0)}, NOW, device="cell").action == "wait"
    assert made.choose({("grid", "carbon"): (NOW, 1.0)}, NOW, device="cell").action == "work"


def test_a_vector_that_does_not_fit_is_refused() -> None:
    for theta, why in ((vector(1)[:-1], "parameters"), (np.append(vector(1)[:-1], np.float32("inf")), "not finite")):
        with pytest.raises(BadMessage, match=why):
            Policy.of(INTERFACE, graph(), parameters=theta, network=NET)
        with pytest.raises(BadMessage, match=why):
            Policy.of(INTERFACE, graph(), parameters=vector(1), network=NET).with_parameters(theta)


def test_a_graph_with_its_own_weights_decides_too() -> None:
    made = Policy.of(INTERFACE, model().SerializeToString())
    assert made.engine == "onnxruntime"
    assert made.values(np.float32([0.1, 0.2, 0.3])) == pytest.approx([0.3, 0.3])


def test_everything_with_a_network_works_where_onnxruntime_is_missing() -> None:
    code = """if True:
        import sys
        sys.modules["onnxruntime"] = None
        from tests.releasing import INTERFACE, NET, Released, graph, node, vector
        from tests.hostile import model
        from edge.policy import Policy
        from edge.files import Files
        from messages.errors import BadMessage
        from pathlib import Path
        import tempfile
        for engine in ("auto", "numpy", "onnxruntime"):
            print(Policy.of(INTERFACE, graph(), parameters=vector(1), network=NET, engine=engine).engine)
        with tempfile.TemporaryDirectory() as folder:
            print(Released(4, counter=1).to(node(Files(Path(folder)))).running)
        try:
            Policy.of(INTERFACE, model().SerializeToString())
        except BadMessage as error:
            print("needs onnxruntime" in str(error))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["numpy", "numpy", "numpy", "4", "True"], done.stderr


def test_an_edge_loads_no_onnx_package_and_no_runtime_to_decide_with_a_network() -> None:
    code = (
        "import edge.models, edge.policy, edge.safety, sys; "
        "print(*sorted({'onnx', 'torch', 'onnxruntime', 'gymnasium', 'httpx', 'aiomqtt'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_decision_makes_nothing_new_in_memory(engine: Engine) -> None:
    made = policy(CELL, vector(1, CELL), engine)
    state = np.full(12, 0.5, np.float32)
    made.decide(state)
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(1_000):
        made.decide(state)
    assert sys.getallocatedblocks() - blocks < 50


@pytest.mark.parametrize("engine", ENGINES)
def test_a_decision_costs_little_more_than_the_runtime_alone(engine: Engine) -> None:
    """In one process, in turns, the least of many tries of each: the ratio does not depend on the machine."""
    theta, state = vector(1, CELL), np.full(12, 0.5, np.float32)
    made = policy(CELL, theta, engine)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    raw = onnxruntime.InferenceSession(graph_of(CELL), options, providers=["CPUExecutionProvider"])
    feed = {"state": state[None], "parameters": theta}

    def spent(what: Callable[[], object]) -> int:
        before = time.thread_time_ns()
        for _ in range(200):
            what()
        return time.thread_time_ns() - before

    ours, theirs = [], []
    for _ in range(30):
        ours.append(spent(lambda: made.decide(state)))
        theirs.append(spent(lambda: raw.run(None, feed)))
    assert min(ours) <= 1.5 * min(theirs), (min(ours), min(theirs))
