"""How well a version does in robot cells that do not exist: what validates it before any node tries it.

    simulate = Simulation(settings.learning.simulation, data=Path("cloud-data"))
    simulate(version)     # {"mean_return": 24.1, "mean_cost": 1.9, "over_limit": 0.01, …}, or a ShoalError says why

Alike for every version: the same cells, the same chance, the same seeds. What decides in a plant is what a node makes
of a version; so in every cell it decides as it is for `known_days`, and from then on is adapted every evening to what
that cell did, as a node does it (`edge.adaptation`). It is judged by the days that follow, on which it decides
greedily: money per decision, kg of carbon per decision, the share by which that is over the cell's limit
(`over_limit`), share of days beyond it (`violations`).

Each version runs in a process of its own, at a lower priority: nothing it does keeps the cloud waiting. Bounds: some
seconds of processor time as settings are (96 · cells · (known_days + days) decisions, cells · days · `adapt_steps`
optimiser steps), `most_s` of real time at most; the process ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from cloud.learning_settings import SimulationSettings
from cloud.registry import FILE, Registry
from cloud.versions import Version
from messages.cells import ACTIONS, METRICS
from messages.errors import ShoalError
from messages.initial import initial
from messages.learning import Interface
from messages.network import Network
from messages.process import die_with_parent

WITHOUT = "shoal models release MODEL VERSION --try --unvalidated lets canaries judge it without"
"""The cure where a version cannot be simulated."""
SCALE = 20.0
"""Money of a step by which rewards are divided where a version is adapted: about what a cell earns in one."""
REMEMBERED = 5_000

F32 = NDArray[np.float32]


class Case(BaseModel):
    """What the process is asked, as JSON on its standard input."""

    settings: SimulationSettings
    interface: Interface
    network: Network
    shared: int
    parameters: Path
    """the registry that has them,"""
    sha256: str
    """and which they are"""


@dataclass(frozen=True)
class Simulation:
    """To be called with a version, from any thread that lives until it answers."""

    settings: SimulationSettings
    data: Path
    """of the cloud: its registry has the parameters"""

    def __call__(self, version: Version) -> Mapping[str, float]:
        """How well it does. ShoalError: it cannot run here, or did not end in time."""
        if version.network is None or version.parameters is None:
            raise ShoalError(f"version {version.version} is a graph alone, and only networks are simulated; {WITHOUT}")
        columns(version.interface)
        case = Case(
            settings=self.settings,
            interface=version.interface,
            network=version.network,
            shared=version.shared,
            parameters=self.data.absolute() / FILE,
            sha256=version.parameters.sha256,
        )
        try:
            done = subprocess.run(
                [sys.executable, "-m", "shoal.simulated"],
                input=case.model_dump_json().encode(),
                capture_output=True,
                timeout=self.settings.most_s,
                preexec_fn=die_with_parent(signal.SIGKILL),
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except subprocess.TimeoutExpired:
            raise ShoalError(
                f"the simulation did not end within {self.settings.most_s:g} s; fewer days or cells, or a higher most_s"
            ) from None
        if done.returncode:
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise ShoalError(f"the simulation failed (code {done.returncode}): {last[:300]}")
        try:
            found: dict[str, float] = json.loads(done.stdout)
        except ValueError:
            raise ShoalError(f"the simulation said what is not its result: {done.stdout[:300]!r}") from None
        return found


def columns(interface: Interface) -> tuple[list[int], list[int]]:
    """Which metric of a cell each feature is, and which of its actions each action; ShoalError if one is none."""
    for feature in interface.features:
        if feature.metric not in METRICS or feature.device is not None:
            raise ShoalError(f"it reads {feature.metric}, which the simulated cell does not measure; {WITHOUT}")
    for action in interface.actions:
        if action not in ACTIONS:
            raise ShoalError(f"it decides {action}, which the simulated cell cannot do; {WITHOUT}")
    return [METRICS.index(one.metric) for one in interface.features], [ACTIONS.index(one) for one in interface.actions]


def metrics_of(
    network: Network, theta: F32, interface: Interface, settings: SimulationSettings, *, shared: int
) -> dict[str, float]:
    """What `theta`, (P,), comes to. `shared`: parameters from here on are the cell's own; 0: nothing is adapted."""
    cells = [_cell(network, theta, interface, settings, number, shared) for number in settings.cells]
    names = ("mean_return", "mean_cost", "over_limit", "violations")
    return {name: float(np.mean(values)) for name, values in zip(names, zip(*cells, strict=True), strict=True)}


def _cell(
    network: Network, theta: F32, interface: Interface, settings: SimulationSettings, number: int, shared: int
) -> tuple[float, float, float, float]:
    """Money and carbon per decision, the share by which that is over the limit, share of days beyond it."""
    from edge.adaptation import adapted
    from edge.learner import Learner, act, remember
    from edge.learning import LearnerSettings
    from edge.learning import LearningSettings as OfNode
    from firmware_sim.cell import DAY, Cell, cell_of

    reads, does = columns(interface)
    low = np.array([one.low for one in interface.features], np.float32)
    wide = np.array([one.high - one.low for one in interface.features], np.float32)

    def seen(cell: Cell) -> F32:
        return np.asarray(np.clip((cell.state[reads] - low) / wide, 0, 1), np.float32)

    def chance(what: int) -> np.random.Generator:
        return np.random.default_rng((settings.seed, number, what))

    spec, ours = cell_of(number, settings.heterogeneity), LearnerSettings(scale=SCALE, remembered=REMEMBERED)
    learner = Learner.fresh(network, ours, chance(0))
    learner.theta[:] = theta
    if shared:
        learner.theta[shared:] = initial(network, chance(1))[shared:]
    learner.multiplier = settings.price
    explores, learns, begin = chance(2), chance(3), learner.theta[: shared or network.size].copy()

    def day(cell: Cell, explore: float) -> tuple[float, float]:
        """Money and carbon of one."""
        earned, emitted, state = 0.0, 0.0, seen(cell)
        for _ in range(DAY):
            action = act(learner, state, explore, explores)
            money, kg = cell.step(does[action])
            earned, emitted, after = earned + money, emitted + kg, seen(cell)
            remember(learner, state, action, money, kg, after)
            state = after
        return earned, emitted

    meanwhile, judged = Cell(spec, chance(4)), Cell(spec, chance(5), days=settings.days)
    for _ in range(settings.known_days if shared else 0):
        day(meanwhile, settings.explore)
    days = []
    for _ in range(settings.days):
        if shared:
            steps, half = settings.adapt_steps, OfNode.model_fields["adapt_half"].default
            learner.theta[:] = adapted(learner, begin, learns, steps=steps, half=half)
        days.append(day(judged, 0.0))
    decisions = settings.days * DAY
    money, carbon = sum(one[0] for one in days), sum(one[1] for one in days)
    beyond = sum(one[1] > spec.limit_kg for one in days) / settings.days
    over = max(0.0, carbon / settings.days / spec.limit_kg - 1)
    return money / decisions, carbon / decisions, over, beyond


def main() -> None:
    """The process: a case comes in, metrics go out."""
    os.nice(10)
    case = Case.model_validate_json(sys.stdin.buffer.read())
    with closing(Registry(case.parameters, make=False)) as registry:
        theta = np.frombuffer(registry.data(case.sha256), "<f4").astype(np.float32)
    found: dict[str, Any] = metrics_of(case.network, theta, case.interface, case.settings, shared=case.shared)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
