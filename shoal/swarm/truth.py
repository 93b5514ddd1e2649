"""What machines really said, read from the simulator's truth file while it is written.

    tail = Tail(files.truth, chronicle); tail.read()

Only whole lines are read; a machine's events are told once, in the order in which it cut them.
"""

from __future__ import annotations

import json
from pathlib import Path

from messages.contracts import Burst
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.outcome import Carry


class Tail:
    """A truth file, followed into a chronicle."""

    def __init__(self, path: Path, chronicle: Chronicle) -> None:
        self.path, self.chronicle = path, chronicle
        self.events = 0
        self.last_at = 0
        """When something last happened, µs of plant time."""
        self._at = 0

    def read(self) -> bool:
        """What was added since; whether anything happened."""
        if not self.path.exists():
            return False
        before = self.events
        with self.path.open("rb") as lines:
            lines.seek(self._at)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                if b'"events":[{' in line:
                    self._take(line)
        return self.events > before

    def _take(self, line: bytes) -> None:
        found = json.loads(line)
        for event in Burst.model_validate(found["sent"]).events:
            self.events += 1
            self.last_at = max(self.last_at, event.at)
            self.chronicle.on_event(found["device"], event)


def carried(summary: Path) -> list[Carry]:
    """What was carried, from the floor's own summary; a part handed on directly was not."""
    if not summary.exists():
        return []
    found = json.loads(summary.read_text(encoding="utf-8")).get("carried", [])
    return [
        Carry(
            vehicle=-1 if one["vehicle"] is None else one["vehicle"],
            job=one["job"],
            from_=one["from"],
            to=one["to"],
            departs=one["departs"],
            loads=one["loads"],
            arrives=one["arrives"],
        )
        for one in found
        if one["from"] is not None and one["arrives"] > one["loads"]
    ]
