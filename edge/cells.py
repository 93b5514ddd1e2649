"""The cells of a node and everything that decides for them, put together from its settings.

cells = cells_of(plant, "north", settings.learning)        # ConfigError where settings and plant disagree
agents = agents_of(settings, plant, settings.learning, node)   # handlers and loops; nothing runs yet
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.agent import Agent, Cell, Newest, seeded
from edge.agents import Agents
from edge.checkpoint import Checkpoint
from edge.files import Files
from edge.learner import Learner
from edge.learning import CellSettings, LearningSettings
from edge.learning_worker import LearningWorker, ModelLearner
from edge.models import Models
from edge.node import Node
from edge.reporting import first_number
from edge.safety import Limits
from edge.settings import EdgeSettings
from edge.shelf import Shelf
from edge.training import Trainer
from messages.cells import ACTIONS
from messages.connect import bus_to
from messages.contracts import STATE_CODES
from messages.errors import ConfigError
from messages.logs import get_logger
from messages.plant import Device, Plant, near
from messages.signing import SigningKey, public_key

KEY_FILE = "node.key"
"""In the data folder: what updates and reports are signed with."""

WINDOW = 16
"""Rounds, releases and parts of artefacts that may wait here, twice; the rest waits at the broker."""

log = get_logger("edge")


def cells_of(plant: Plant, node: str, learning: LearningSettings) -> list[Cell]:
    """The devices this node decides for."""
    devices = {device.device: device for device in plant.devices(node) if device.kind == "cell"}
    for name in learning.cells:
        if name not in devices:
            raise ConfigError(f"learning.cells: node {node!r} has no cell {name!r}{near(name, devices)}")
    if not devices:
        raise ConfigError(f"learning: node {node!r} has no cell; leave `learning` out, or give its workshop cells")
    wanted = learning.cells or {name: CellSettings() for name in devices}
    cells: dict[str, Cell] = {}
    for name, one in wanted.items():
        if one.model in cells:
            raise ConfigError(
                f"learning.cells: {cells[one.model].name!r} and {name!r} are both of model {one.model!r}; "
                "a model decides for one cell of a node: give each its own"
            )
        _meant(name, one.limits, {device.device: device for device in plant.devices(node)})
        step_us = round(plant.cells[name][1].step_s * 1e6)
        cells[one.model] = Cell(devices[name], one.model, step_us, one.limits)
    return list(cells.values())


def _meant(cell: str, limits: Limits, heard: Mapping[str, Device]) -> None:
    """ConfigError at what this node can never know, or the cell never do: as nothing unknown is safe, all would stay
    locked, and nobody would see why."""
    what = f"learning.cells.{cell}.limits"
    for word in (limits.safe, *limits.actions):
        if word not in ACTIONS:
            raise ConfigError(f"{what}: a cell cannot do {word!r}{near(word, ACTIONS)}")
    if limits.states and "state" not in heard[cell].metrics:
        raise ConfigError(f"{what}.states: {cell} says no `state`; leave them out, and use interlocks")
    for word in limits.states:
        if word not in STATE_CODES:
            raise ConfigError(f"{what}.states: there is no {word!r}{near(word, STATE_CODES)}")
    for one in (*limits.interlocks, *limits.stop):
        device = heard.get(one.device or cell)
        if device is None:
            raise ConfigError(f"{what}: this node does not hear {one.device!r}{near(str(one.device), heard)}")
        if one.metric not in device.metrics:
            raise ConfigError(f"{what}: {device.device} has no {one.metric!r}{near(one.metric, device.metrics)}")


def key_of(settings: EdgeSettings) -> SigningKey:
    """This node's own, made at the first use."""
    return SigningKey.at(settings.data / KEY_FILE)


