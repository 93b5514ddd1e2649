"""Whose word on models counts: a report is believed if the node's own key signed it, and it is not an old one.

    gate = ReportGate(path, roster)
    with gate.together():                            # one commit for a batch
        gate.believes("press-4", report, payload)    # False: told once for each node and reason, and counted
    gate.refuse("press-4", "size", "…"); gate.unknown("press-4", "…"); gate.forget("press-4"); gate.refused

Releases are promoted and taken back by these words, so they are held to what updates are: the key is the roster's, the
name that signed is that of the topic. A report's number is remembered on the disk, for each model and with the key it
was signed by: a lower one is old, or was recorded and sent again, also by a cloud that has just begun; the same again
says the same. Another key (a new disk) begins anew. Figures that no cell can have are no word either: sums of them
would be no numbers. Bounds: `MODELS` models of a node whose key is known; what was told
of `NODES` nodes.
"""

from __future__ import annotations

from pathlib import Path

from cloud.book import Book
from cloud.early_reports import MODELS
from cloud.roster import NODES, Roster
from messages.errors import BadMessage
from messages.learning import ModelReport
from messages.logs import get_logger
from messages.signing import verify

MOST, MOST_M2, MOST_COUNT = 1e30, 1e80, 2**53
"""Of a figure per decision, of a sum of squares, of a count: far beyond any cell, and sums of them stay numbers."""

log = get_logger("learning")


class ReportGate(Book):
    """Of one site; in the file of its nodes."""

    def __init__(self, path: Path, roster: Roster) -> None:
        super().__init__(
            path,
            "CREATE TABLE IF NOT EXISTS heard(node TEXT NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL, "
            "seq INTEGER NOT NULL, PRIMARY KEY(node, model)) WITHOUT ROWID;",
        )
        self._roster = roster
        self._told: dict[str, set[str]] = {}
        self.refused = 0
        """reports that were not believed"""
        texts = roster.texts
        self._heard: dict[str, dict[str, int]] = {}
        rows = self._db.execute("SELECT node, model, key, seq FROM heard").fetchall()
        for node, model, key, seq in rows:
            if texts.get(node) == key:
                self._heard.setdefault(node, {})[model] = seq
        gone = [(node,) for node in {row[0] for row in rows} - self._heard.keys()]
        self._db.executemany("DELETE FROM heard WHERE node = ?", gone)

    def believes(self, node: str, report: ModelReport, payload: bytes) -> bool:
        """Whether what came on the topic of this node, whose key is known, is its own newest word; then it is kept."""
        signer = report.sig.partition(":")[0]
        if not signer:
            why = "it is not signed: an older Shoal runs there, or another speaks in its name; update the node"
            return self.refuse(node, "unsigned", why)
        if signer != node:
            return self.refuse(node, "signer", f"it is signed as {signer[:32]!r}; give every node a name of its own")
        try:
            verify(payload, {node: self._roster.keys[node]})
        except BadMessage:
            cure = f'if it has a new one (a new disk), name it in the cloud\'s settings: [learning.keys] "{node}"'
            return self.refuse(node, "signature", f"it is not signed by the key that is known; {cure}")
        if not _can_be(report):
            why = f"a figure is beyond {MOST:g}, or a count beyond 2^53; look at the sensors that it earns and emits by"
            return self.refuse(node, "figures", why)
        mine = self._heard.setdefault(node, {})
        known = mine.get(report.model)
        if known is None and len(mine) >= MODELS:
            return self.refuse(node, "models", f"of {report.model!r}: {MODELS} models of a node are listened to")
        if known is not None and report.seq < known:
            why = "it is old, or was recorded and sent again"
            return self.refuse(node, "replay", f"its number {report.seq} is below {known}, which was believed: {why}")
        if known != report.seq:
            mine[report.model] = report.seq
            text = self._roster.text(node)
            self._db.execute("INSERT OR REPLACE INTO heard VALUES(?, ?, ?, ?)", (node, report.model, text, report.seq))
        return True

    def refuse(self, node: str, reason: str, why: str) -> bool:
        """Counted, and told the first time; False."""
        self.refused += 1
        self._tell(node, reason, why)
        return False

    def unknown(self, node: str, why: str) -> None:
        """What it said waits for its key: told the first time. It is not refused yet."""
        self._tell(node, "unknown", why)

    def _tell(self, node: str, reason: str, why: str) -> None:
        if node in self._told or len(self._told) < NODES:
            told = self._told.setdefault(node, set())
            if reason not in told:
                told.add(reason)
                log.warning("learning.report_refused", node=node, reason=reason, why=why, refused=self.refused)

    def forget(self, node: str) -> None:
        """It retired. Numbers stay as long as its key is known: what it said once must not come again."""
        self._told.pop(node, None)
        if node not in self._roster.keys and self._heard.pop(node, None) is not None:
            self._db.execute("DELETE FROM heard WHERE node = ?", (node,))


def _can_be(report: ModelReport) -> bool:
    arms, pairs = report.arms, report.pairs
    figures = [x for arm in arms for x in (arm.mean, arm.cost)] + [x for one in pairs for x in (one.mean, one.cost)]
    squares = [arm.m2 for arm in arms] + [x for one in pairs for x in (one.m2, one.cost_m2)]
    counts = [x for arm in arms for x in (arm.decisions, arm.blocks, arm.trips, arm.non_finite)]
    return (
        all(abs(one) <= MOST for one in (*figures, report.cost_limit or 0.0))
        and all(one <= MOST_M2 for one in squares)
        and all(one <= MOST_COUNT for one in (*counts, *(one.pairs for one in pairs)))
    )
