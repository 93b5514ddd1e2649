"""Which artefacts the broker may retain, so that those nobody needs any more are taken back, also after a restart.

    shown = RetainedArtefacts(path)
    shown.show(artefact)                    # on the disk before its first part is published
    for one in shown.old(needed): …         # take its parts back, then shown.gone(one)

A broker that was killed may come back with what was taken back since its last snapshot: after a connect, `old` with
`again` names the last ones once more. Bound: those needed, and `KEPT` others.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from cloud.book import Book
from messages.learning import Artefact

KEPT = 64


class RetainedArtefacts(Book):
    """What was published."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            "CREATE TABLE IF NOT EXISTS shown(id INTEGER PRIMARY KEY, sha256 TEXT UNIQUE NOT NULL, "
            "size INTEGER NOT NULL, gone INTEGER NOT NULL);",
        )

    def show(self, artefact: Artefact) -> None:
        """About to be published."""
        self._db.execute(
            "INSERT OR REPLACE INTO shown(sha256, size, gone) VALUES(?, ?, 0)", (artefact.sha256, artefact.size)
        )

    def old(self, needed: Collection[Artefact], *, again: bool = False) -> list[Artefact]:
        """Those that may be retained and are not needed; `again`: also those taken back before."""
        rows = self._db.execute("SELECT sha256, size FROM shown WHERE gone <= ? ORDER BY id", (int(again),))
        found = [self._artefact(*row) for row in rows]
        return [one for one in found if one not in needed]

    def _artefact(self, sha256: str, size: int) -> Artefact:
        try:
            return Artefact(sha256=sha256, size=size)
        except ValidationError:
            raise self.damaged("shown", sha256, "no digest and size of an artefact") from None

    def gone(self, artefact: Artefact) -> None:
        """Taken back."""
        with self.together():
            self._db.execute("UPDATE shown SET gone = 1 WHERE sha256 = ?", (artefact.sha256,))
            self._db.execute(
                "DELETE FROM shown WHERE gone AND id <= (SELECT id FROM shown ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )
