"""What is special about one demo: who plays, what goes wrong on purpose, what is shown, and what it came to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from messages.settings import Settings
from shoal.stage import Stage
from shoal.view import View

Cast = Callable[[int, str], Mapping[str, tuple[str, Settings]]]
"""(port of the broker, address of the clock) → name → (subcommand, settings)"""
Tell = Callable[[], Awaitable[None]]
Incident = Callable[[Stage, View, Tell], Coroutine[Any, Any, None]]


class Verdict(Protocol):
    """What a run came to."""

    @property
    def good(self) -> bool:
        """Whether nothing speaks against it."""
        ...

    @property
    def failures(self) -> tuple[str, ...]:
        """Everything that does, in words for people."""
        ...

    def as_json(self) -> Mapping[str, Any]:
        """For programs."""
        ...

    def show(self, console: Console) -> None:
        """For people."""
        ...


@dataclass(frozen=True)
class Script:
    """One demo. `incidents`: plant hour and what happens then; `measure`: (real seconds, why it was given up) → verdict
    and report."""

    view: View
    cast: Cast
    incidents: tuple[tuple[float, Incident], ...]
    measure: Callable[[float, str], tuple[Verdict, Path]]
