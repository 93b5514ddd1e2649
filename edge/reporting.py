"""What a node says of its models: numbered, signed with its own key, and retained at the broker.

    reporting = Reporting(node, bus, key, first=first_number(files, now), every_s=60.0)
    reporting.say([report]); reporting.due(report)       # at once; or only if its figures are old and have changed

The cloud promotes and takes back releases by these words, so it believes what is signed by the node's key alone, and
nothing that is older than what it believed: numbers rise from report to report, also over a restart and under a clock
that was set back. A block of `BLOCK` numbers is kept on the disk when the node starts, and none for a report; a clock
lifts them where that file was lost. A signature is 0.1 ms of a core, made after the actions of a moment have gone out.
Bounds: the last report of each model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge.files import Files
from messages.bus import Bus
from messages.clock import SECOND
from messages.errors import StoreDown
from messages.learning import ModelReport
from messages.logs import get_logger
from messages.routes import MODEL_REPORT
from messages.signing import SigningKey, sign

if TYPE_CHECKING:
    from edge.node import Node

NUMBERS = "reports.next"
"""The file: the first number of the next start."""
BLOCK = 2**30
"""Numbers of one start: 34 years of a report a second."""

log = get_logger("edge")


def first_number(files: Files, now: int) -> int:
    """Of the reports of this start, higher than those of every earlier one; on a full disk, than the clock (µs)."""
    kept = files.get(NUMBERS) or b""
    first = max(int(kept) if kept.isdigit() else 0, now)
    try:
        files.put(NUMBERS, b"%d" % (first + BLOCK))
    except StoreDown as error:
        log.error("edge.learning_not_kept", why=str(error), times=0)
    return first


class Reporting:
    """Of one node."""

    def __init__(self, node: Node, bus: Bus, key: SigningKey, *, first: int, every_s: float) -> None:
        """`every_s`: figures alone are said so often (plant time)."""
        self._node, self._bus, self._key = node, bus, key
        self._next, self._every_us = first, every_s * SECOND
        self._said: dict[str, tuple[int, ModelReport]] = {}

    def say(self, reports: Iterable[ModelReport]) -> None:
        """Now. What is lost with the connection is said again after the next connect."""
        for report in reports:
            numbered = report.model_copy(update={"seq": self._next})
            self._next += 1
            payload = sign(numbered, self._key, name=self._node.node)
            if self._node.send(self._bus, MODEL_REPORT, numbered, payload, model=report.model):
                self._said[report.model] = report.at, report

    def due(self, report: ModelReport) -> None:
        """If it says something else than the last one, and that is old; a clock may be set back."""
        said_at, last = self._said.get(report.model, (0, None))
        same = last is not None and report == last.model_copy(update={"at": report.at})
        if not same and abs(report.at - said_at) >= self._every_us:
            self.say([report])
