"""Who learns at a site, and what is held against whom: read from the files in the cloud's data directory.

nodes_of(Path("cloud-data"))     # [{"node": "press-4", "key": "…", "strikes": 0, "quarantined": None, …}, …]
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from cloud.roster import Roster
from cloud.roundbook import RoundBook
from cloud.site_learning import NODES_FILE, ROUNDS_FILE
from messages.errors import UsageError

LAST = 100
"""Closed rounds in which nodes are looked for."""


def nodes_of(data: Path, model: str) -> list[dict[str, Any]]:
    """Every node that is known by a key of its own, took part in a round, or has something against it."""
    path = data / ROUNDS_FILE
    if not path.is_file():
        raise UsageError(f"no rounds at {path}: name the data directory of a cloud that learns, with --data")
    try:
        with closing(RoundBook(path)) as book:
            state, closed = book.state(), book.history(LAST)
        keys: dict[str, str] = {}
        if (data / NODES_FILE).is_file():
            with closing(Roster(data / NODES_FILE, told={}, enrol="first")) as roster:
                keys = roster.texts
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{data}: not rounds as Shoal keeps them ({error}); restore a backup") from None
    if state.current is not None and state.current.model != model:
        raise UsageError(f"rounds here are of {state.current.model!r}, not of {model!r}")
    taken = {node: one.round for one in closed if one.closed for node in one.closed.taken}
    names = {*keys, *taken, *state.gate.nodes, *state.expected}
    names |= {node for one in closed if one.closed for node in (*one.closed.late, *one.closed.refused)}
    found = []
    for node in sorted(names):
        held = state.gate.nodes.get(node)
        found.append(
            {
                "node": node,
                "key": keys.get(node),
                "taken": taken.get(node),
                "strikes": held.strikes if held else 0,
                "quarantined": held.quarantined if held else None,
                "evidence": [f"round {one.round}, {one.reason}: {one.text}" for one in held.evidence] if held else [],
            }
        )
    return found
