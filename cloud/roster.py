"""Who may learn together: nodes whose key is known, and which of them are there now.

    roster = Roster(path, told=settings.keys, enrol="first")
    roster.on_capability("press-4", capability, now)     # None, or why its key is not taken
    roster.on_presence("press-4", online=True)
    roster.keys                                          # node → key; the same mapping, as it changes
    roster.able                                          # known and there
    roster.on_time(now); roster.forget("press-4")        # who waited is enrolled; who retired is no more

A key of the settings counts, whatever a node shows. With `enrol = "first"` the first key that another node shows is
its key from then on, kept in the file; who shows another one later is refused: a broker's access rules say whose topic
it is, and this says that it is still the same machine. A node that retires is forgotten. Bounds: `NODES` nodes, further
ones are refused; `PER_MINUTE` are enrolled, further ones wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.book import Book
from messages.clock import SECOND
from messages.signing import public_key

NODES = 10_000
PER_MINUTE = 120
"""Nodes that are enrolled; each is a commit, and rounds and releases wait for it."""


class Roster(Book):
    """The nodes of one site."""

    def __init__(self, path: Path, *, told: Mapping[str, str], enrol: Literal["settings", "first"]) -> None:
        super().__init__(
            path, "CREATE TABLE IF NOT EXISTS node(node TEXT PRIMARY KEY, key TEXT NOT NULL, at INTEGER NOT NULL);"
        )
        rows = dict(self._db.execute("SELECT node, key FROM node")) if enrol == "first" else {}
        self._enrol = enrol
        self._texts: dict[str, str] = {**rows, **told}
        self.keys: dict[str, Ed25519PublicKey] = {node: self._key(node, text) for node, text in self._texts.items()}
        self.online: set[str] = set()
        self._told = dict(told)
        self._refused: dict[str, str] = {}
        self._changes: dict[str, int] = {}
        """how often a node came to show a key that is not taken"""
        self._waiting: dict[str, str] = {}
        self._minute, self._in_minute = 0, 0

    def _key(self, node: str, text: str) -> Ed25519PublicKey:
        try:
            return public_key(text)
        except (ValueError, TypeError) as error:
            raise self.damaged("node", node, str(error)) from None

    @property
    def texts(self) -> dict[str, str]:
        """Node → its key, as it is written in settings."""
        return dict(self._texts)

    def text(self, node: str) -> str | None:
        """The same of one node, if its key is known."""
        return self._texts.get(node)

    @property
    def able(self) -> set[str]:
        """Nodes that are there and whose key is known."""
        return self.online & self.keys.keys()

    @property
    def doubted(self) -> set[str]:
        """Those of whom a key was shown that is not believed. Anybody may have shown it: what they sign is judged."""
        return set(self._refused)

    def forget(self, node: str) -> None:
        """It is no node any more: its place is free. A key of the settings stays."""
        self.online.discard(node)
        self._refused.pop(node, None)
        self._changes.pop(node, None)
        self._waiting.pop(node, None)
        if node in self._texts and node not in self._told:
            self._db.execute("DELETE FROM node WHERE node = ?", (node,))
            del self._texts[node], self.keys[node]

    def on_time(self, now: int) -> list[str]:
        """Those that waited to be enrolled, and are now."""
        found = []
        for node, shown in list(self._waiting.items()):
            if not self._may_enrol(now):
                break
            del self._waiting[node]
            if self._objection(node, shown, self._texts.get(node)) is None:
                self._enrolled(node, shown, now)
                found.append(node)
        return found

    def on_presence(self, node: str, *, online: bool) -> None:
        """Whether its connection is up."""
        if not online:
            self.online.discard(node)
        elif len(self.online) < NODES:
            self.online.add(node)

    def on_capability(self, node: str, shown: str | None, now: int) -> str | None:
        """The key that a node shows. None: it is the known one, or is from now on; else why not, said once, and of
        ever other keys ever more seldom: anybody may show them."""
        known = self._texts.get(node)
        if shown is None or shown == known:
            self._refused.pop(node, None)
            return None
        why = self._objection(node, shown, known)
        if why is None:
            if not self._may_enrol(now):
                self._waiting[node] = shown
            else:
                self._enrolled(node, shown, now)
            return None
        if self._refused.get(node) == shown or len(self._refused) >= NODES:
            return None
        self._refused[node] = shown
        if node not in self._changes and len(self._changes) >= NODES:
            return None
        changes = self._changes[node] = self._changes.get(node, 0) + 1
        return why if changes & (changes - 1) == 0 else None  # the 1st, 2nd, 4th, 8th …

    def _may_enrol(self, now: int) -> bool:
        if not 0 <= now - self._minute < 60 * SECOND:
            self._minute, self._in_minute = now, 0
        return self._in_minute < PER_MINUTE

    def _enrolled(self, node: str, shown: str, now: int) -> None:
        self._db.execute("INSERT INTO node VALUES(?, ?, ?)", (node, shown, now))
        self._texts[node], self.keys[node] = shown, public_key(shown)
        self._in_minute += 1
        self._waiting.pop(node, None)

    def _objection(self, node: str, shown: str, known: str | None) -> str | None:
        cure = f'if it is the same machine, say so in the cloud\'s settings: [learning.keys] "{node}" = "{shown[:64]}"'
        try:
            public_key(shown)
        except ValueError as error:
            return f"{node} shows a key that is none ({error})"
        if known is not None:
            where = "the settings name" if node in self._told else "it showed at first"
            return f"{node} shows another key than {where}; {cure}"
        if self._enrol == "settings":
            return f'{node} is not known; {cure}, or enrol = "first"'
        return f"{node}: {NODES} nodes are known already" if len(self.keys) + len(self._waiting) >= NODES else None
