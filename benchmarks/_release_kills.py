"""A node that takes up a release is killed at every step: what runs when it is back?

The process is a real one, and so are its files, kept by `edge.files` with fsync as in the product. It sends itself
SIGKILL before, within or after the n-th change of the disk, for every n there is. Whoever starts again, which is killed
too, at a step of its own, must see the old state or the new one, whole, and take the release that comes again. SIGKILL
loses nothing that was written, but the power does: so the same steps again on a disk in memory that forgets what was
not synced, or keeps any part of it (`tests.releasing.Card`).
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge.arms import CanarySettings
from edge.files import Files
from edge.models import Models
from edge.policy import F32
from messages.learning import Release
from tests import releasing
from tests.releasing import NET, NOW, Card, PowerCut, Released

State = tuple[int | None, frozenset[tuple[int, bytes]]]
"""What runs, and the versions that take turns with their parameters."""
TURNS = CanarySettings(block=1, washout=0)


class Case(NamedTuple):
    """What was released before, and what comes then."""

    name: str
    before: tuple[Released, ...]
    comes: Released


@dataclass
class Ends:
    """How many were killed, and what was there when they were back."""

    steps: int = 0
    found: Counter[str] = field(default_factory=Counter)
    """old, new or mixed; and `lost`: the release came again, and did not run"""


OURS = NET.size
"""Of releases that a node makes its own."""
FIRST, SECOND, BESIDE = Released(4, counter=1), Released(5, counter=2), Released(5, counter=2, stage="canary")
CASES = (
    Case("first release", (), FIRST),
    Case("to the fleet", (FIRST,), SECOND),
    Case("to a canary", (FIRST,), BESIDE),
    Case("from canary to fleet", (FIRST, BESIDE), Released(5, counter=3)),
    Case("back from a canary", (FIRST, BESIDE), Released(4, counter=3)),
    Case("back in the fleet", (FIRST, SECOND), Released(4, counter=3, instead_of=5)),
    Case(
        "to a canary, adapted",
        (Released(4, counter=1, shared=OURS),),
        Released(5, counter=2, stage="canary", shared=OURS),
    ),
    Case(
        "back to an adapted one",
        (Released(4, counter=1, shared=OURS), SECOND),
        Released(4, counter=3, instead_of=5, shared=OURS),
    ),
    Case("beyond what is kept", (FIRST, *(Released(k, counter=k) for k in (5, 6, 7))), Released(8, counter=8)),
)


class Mortal(Files):
    """A folder whose process kills itself at its n-th step; a file that is written has three."""

    def __init__(self, folder: Path, last: int) -> None:
        super().__init__(folder)
        self.left = last

    def make(self) -> None:
        self._step()
        super().make()

    def write(self, name: str, data: bytes) -> None:
        self._step()
        super().write(name, b"")
        self._step()
        super().write(name, data[: len(data) // 2])
        self._step()
        super().write(name, data)

    def sync(self, name: str) -> None:
        self._step()
        super().sync(name)

    def rename(self, name: str, to: str) -> None:
        self._step()
        super().rename(name, to)

    def sync_folder(self) -> None:
        self._step()
        super().sync_folder()

    def remove(self, name: str) -> None:
        self._step()
        super().remove(name)

    def _step(self) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(case: Case, every: int) -> Ends:
    """At every step, or at one of every so many, the last among them; and the restart at its first, second or third."""
    ends, states = Ends(), _states(case)
    for step in range(_mortal_steps(case), 0, -every):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _before(case, lambda: Files(folder))  # noqa: B023
            if not _dies(Mortal(folder, step), case.comes.to):
                raise AssertionError(f"{case.name}: it lived beyond step {step}")
            _dies(Mortal(folder, 1 + step % 3), state)
            _look(ends, case, lambda: Files(folder), states)  # noqa: B023
    return ends


def cut(case: Case, every: int, draws: int) -> Ends:
    """The power goes at such steps; for each there are so many draws of what of it is on the disk."""
    ends, states, whole = Ends(), _states(case), Card(random.Random(0))
    _before(case, lambda: whole)
    before = whole.steps
    case.comes.to(node(whole))
    for step in range(whole.steps - before, 0, -every):
        for draw in range(draws):
            card = Card(random.Random(1_000 * step + draw))
            _before(case, lambda: card)  # noqa: B023
            card = _cut(card, step, case.comes.to)
            card = _cut(card, 1 + draw % 3, state)
            _look(ends, case, lambda: card, states)  # noqa: B023
    return ends


def node(files: Files, canary: CanarySettings | None = None) -> Models:
    """One that has just started; what it makes of a version tells which one that is."""
    return releasing.node(files, canary=canary, adapt=lambda release, parameters, known: Own(release, parameters))


class Own:
    """Made at once."""

    left, known = 0, 100

    def __init__(self, release: Release, parameters: F32) -> None:
        self.vector = parameters + np.float32(release.version)

    def work(self, steps: int) -> None:
        """There is nothing left to do."""


def state(models: Models) -> State:
    """What decides there."""
    turns = [turn for _ in range(4) if (turn := models.turn("cell")) is not None]
    seen = frozenset((turn.policy.version, turn.policy.parameters.tobytes()) for turn in turns)
    return models.report("cell", NOW).running, seen


def _states(case: Case) -> tuple[State, State]:
    """The old one and the new one, undisturbed."""
    card = Card(random.Random(0))
    _before(case, lambda: card)
    old = state(node(card, TURNS))
    case.comes.to(node(card))
    return old, state(node(card, TURNS))


def _before(case: Case, files: Callable[[], Files]) -> None:
    for release in case.before:
        release.to(node(files()))


def _mortal_steps(case: Case) -> int:
    with tempfile.TemporaryDirectory() as name:
        _before(case, lambda: Files(Path(name)))
        files = Mortal(Path(name), 0)
        case.comes.to(node(files))
        return -files.left


def _cut(card: Card, step: int, work: Callable[[Models], object]) -> Card:
    """What is there after the power went at this step; as it is if it did not come to it."""
    card.cut_at = card.steps + step
    try:
        work(node(card))
    except PowerCut:
        card = card.after_the_cut()
    card.cut_at = None
    return card


def _look(ends: Ends, case: Case, files: Callable[[], Files], states: tuple[State, State]) -> None:
    models = node(files(), TURNS)
    there = state(models)
    ends.steps += 1
    ends.found["old" if there == states[0] else "new" if there == states[1] else "mixed"] += 1
    case.comes.to(models)
    for again in (models, node(files(), TURNS)):
        if state(again) != states[1]:
            ends.found["lost"] += 1
            return


def _dies(files: Files, work: Callable[[Models], object]) -> bool:
    """A process of its own, and whether it was killed before it was through."""
    child = os.fork()
    if not child:
        try:
            work(node(files))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f"a node ended with {code}")
    return code != 0
