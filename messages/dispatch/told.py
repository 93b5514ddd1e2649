"""What is known of each machine: broken or not, warm or not, busy with what no award gave it.

Agendas say it, records say it where they are read too; what is older than what is known changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from messages.contracts import StateChanged
from messages.negotiation import Agenda

Heat = Literal["cold", "heating", "warm"]


@dataclass(slots=True)
class Told:
    """One machine, as of `at`."""

    at: int = -1
    down: bool = False
    repair_at: int | None = None
    heat: Heat = "cold"
    since: int = 0
    """heating: it began then"""
    busy_until: int = 0
    """by its node's word, with what is no task of the book"""
    ended_at: int = -1
    """when its last work ended"""


class Machines:
    """Every machine anybody has spoken of."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}

    def __getitem__(self, machine: str) -> Told:
        """What is known of it; of one nobody spoke of, that it is cold, free and sound."""
        return self._told.get(machine) or Told()

    def is_down(self, machine: str) -> bool:
        """Whether it is broken."""
        one = self._told.get(machine)
        return one is not None and one.down

    def on_agenda(self, agenda: Agenda, heard_at: int | None = None) -> list[str]:
        """Take a node's word on its machines in; those that broke or came back with it.

        `heard_at`: the latest it can have been said; a clock far ahead would silence what comes later.
        """
        at = agenda.at if heard_at is None else min(agenda.at, heard_at)
        busy = {one.machine for one in agenda.awards if one.state != "finished"}
        changed = []
        for name in {**agenda.free_at, **agenda.down}:
            one = self._told.setdefault(name, Told())
            if at < one.at:
                continue
            one.at = at
            changed += self._turn(name, one, name in agenda.down, agenda.down.get(name))
            free_at = agenda.free_at.get(name, 0)
            one.busy_until = 0 if name in busy or free_at <= agenda.at else free_at
            if name in agenda.warm:
                one.heat = "warm"
            elif one.heat == "warm" and one.ended_at < at:
                one.heat = "cold"
        return changed

    def on_state(self, record: StateChanged, heard_at: int | None = None) -> list[str]:
        """Take a machine's word in; it itself, if it broke or came back."""
        one = self._told.setdefault(record.machine, Told())
        at = record.at if heard_at is None else min(record.at, heard_at)
        if at < one.at:
            return []
        one.at, one.since = at, at
        if record.state == "preheat":
            one.heat = "heating"
        else:
            one.heat = "warm" if record.state in ("idle", "work", "setup") else "cold"
        return self._turn(record.machine, one, record.state == "down", record.repair_at)

    def on_ended(self, machine: str, at: int) -> None:
        """Its work ended: it is warm."""
        one = self._told.setdefault(machine, Told())
        if at > one.ended_at:
            one.ended_at = at
            if at >= one.at:
                one.heat = "warm"

    @staticmethod
    def _turn(name: str, one: Told, down: bool, repair_at: int | None) -> list[str]:
        turned = one.down != down
        one.down, one.repair_at = down, repair_at
        return [name] if turned else []


def able(seconds: Mapping[str, float], machines: Machines, *, but: str = "") -> list[str]:
    """Machines that could do a task and are not broken."""
    return [name for name in seconds if name != but and not machines.is_down(name)]
