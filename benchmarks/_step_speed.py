"""How fast a node learns and decides, against what it would use instead: torch, and onnxruntime asked directly.

Both sides of a ratio run in turns within one process, one thread each, on the same data; what is compared is the median
of the turns' medians. Wall time and CPU time of the process are both taken, and the ratio that speaks less for us
counts: on a busy machine a long step is interrupted more often than a short one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from cloud.graphs import graph_of
from edge.learner import Learner, learn, remember
from edge.learning import LearnerSettings
from edge.policy import Engine, Policy
from messages.learning import Feature, Interface
from messages.network import Network

PUBLISHED = Network(inputs=12, hidden=(128, 128), outputs=4)
CELL = Network(inputs=12, hidden=(128, 128), outputs=5)
STEP_TIMES, DECISION_TIMES = 3.0, 1.5
TORCH = "not compared: torch is not installed (pip install torch)"


def paired(work: dict[str, Callable[[], object]], *, turns: int, each: int) -> dict[str, tuple[float, float]]:
    """Median wall and mean CPU time of one call, µs; each contestant has `turns` turns of `each` calls, in rotation."""
    walls: dict[str, list[float]] = {name: [] for name in work}
    cpus: dict[str, list[float]] = {name: [] for name in work}
    for one in work.values():
        for _ in range(each):
            one()
    for _ in range(turns):
        for name, one in work.items():
            marks = [time.perf_counter_ns()]
            began = time.process_time_ns()
            for _ in range(each):
                one()
                marks.append(time.perf_counter_ns())
            cpus[name].append((time.process_time_ns() - began) / each)
            walls[name].append(float(np.median(np.diff(marks))))
    return {name: (float(np.median(walls[name])) / 1e3, float(np.median(cpus[name])) / 1e3) for name in work}


def steps(quick: bool) -> Iterator[tuple[str, float, str, bool | None, str]]:
    """An optimiser step, batch 32: ours, torch's, how many times faster."""
    turns, each = (5, 100) if quick else (15, 200)
    for name, network in (("12-128-128-4", PUBLISHED), ("12-128-128-5", CELL)):
        rng = np.random.default_rng(1)
        settings = LearnerSettings(batch=32, remembered=20_000)
        learner = Learner.fresh(network, settings, rng)
        for _ in range(settings.remembered):
            s, s2 = rng.random((2, network.inputs), np.float32)
            remember(learner, s, int(rng.integers(network.outputs)), float(rng.standard_normal()), 0.0, s2)

        def ours(learner: Learner = learner, rng: np.random.Generator = rng) -> float:
            return learn(learner, rng)

        work: dict[str, Callable[[], object]] = {"shoal": ours}
        why = TORCH
        try:
            from _torch_step import VERSION, torch_step

            work["torch"] = torch_step(network, settings, learner.memory, seed=1)
            why = f"torch {VERSION}"
        except ImportError:
            pass
        took = paired(work, turns=turns, each=each)
        for who, (wall, cpu) in took.items():
            yield f"{name}: optimiser step, {who}", wall, "us", None, f"batch 32, one thread; CPU {cpu:.0f} us; {why}"
        if "torch" in took:
            wall, cpu = (took["torch"][k] / took["shoal"][k] for k in (0, 1))
            times, note = min(wall, cpu), f"by wall time {wall:.2f}, by CPU time {cpu:.2f}; {why}"
            yield f"{name}: optimiser step, torch / shoal", times, "x", times >= STEP_TIMES, note


def decisions(quick: bool) -> Iterator[tuple[str, float, str, bool | None, str]]:
    """A decision, checked for what is no number, against `session.run` of the same graph."""
    import onnxruntime

    turns, each = (5, 500) if quick else (15, 2_000)
    for name, network in (("12-128-128-4", PUBLISHED), ("12-128-128-5", CELL)):
        rng = np.random.default_rng(1)
        theta = rng.standard_normal(network.size, np.float32) * np.float32(0.05)
        face = Interface(
            features=[Feature(metric=f"m{k}", low=0, high=1) for k in range(network.inputs)],
            actions=[f"a{k}" for k in range(network.outputs)],
        )
        graph = graph_of(network)
        state = rng.random((1, network.inputs), np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        fed = {"state": state, "parameters": theta}

        def raw(session=session, fed=fed) -> object:
            return session.run(None, fed)

        work: dict[str, Callable[[], object]] = {"onnxruntime": raw}
        engines: tuple[Engine, ...] = ("numpy", "onnxruntime")
        for engine in engines:
            policy = Policy.of(face, graph, parameters=theta, network=network, engine=engine)
            work[f"policy on {engine}"] = lambda policy=policy, state=state[0]: policy.decide(state)
        took = paired(work, turns=turns, each=each)
        raw_wall, raw_cpu = took.pop("onnxruntime")
        version = onnxruntime.__version__
        yield f"{name}: session.run", raw_wall, "us", None, f"p50; CPU {raw_cpu:.1f} us; onnxruntime {version}"
        for who, (wall, cpu) in took.items():
            times = max(wall / raw_wall, cpu / raw_cpu)
            note = f"p50 {wall:.1f} us; by wall time {wall / raw_wall:.2f}, by CPU time {cpu / raw_cpu:.2f}"
            yield f"{name}: decision, {who} / session.run", times, "x", times <= DECISION_TIMES, note