def facts(settings: EdgeSettings, plant: Plant, learning: LearningSettings) -> list[str]:
    """What `--check` says beside the settings."""
    cells = cells_of(plant, settings.node, learning)
    key = key_of(settings).public
    said = [f"cell {cell.name}: decided by model {cell.model}, every {cell.step_us / 1e6:g} s" for cell in cells]
    if learning.keys:
        said.append(f"may release versions and open rounds: {', '.join(learning.keys)}")
    else:
        said.append("nobody may release versions or open rounds here: give [learning.keys] a name and its public key")
    told = f'the cloud is told it, or enrols it: [learning.keys] "{settings.node}" = "{key}"'
    return [*said, f"public key of this node: {key}; {told}"]


def agents_of(settings: EdgeSettings, plant: Plant, learning: LearningSettings, node: Node) -> Agents:
    """Handlers and loops of the cells of this node; what ran when it stopped runs again."""
    cells, key = cells_of(plant, settings.node, learning), key_of(settings)
    keys = {name: public_key(text) for name, text in learning.keys.items()}
    targets = frozenset({f"{settings.site}/{settings.node}", f"{settings.site}/all"})
    learners = {cell.model: _learner(settings, learning, cell.model, key) for cell in cells}
    models = _models(settings, learning, targets, keys, learners, node)
    newest = Newest(plant.devices(settings.node))
    chances = learning.explore, learning.explore if learning.explore_first is None else learning.explore_first
    agents = {
        cell.name: Agent(
            cell, models, newest, *chances, seeded(learning.seed, settings.site, cell.name), session=node.session
        )
        for cell in cells
    }
    name = f"{settings.site}-{settings.node}"
    return Agents(
        node=node,
        agents=agents,
        models=models,
        worker=LearningWorker(models, learners, time.monotonic),
        newest=newest,
        keys=keys,
        targets=targets,
        key=key,
        first_report=first_number(Files(settings.data / "learning"), node.clock.now()),
        report_s=learning.report_s,
        cells=bus_to(settings.local, f"{name}-cells", session_expiry_s=0),
        cloud=bus_to(settings.cloud_broker, f"{name}-learning", session_expiry_s=0, receive_maximum=WINDOW),
        connect=lambda: bus_to(settings.cloud_broker, f"{name}-artefacts", session_expiry_s=0, receive_maximum=WINDOW),
    )


def _models(
    settings: EdgeSettings,
    learning: LearningSettings,
    targets: frozenset[str],
    keys: dict[str, Ed25519PublicKey],
    learners: dict[str, ModelLearner],
    node: Node,
) -> Models:
    models = Models(
        Shelf(Files(settings.data / "models")),
        targets=targets,
        keys=keys,
        session=node.session,
        canary=learning.canary,
        seed=int(seeded(learning.seed, settings.site, settings.node, "turns").integers(2**62)),
        adapt=lambda release, parameters, known: (
            learners[release.model].adaptation(release, parameters, known) if release.model in learners else None
        ),
    )
    for report in models.load(node.clock.now()):
        log.info("edge.model", model=report.model, running=report.running, refused=report.refused)
    return models


def _learner(settings: EdgeSettings, learning: LearningSettings, model: str, key: SigningKey) -> ModelLearner:
    def chance(what: str) -> np.random.Generator:
        return seeded(learning.seed, settings.site, settings.node, model, what)

    network = learning.network
    folder: Path = settings.data / "learning" / model
    files = Files(folder)
    checkpoint = Checkpoint(files)
    learner, why = checkpoint.load(network, learning.learner)
    if learner is None:
        log.info("edge.learner_begins", model=model, why=why, parameters=network.size)
        learner = Learner.fresh(network, learning.learner, chance("learner"))
    trainer = Trainer(
        model,
        learner,
        key,
        name=settings.node,
        rng=chance("training"),
        keep=checkpoint.keep_update,
        sent=checkpoint.update(),
    )
    return ModelLearner(
        files,
        checkpoint,
        trainer,
        rng=chance("adaptation"),
        settings=learning,
    )
