"""What a learner knows, on the node's disk: whole after a power cut, and as good as none when its bytes are broken.

    kept = Checkpoint(Files(Path("data/learning")))
    kept.keep(learner)                                   # returns when it is on the disk, in place of the one before
    learner, why = kept.load(network, settings)          # None and why, where there is nothing that fits
    kept.keep_update(update); kept.update()           # the update of a round, before it is sent

A safetensors file: parameters, target network, moments, and what is remembered of the cell (2 S + 3 numbers for each
transition; 2.2 MB for 20,000 of 12); multiplier and counts are JSON in its metadata, with the digest of everything.
Written whole each time: every few minutes is enough, what was done since then is forgotten by a power cut.
Settings may have changed: of a smaller memory the newest transitions are kept. Another network begins anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edge.files import Files
from edge.learner import Learner, LearnerSettings, Memory
from messages.errors import BadMessage
from messages.learning import Update
from messages.network import Network

LEARNER, UPDATE = "learner.safetensors", "update.safetensors"
_OF_P = ("theta", "target", "first", "second")
_OF_M = ("states", "after", "actions", "rewards", "costs")

Tensors = Mapping[str, NDArray[np.generic]]


class _Facts(BaseModel):
    """What is no array."""

    model_config = ConfigDict(frozen=True)

    network: Network
    steps: int
    multiplier: float
    body_steps: int
    head_steps: int
    count: int


class Checkpoint:
    """The learner's files in a folder of its own."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def keep(self, learner: Learner) -> None:
        """On the disk when this returns."""
        self._files.put(LEARNER, written(learner))

    def load(self, network: Network, settings: LearnerSettings) -> tuple[Learner | None, str]:
        """What was kept, for this network; or None, and why."""
        data = self._files.get(LEARNER)
        if data is None:
            return None, "nothing is kept"
        try:
            return read(data, network, settings), ""
        except BadMessage as error:
            return None, str(error)

    def keep_update(self, update: Update) -> None:
        """On the disk when this returns: only then may it be sent."""
        self._files.put(UPDATE, update.data)

    def update(self) -> Update | None:
        """The one last kept."""
        data = self._files.get(UPDATE)
        try:
            return Update.decode(data) if data else None
        except BadMessage:
            return None


def written(learner: Learner) -> bytes:
    """All that a learner knows, as bytes."""
    known = len(learner.memory)
    tensors = {
        **{name: getattr(learner, name) for name in _OF_P},
        **{name: np.ascontiguousarray(getattr(learner.memory, name)[:known]) for name in _OF_M},
    }
    tensors["actions"] = tensors["actions"].astype(np.int16)
    facts = _Facts(
        network=learner.network,
        steps=learner.steps,
        multiplier=learner.multiplier,
        body_steps=learner.body_steps,
        head_steps=learner.head_steps,
        count=learner.memory.count,
    ).model_dump_json()
    return save(tensors, {"learner": facts, "sha256": _digest(facts, tensors)})


def read(data: bytes, network: Network, settings: LearnerSettings) -> Learner:
    """The learner that was written; BadMessage if these bytes are broken, or of another network."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
        facts = _Facts.model_validate_json(metadata["learner"])
        tensors = load(data)
        whole = metadata["sha256"] == _digest(metadata["learner"], tensors)
    except (SafetensorError, ValidationError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise BadMessage(f"checkpoint: broken ({str(error)[:200]}); learning begins anew") from None
    if not whole:
        raise BadMessage("checkpoint: broken (its digest is another one); learning begins anew")
    if facts.network != network:
        raise BadMessage("checkpoint: of another network; learning begins anew")
    theta, target, first, second = (tensors[name].astype(np.float32) for name in _OF_P)
    return Learner(
        network,
        settings,
        theta,
        target,
        first,
        second,
        memory=_remembered(tensors, facts.count, settings.remembered, network.inputs),
        steps=facts.steps,
        multiplier=facts.multiplier,
        body_steps=facts.body_steps,
        head_steps=facts.head_steps,
    )


def _remembered(tensors: Tensors, count: int, size: int, inputs: int) -> Memory:
    """The transitions in a ring of `size`; in the same places if they were in one of that size."""
    memory = Memory.of(size, inputs)
    known = len(tensors["actions"])
    if known == min(count, size):
        order, memory.count = np.arange(known), count
    else:
        oldest = count % known if known else 0  # the ring was full, or it would fit as it is
        order = np.roll(np.arange(known), -oldest)[-size:] if known < count else np.arange(known)[-size:]
        memory.count = len(order)
    for name in _OF_M:
        getattr(memory, name)[: len(order)] = tensors[name][order]
    return memory


def _digest(facts: str, tensors: Tensors) -> str:
    found = hashlib.sha256(facts.encode())
    for name in (*_OF_P, *_OF_M):
        one = tensors[name]
        found.update(f"{name} {one.dtype} {one.shape}".encode())
        found.update(one.tobytes())
    return found.hexdigest()
