"""The simulation that validates: alike for every version, apart from the cloud, and never without an end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cloud.graphs import graph_of
from cloud.learning_settings import SimulationSettings
from cloud.registry import FILE, Registry
from cloud.validation import Question, ValidationSettings, answer, objection
from cloud.versions import Draft, Version
from messages.cells import ACTIONS, INTERFACE, METRICS
from messages.errors import ShoalError
from messages.initial import initial
from messages.learning import Feature, Interface
from messages.network import Network
from shoal.simulated import Simulation, metrics_of

NET = Network(inputs=len(METRICS), hidden=(16,), outputs=len(ACTIONS))
QUICK = SimulationSettings(cells=(1, 2), known_days=2, adapt_steps=100, days=3)


def always(action: str) -> np.ndarray:
    """A policy that wants nothing else."""
    theta = np.zeros(NET.size, np.float32)
    theta[NET.size - NET.outputs + ACTIONS.index(action)] = 1
    return theta


def body(seed: int) -> np.ndarray:
    return initial(NET, np.random.default_rng(seed))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with closing(Registry(tmp_path / FILE)) as opened:
        yield opened


def version(
    registry: Registry, theta: np.ndarray, *, shared: int = 0, face: Interface = INTERFACE, origin: str = "by hand"
) -> Version:
    draft = Draft(
        model="cell", graph=graph_of(NET), parameters=theta.astype("<f4").tobytes(), network=NET, interface=face,
        shared=shared, origin=origin,
    )  # fmt: skip
    return registry.add(draft, now=1, by="test")


def test_the_same_version_does_the_same_and_the_process_says_what_the_function_does(
    registry: Registry, tmp_path: Path
) -> None:
    one = version(registry, body(1), shared=NET.shared)
    here = metrics_of(NET, body(1), INTERFACE, QUICK, shared=NET.shared)
    assert Simulation(QUICK, tmp_path)(one) == here == metrics_of(NET, body(1), INTERFACE, QUICK, shared=NET.shared)
    assert set(here) == {"mean_return", "mean_cost", "over_limit", "violations"} and 0 <= here["violations"] <= 1
    assert metrics_of(NET, body(2), INTERFACE, QUICK, shared=NET.shared) != here


def test_a_head_that_stays_with_the_nodes_makes_no_difference(registry: Registry) -> None:
    """Only bodies are compared: what a version has as its head nobody will run."""
    spoilt = body(1)
    spoilt[NET.shared :] = 1_000.0
    fitted = metrics_of(NET, body(1), INTERFACE, QUICK, shared=NET.shared)
    assert metrics_of(NET, spoilt, INTERFACE, QUICK, shared=NET.shared) == fitted
    assert metrics_of(NET, spoilt, INTERFACE, QUICK, shared=0) != metrics_of(NET, body(1), INTERFACE, QUICK, shared=0)


def test_a_version_that_is_adapted_is_judged_by_what_a_node_makes_of_it() -> None:
    """With little known it decides much like the version, and never by the very same numbers."""
    rigid = QUICK.model_copy(update={"adapt_steps": 0})
    for theta in (always("disassemble_a"), body(1)):
        as_it_is = metrics_of(NET, theta, INTERFACE, rigid, shared=0)
        assert metrics_of(NET, theta, INTERFACE, rigid, shared=NET.size) == as_it_is
        adapted = metrics_of(NET, theta, INTERFACE, QUICK, shared=NET.size)
        assert adapted == metrics_of(NET, theta, INTERFACE, QUICK, shared=NET.size)
    assert adapted != as_it_is
    works, waits = (
        metrics_of(NET, always(word), INTERFACE, QUICK, shared=NET.size) for word in ("disassemble_a", "wait")
    )
    assert works["mean_return"] > waits["mean_return"]


def test_a_policy_that_works_earns_more_than_one_that_waits_and_emits_more() -> None:
    idle, busy = (metrics_of(NET, always(word), INTERFACE, QUICK, shared=0) for word in ("wait", "disassemble_a"))
    assert busy["mean_return"] > idle["mean_return"] and busy["mean_cost"] > idle["mean_cost"]


def test_features_and_actions_are_found_by_their_names_whatever_their_order() -> None:
    turned = Interface(features=list(reversed(INTERFACE.features)), actions=list(reversed(ACTIONS)))
    theta = always("disassemble_a")
    other = theta.copy()
    other[NET.size - NET.outputs :] = theta[NET.size - NET.outputs :][::-1]
    assert metrics_of(NET, other, turned, QUICK, shared=0) == metrics_of(NET, theta, INTERFACE, QUICK, shared=0)


def test_what_cannot_be_simulated_is_refused_with_the_cure(registry: Registry, tmp_path: Path) -> None:
    simulate = Simulation(QUICK, tmp_path)
    strange = Interface(features=[Feature(metric="vibration", low=0, high=1)] * 12, actions=list(ACTIONS))
    odd = Interface(features=INTERFACE.features, actions=["fly", *ACTIONS[1:]])
    for face, what in ((strange, "reads vibration"), (odd, "decides fly")):
        with pytest.raises(ShoalError, match=f"{what}.*--unvalidated"):
            simulate(version(registry, body(1), face=face, origin=what))
    graph = version(registry, body(1)).model_copy(update={"network": None, "parameters": None})
    with pytest.raises(ShoalError, match="graph alone"):
        simulate(graph)


def test_a_simulation_that_takes_too_long_or_fails_is_ended_and_says_so(registry: Registry, tmp_path: Path) -> None:
    one = version(registry, body(1))
    with pytest.raises(ShoalError, match=r"did not end within 0\.01 s"):
        Simulation(QUICK.model_copy(update={"most_s": 0.01}), tmp_path)(one)
    assert one.parameters
    lost = one.model_copy(update={"parameters": one.parameters.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(ShoalError, match=r"the simulation failed.*is missing"):
        Simulation(QUICK, tmp_path)(lost)


def test_a_version_that_only_waits_does_not_pass_beside_one_that_works(registry: Registry) -> None:
    works, waits = version(registry, always("disassemble_a")), version(registry, always("wait"))

    def simulate(one: Version) -> dict[str, float]:
        assert one.parameters
        theta = np.frombuffer(registry.data(one.parameters.sha256), "<f4").astype(np.float32)
        return metrics_of(NET, theta, one.interface, QUICK, shared=one.shared)

    why = objection(answer(Question(waits, works), simulate), ValidationSettings())
    assert why and why.startswith("mean_return")
    assert objection(answer(Question(works, waits), simulate), ValidationSettings()) is None
