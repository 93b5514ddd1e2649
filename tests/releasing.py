"""Releases for tests: signed, with artefacts, and disks on which the power can be cut."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import numpy as np

from cloud.graphs import graph_of
from edge.active import Adapt
from edge.arms import CanarySettings
from edge.files import Files
from edge.models import Models
from edge.policy import F32
from edge.shelf import Shelf
from messages.contracts import Envelope
from messages.learning import PART_BYTES, Artefact, Feature, Interface, ModelReport, Release
from messages.network import Network
from messages.signing import SigningKey, public_key, sign

KEY = SigningKey.from_seed(bytes(range(32)))
KEYS = {"cloud": public_key(KEY.public)}
TARGETS = {"s1/press", "s1/all"}
NET = Network(inputs=3, hidden=(4,), outputs=2)
INTERFACE = Interface(
    features=[Feature(metric=name, low=0, high=10) for name in ("wear", "stock", "carbon")], actions=["wait", "work"]
)
NOW = 1_000_000
LONG = 10**15


@lru_cache
def graph(network: Network = NET) -> bytes:
    return graph_of(network)


def vector(seed: int, network: Network = NET) -> F32:
    return np.random.default_rng(seed).normal(0, 0.5, network.size).astype(np.float32)


def wanting(action: int) -> F32:
    """A vector that always decides so."""
    theta = np.zeros(NET.size, np.float32)
    theta[NET.size - NET.outputs + action] = 1
    return theta


class Released:
    """One release: its document, and the artefacts beside it."""

    def __init__(
        self, version: int, theta: F32 | None = None, *, counter: int, target: str = "s1/press", key: SigningKey = KEY,
        name: str = "cloud", valid_until: int = LONG, model: str = "cell", code: bytes | None = None,
        stage: str = "fleet", shared: int = 0, instead_of: int | None = None, network: Network | None = NET,
        interface: Interface = INTERFACE,
    ) -> None:  # fmt: skip
        self.theta = vector(version) if theta is None else theta
        self.artefacts = [graph() if code is None else code]
        if network is not None:
            self.artefacts.append(self.theta.astype("<f4").tobytes())
        body = Release(
            model=model, version=version, stage=stage, instead_of=instead_of, interface=interface, network=network,
            shared=shared, graph=Artefact.of(self.artefacts[0]), made_at=1,
            parameters=Artefact.of(self.artefacts[1]) if network else None,
        )  # fmt: skip
        self.envelope = Envelope[Release](key=model, target=target, counter=counter, valid_until=valid_until, body=body)
        self.payload = sign(self.envelope, key, name=name)
        self.model = model

    def parts(self) -> list[tuple[str, int, bytes]]:
        """All of them, as they are published."""
        return [
            (Artefact.of(data).digest, k, data[k * PART_BYTES : (k + 1) * PART_BYTES])
            for data in self.artefacts
            for k in range(Artefact.of(data).parts)
        ]

    def to(self, models: Models, now: int = NOW) -> ModelReport:
        """Publish it and its parts to a node; the last report."""
        reports = models.on_release(self.model, self.payload, now)
        for digest, part, data in self.parts():
            reports += models.on_part(digest, part, data, now)
        return reports[-1]


def node(files: Files, *, canary: CanarySettings | None = None, seed: int = 0, adapt: Adapt | None = None) -> Models:
    """One that has just started."""
    models = Models(Shelf(files), targets=TARGETS, keys=KEYS, session="00000000", canary=canary, seed=seed, adapt=adapt)
    models.load(NOW)
    return models


class PowerCut(Exception):
    """Nothing after it happens."""


class Card(Files):
    """A disk in memory that loses what was not synced when the power goes, or keeps it, or half of it.

    Of a file that was not synced any part may be there, and bytes that were never written; of renames and removals that
    were not synced, any number of the first ones: the journal of a file system keeps their order.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__(Path("card"))
        self.rng = rng
        self.now: dict[str, tuple[bytes, bool]] = {}
        """name → bytes, and whether they are synced"""
        self.kept: dict[str, tuple[bytes, bool]] = {}
        self.journal: list[dict[str, tuple[bytes, bool]]] = []
        """the folder after each step since its last sync"""
        self.steps = 0
        self.cut_at: int | None = None

    def make(self) -> None:
        pass

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.cut_at:
            raise PowerCut

    def names(self) -> list[str]:
        return sorted(self.now)

    def get(self, name: str) -> bytes | None:
        return self.now[name][0] if name in self.now else None

    def write(self, name: str, data: bytes) -> None:
        self.now[name] = data, False
        self.journal.append(dict(self.now))
        self._step()

    def sync(self, name: str) -> None:
        data, _ = self.now[name]
        self.now[name] = data, True
        for folder in (self.kept, *self.journal):
            if folder.get(name, (None,))[0] == data:
                folder[name] = data, True
        self._step()

    def rename(self, name: str, to: str) -> None:
        self.now[to] = self.now.pop(name)
        self.journal.append(dict(self.now))
        self._step()

    def sync_folder(self) -> None:
        self.kept = dict(self.now)
        self.journal.clear()
        self._step()

    def remove(self, name: str) -> None:
        self.now.pop(name, None)
        self.journal.append(dict(self.now))
        self._step()

    def after_the_cut(self) -> Card:
        """What is found when the power is back."""
        found = Card(self.rng)
        folder = self.rng.choice([self.kept, *self.journal])
        for name, (data, synced) in folder.items():
            if not synced:
                torn = data[: self.rng.randint(0, len(data))]
                data = torn + bytes(self.rng.choice([0, len(data) - len(torn)]))
            found.now[name] = data, True
        found.kept = dict(found.now)
        return found
