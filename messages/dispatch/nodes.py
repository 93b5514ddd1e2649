"""The nodes of a site as a judge's book knows them: whose machine is whose, who is there, what each says it holds.

    nodes = Nodes({"lathe-1": "cell-1", …})
    nodes.on_presence("cell-1", True); nodes.on_agenda("cell-1", agenda)
    nodes.is_there("lathe-1"), nodes.listed("cell-1"), nodes.elsewhere(task, but="cell-1")

Of a node's agendas the newest counts: by its judge, then by its revision or its time. A node whose disk is new counts
revisions from the start, and its time goes on; one whose clock is set back counts on.

Bounds: the last agenda of every node; `MAX_FOREIGN` machines that are not in the plant, which a node with a newer plant
speaks of. Of more nobody is told anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from messages.dispatch.task import Key, Task
from messages.negotiation import Agenda, Held

MAX_FOREIGN = 1_000
"""Machines beyond those of the plant that nodes may speak of."""


class Nodes:
    """Of one site."""

    def __init__(self, node_of: Mapping[str, str]) -> None:
        self.node_of = dict(node_of)
        """Machine → node."""
        self.planned = frozenset(self.node_of.values())
        """Those the plant has."""
        self.agendas: dict[str, Agenda] = {}
        self.online: dict[str, bool] = {}
        self._most = MAX_FOREIGN + len(self.node_of)
        self._listed: dict[str, dict[Key, Held]] = {}

    def of(self, machine: str | None) -> str:
        """The node of a machine; empty: nobody has said whose it is."""
        return self.node_of.get(machine or "", "")

    def is_there(self, machine: str | None) -> bool:
        """Whether the node of a machine is online."""
        return self.is_online(self.of(machine))

    def is_online(self, node: str) -> bool:
        """Whether a node is there."""
        return self.online.get(node, False)

    @property
    def away(self) -> frozenset[str]:
        """Nodes of the plant that are not online."""
        return frozenset(node for node in self.planned if not self.is_online(node))

    @property
    def all_there(self) -> bool:
        """Whether no node is away."""
        return all(self.is_online(node) for node in self.planned)

    def on_presence(self, node: str, online: bool) -> bool:
        """A node came or went; whether that is news."""
        news = self.online.get(node) != online
        self.online[node] = online
        return news

    def on_agenda(self, node: str, agenda: Agenda) -> bool:
        """What a node says; False: an older one than known, and nothing has changed."""
        known = self.agendas.get(node)
        if known is not None and not _is_newer(agenda, known):
            return False
        self.agendas[node] = agenda
        self._listed[node] = {
            (one.job, one.op): one
            for one in agenda.awards
            if one.state == "finished" or self.node_of.get(one.machine, node) == node
        }
        return True

    def learn(self, machine: str, node: str) -> None:
        """A node with a newer plant than this judge's has machines this one has not heard of."""
        if machine not in self.node_of and len(self.node_of) < self._most:
            self.node_of[machine] = node

    def listed(self, node: str) -> Mapping[Key, Held]:
        """What a node said last that it has, or has finished."""
        return self._listed.get(node, {})

    def lists_of(self, key: Key) -> list[tuple[Held, int]]:
        """What nodes said of one task, and when, by their own clocks."""
        return [(listed[key], self.agendas[node].at) for node, listed in self._listed.items() if key in listed]

    def elsewhere(self, task: Task, *, but: str) -> list[tuple[str, Held]]:
        """Other nodes that say they hold it, by awards they have not let go since; the latest award first."""
        found = []
        for node in {self.of(machine) for machine in task.seconds} - {but}:
            one = self.listed(node).get(task.key)
            if one is not None and one.state == "held" and one.counter > task.let_go.get(node, -1):
                found.append((node, one))
        return sorted(found, key=lambda pair: (-pair[1].counter, pair[0]))


def _is_newer(agenda: Agenda, known: Agenda) -> bool:
    if agenda.authority != known.authority:
        return agenda.authority > known.authority
    return agenda.revision > known.revision or agenda.at > known.at
