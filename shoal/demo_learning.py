"""What the demo teaches: cells that learn together, one poisoned node, and one bad release. Settings and incidents.

    learning = DemoLearning(files, plant_file, plant, seed)
    learning.cloud, learning.edge("robot-1"), learning.cells   # into the settings of cloud, node and simulator
    learning.incidents                                         # a stranger enrols; an operator imports a bad model

Rounds, canaries and simulation are set so that all of it happens within hours of fast cells: a real plant takes weeks,
with the defaults. Only the figures are smaller; the programs are the product's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cloud.canary import CanaryTest
from cloud.graphs import IR, OPSET
from cloud.learning_settings import GateSettings, LearningSettings, RoundSettings, SimulationSettings
from cloud.release_state import State
from cloud.settings import KEY_FILE
from cloud.trials import ReleaseSettings
from cloud.validation import ValidationSettings
from cloud.versions import Draft
from edge.arms import CanarySettings
from edge.learning import LearnerSettings
from edge.learning import LearningSettings as NodeLearning
from firmware_sim.settings import Likeness
from messages.cells import ACTIONS, INTERFACE, METRICS
from messages.errors import ShoalError
from messages.learning import Training
from messages.plant import Plant
from messages.signing import SigningKey
from shoal.demo_learning_view import LearningView
from shoal.models import opened
from shoal.outcome import Files
from shoal.poisoned import Poisoned
from shoal.script import Incident, Tell
from shoal.stage import Stage, in_thread
from shoal.view import View

MODEL = "cell"
STRANGER = "stranger"
"""The poisoned node."""
HIDDEN = (32, 32)
HETEROGENEITY = 0.3
PAUSE_S = 75 * 60.0
"""Plant time between rounds: what cells do in it is what the next round learns from."""
DEADLINE_S = 3 * 3600.0
"""The first round is open until its cells know `EXPERIENCE`; the others close as soon as all have answered."""
STEPS = 1_000
"""Optimiser steps of a round."""
EXPERIENCE = 144
"""Transitions before a cell takes part: a day and a half of it. After a third of a day it has done little but the one
action that the seed prefers, and what is learned of that misjudges all others for rounds to come."""
EXPLORE = 0.3
"""Share of decisions that are thrown: there is little time, and what is hardly ever tried is overrated."""
LIMIT_KG = 2.4
"""Carbon allowed per decision: a simulated cell's limit of a day by its 96 steps."""
DUAL_RATE = 0.002
"""How fast carbon gets its price. In a run so short a faster one overshoots, and cells stand still for it."""
VALIDATION = ValidationSettings(worse=0.6, most_over=1.5)
"""`worse`: by two cells and a few days versions that are alike differ by a third, so only what earns less than half is
refused. `most_over`: cells that work all the time emit up to 2.1 times what is allowed, so what is refused wastes."""
TEST = CanaryTest(alpha=0.01, beta=0.1, margin_least=15.0, most_pairs=600, more=3.0)
"""Decides within one or two plant hours. `margin_least` is about half of what a good cell earns per decision. `more`: a
cell that works may follow on one that stands still, and in some hours of work emits three times what is allowed."""
CANARIES = 3
BAD_H = 4.5
"""Plant hour from which the operator has a bad model; it is tried when no other version is."""
BAD_ACTION = "service"
OPERATOR = "operator"
LOOK_S = 0.1


@dataclass
class DemoLearning:
    """Of one run."""

    files: Files
    plant: Plant
    seed: int

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes that decide for cells."""
        return tuple(dict.fromkeys(cell.node or workshop.node for workshop, cell in self.plant.cells.values()))

    @property
    def cells(self) -> dict[str, Likeness]:
        """Which simulated cell each is."""
        return {
            name: Likeness(number=place, heterogeneity=HETEROGENEITY) for place, name in enumerate(self.plant.cells, 1)
        }

    @property
    def cloud(self) -> LearningSettings:
        """What the cloud is told."""
        return LearningSettings(
            model=MODEL,
            hidden=HIDDEN,
            seed=self.seed,
            pause_s=PAUSE_S,
            enrol="first",
            rounds=RoundSettings(
                deadline_s=DEADLINE_S,
                quorum=2,
                experience=EXPERIENCE,
                training=Training(steps=STEPS),
                gate=GateSettings(strikes=2),
            ),
            releases=ReleaseSettings(canaries=CANARIES, validation=VALIDATION, test=TEST),
            simulation=SimulationSettings(
                cells=(9_001, 9_002), heterogeneity=HETEROGENEITY, known_days=3, days=4, seed=self.seed
            ),
        )

    def edge(self, node: str) -> NodeLearning | None:
        """What a node is told; None where it has no cell."""
        if node not in self.nodes:
            return None
        return NodeLearning(
            keys={"cloud": SigningKey.at(self.files.cloud / KEY_FILE).public},
            explore=EXPLORE,
            explore_first=1.0,
            hidden=HIDDEN,
            learner=LearnerSettings(gamma=0.95, scale=30.0, limit=LIMIT_KG, dual_rate=DUAL_RATE),
            canary=CanarySettings(block=2, washout=0),
            seed=self.seed,
        )

    @property
    def incidents(self) -> tuple[tuple[float, Incident], ...]:
        """Plant hour, and what happens from then on."""
        return ((0.0, self._stranger), (BAD_H, self._bad_release))

    async def _stranger(self, stage: Stage, view: View, tell: Tell) -> None:
        broker = stage.broker
        poisoned = Poisoned(broker.host, broker.port, site=self.plant.site, name=STRANGER, seed=self.seed)
        view.say(f"node {STRANGER} enrols with a key of its own: it will send poison", "bold red")
        running = asyncio.create_task(poisoned.run())
        try:
            while not view.finished:
                await asyncio.wait({running}, timeout=LOOK_S)
                if running.done():
                    await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _bad_release(self, stage: Stage, view: View, tell: Tell) -> None:
        """Until it is being tried: while another version is, the operator waits; asks again if told no."""
        if not isinstance(view, LearningView):
            return
        asked: tuple[int, int] | None = None
        attempt = 0
        while not view.finished and (view.bad is None or view.bad not in view.tried):
            if asked is None:
                asked = await in_thread(partial(self._wish, attempt + 1, stage.clock.now))
                attempt += asked is not None
            elif await in_thread(partial(self._came_to_nothing, *asked)):
                asked = None
            elif view.bad != asked[0]:
                view.bad = asked[0]
                view.say(
                    f"an operator imports version {view.bad}, which decides `{BAD_ACTION}` always, "
                    "and has it tried without simulation",
                    "bold red",
                )
            await asyncio.sleep(LOOK_S)

    def _came_to_nothing(self, version: int, wish: int) -> bool:
        """Does it have to be asked for again?"""
        with opened(self.files.cloud) as registry:
            answer = registry.answered(wish) or ""
            return answer.startswith("refused") or registry.version(MODEL, version).stage == "superseded"

    def _wish(self, attempt: int, now: int) -> tuple[int, int] | None:
        """What `shoal models import` and `shoal models release --try --unvalidated` do: version and wish."""
        with opened(self.files.cloud) as registry:
            raw = registry.state(MODEL)
            state = State.model_validate_json(raw) if raw else State()
            if state.fleet is None or state.trial:  # what only waits makes room
                return None
            draft = Draft(model=MODEL, graph=bad_graph(BAD_ACTION), interface=INTERFACE, origin=f"bad-{attempt}.onnx")
            made = registry.add(draft, now=now, by=OPERATOR, why="imported")
            why = "urgent: no time for the simulation"
            return made.version, registry.wish(MODEL, "canary", version=made.version, node=None, by=OPERATOR, why=why)


def bad_graph(action: str) -> bytes:
    """A sound ONNX graph that always decides the same: nothing but its results tells that it is bad."""
    if action not in ACTIONS:
        raise ShoalError(f"no action {action!r}; there are: {', '.join(ACTIONS)}")
    bias = np.array([float(one == action) for one in ACTIONS], np.float32)
    weight = np.zeros((len(METRICS), len(ACTIONS)), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["state", "weight", "bias"], ["values"])],
        "policy",
        [helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, len(METRICS)])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, len(ACTIONS)])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))
