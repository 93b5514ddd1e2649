"""Every version of every model, and what became of it. One SQLite file, WAL, FULL.

    registry = Registry(Path("cloud-data/models.db"))
    made = registry.add(Draft(model="cell", graph=…, parameters=…, …), now=now, by="shoal", why="round 7")
    registry.version("cell", made.version); registry.data(made.graph.sha256); registry.history("cell")

A version with its artefacts and the first line of its history is there with one commit, or not at all; the same bytes
are there once, by their SHA-256. Numbers rise and are never used again. Two processes may use the file: the cloud, and
`shoal models`, which leaves an operator's *wish* that the cloud takes up.

Bounds: the last `keep` versions of a model stay, and those that run, are pinned or tried, with their parents; others
are pruned, oldest first, when one is added, and their room is used again. `EVENTS` lines of history per model, `WISHES`
wishes, `NODES` nodes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, RootModel

from cloud.book import Book
from cloud.versions import Draft, Event, Kind, Stage, Told, Version, Wish
from messages.errors import BrokenInvariant, UsageError
from messages.learning import Artefact

FILE = "models.db"
"""Its name in the cloud's data directory."""
KEEP = 20
EVENTS = 10_000
WISHES = 1_000
OPEN_WISHES = 100
"""Wishes nobody took up yet; a further one is refused."""
NODES = 10_000
LIFT = 1_000
"""Numbers that are passed over because of what one report says, at most."""

_TABLES = """
CREATE TABLE IF NOT EXISTS artefact(sha256 TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model(model TEXT PRIMARY KEY, next INTEGER NOT NULL, state BLOB, needed TEXT);
CREATE TABLE IF NOT EXISTS version(model TEXT NOT NULL, version INTEGER NOT NULL, document BLOB NOT NULL,
                                   graph TEXT NOT NULL, parameters TEXT, PRIMARY KEY(model, version));
CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, model TEXT NOT NULL, at INTEGER NOT NULL,
                                 version INTEGER NOT NULL, what TEXT NOT NULL, by TEXT NOT NULL, why TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_model ON event(model, id);
CREATE TABLE IF NOT EXISTS told(model TEXT NOT NULL, node TEXT NOT NULL, document BLOB NOT NULL,
                                payload BLOB NOT NULL, PRIMARY KEY(model, node));
CREATE TABLE IF NOT EXISTS wish(id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, kind TEXT NOT NULL,
                                version INTEGER, node TEXT, by TEXT NOT NULL, why TEXT NOT NULL, answer TEXT);
"""


class _Needed(RootModel[list[int]]):
    """Versions that must not be pruned."""


class Registry(Book):
    """The file."""

    def __init__(self, path: Path, *, keep: int = KEEP, make: bool = True) -> None:
        """UsageError if there is none and it is not to be made, or a newer Shoal wrote it."""
        if not make and not path.is_file():
            raise UsageError(f"no models at {path}: name the data directory of a cloud that has some, with --data")
        super().__init__(path, _TABLES)
        self._keep = keep

    # --- versions -------------------------------------------------------------------------------

    def add(self, one: Draft, *, now: int, by: str, why: str = "") -> Version:
        """A new version; the same bytes of the same origin again are the version they were."""
        graph = Artefact.of(one.graph)
        parameters = None if one.parameters is None else Artefact.of(one.parameters)
        with self.together():
            for known in reversed(self.versions(one.model)):
                if (known.origin, known.graph, known.parameters) == (one.origin, graph, parameters):
                    return known
            self._db.execute("INSERT OR IGNORE INTO model(model, next) VALUES(?, 1)", (one.model,))
            (number,) = self._db.execute(
                "UPDATE model SET next = next + 1 WHERE model = ? RETURNING next - 1", (one.model,)
            ).fetchone()
            facts = one.model_dump(exclude={"graph", "parameters"})
            made = Version(**facts, version=number, graph=graph, parameters=parameters, made_at=now)
            for artefact, data in ((graph, one.graph), (parameters, one.parameters)):
                if artefact is not None:
                    self._db.execute("INSERT OR IGNORE INTO artefact VALUES(?, ?)", (artefact.sha256, data))
            self._db.execute(
                "INSERT INTO version VALUES(?, ?, ?, ?, ?)",
                (one.model, number, made.encode(), graph.sha256, parameters.sha256 if parameters else None),
            )
            self.note(Event(now, one.model, number, "candidate", by, why or one.origin))
            self._prune(one.model)
        return made

    def versions(self, model: str) -> list[Version]:
        """Those kept, oldest first."""
        rows = self._db.execute("SELECT version, document FROM version WHERE model = ? ORDER BY version", (model,))
        return [self._version(model, number, document) for number, document in rows]

    def version(self, model: str, number: int) -> Version:
        """One of them; UsageError if it is not kept."""
        row = self._db.execute(
            "SELECT document FROM version WHERE model = ? AND version = ?", (model, number)
        ).fetchone()
        if row is None:
            there = ", ".join(str(one.version) for one in self.versions(model))
            raise UsageError(
                f"{model} has no version {number}; kept are {there}"
                if there
                else f"no model {model!r}; there are: {', '.join(self.models()) or 'none'}"
            )
        return self._version(model, number, row[0])

    def _version(self, model: str, number: int, document: bytes) -> Version:
        return self.whole(Version, document, table="version", row=f"{model} {number}")

    def newest(self, model: str) -> int:
        """The highest number kept; 0 if there is none."""
        (number,) = self._db.execute("SELECT max(version) FROM version WHERE model = ?", (model,)).fetchone()
        return number or 0

    def lift(self, model: str, version: int) -> None:
        """A node runs this version, which a file restored from a backup may not know: new numbers are higher. At most
        `LIFT` at a time, so that a node that lies does not use them up."""
        self._db.execute(
            "UPDATE model SET next = max(next, ? + 1) WHERE model = ? AND ? < next + ?", (version, model, version, LIFT)
        )

    def models(self) -> list[str]:
        """Their names."""
        return [name for (name,) in self._db.execute("SELECT DISTINCT model FROM version ORDER BY model")]

    def data(self, sha256: str) -> bytes:
        """The bytes of an artefact. BrokenInvariant if they are not those the digest names."""
        row = self._db.execute("SELECT data FROM artefact WHERE sha256 = ?", (sha256,)).fetchone()
        if row is None or Artefact.of(row[0]).sha256 != sha256:
            what = "is missing" if row is None else "was damaged"
            raise BrokenInvariant(f"{self._path}: artefact {sha256[:12]} {what}; restore a backup")
        return bytes(row[0])

    def mark(self, one: Version, stage: Stage, *, now: int, by: str, why: str, metrics: Mapping[str, float]) -> None:
        """A version enters a stage, with a line of history. `metrics` are added to those it has."""
        changed = one.model_copy(update={"stage": stage, "metrics": {**one.metrics, **metrics}})
        with self.together():
            self._db.execute(
                "UPDATE version SET document = ? WHERE model = ? AND version = ?",
                (changed.encode(), one.model, one.version),
            )
            self.note(Event(now, one.model, one.version, stage, by, why))

    def _prune(self, model: str) -> None:
        (text,) = self._db.execute("SELECT needed FROM model WHERE model = ?", (model,)).fetchone()
        needed = self.whole(_Needed, text or "[]", table="model", row=model).root
        kept = self.versions(model)
        parents = {one.parent for one in kept if one.version in needed}
        stay = {one.version for one in kept[-self._keep :]} | {*needed} | parents
        gone = [(model, one.version) for one in kept if one.version not in stay]
        self._db.executemany("DELETE FROM version WHERE model = ? AND version = ?", gone)
        if gone:
            self._db.execute(
                "DELETE FROM artefact WHERE sha256 NOT IN (SELECT graph FROM version) AND sha256 NOT IN "
                "(SELECT parameters FROM version WHERE parameters IS NOT NULL)"
            )

    # --- history --------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Keep a line of history."""
        self._db.execute(
            "INSERT INTO event(at, model, version, what, by, why) VALUES(?, ?, ?, ?, ?, ?)",
            (event.at, event.model, event.version, event.what, event.by, event.why[:500]),
        )
        self._db.execute(
            "DELETE FROM event WHERE model = ? AND id <= "
            "(SELECT id FROM event WHERE model = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (event.model, event.model, EVENTS),
        )

    def history(self, model: str, version: int | None = None, limit: int = EVENTS) -> list[Event]:
        """The last lines, oldest first."""
        rows = self._db.execute(
            "SELECT at, model, version, what, by, why FROM event WHERE model = ? AND version = ifnull(?, version) "
            "ORDER BY id DESC LIMIT ?",
            (model, version, limit),
        )
        return [Event(*row) for row in rows][::-1]

    # --- what releasing must not forget ---------------------------------------------------------

    def state(self, model: str) -> bytes | None:
        """What was kept last."""
        row = self._db.execute("SELECT state FROM model WHERE model = ?", (model,)).fetchone()
        return row[0] if row else None

    def keep_state(self, model: str, state: BaseModel, *, needed: Collection[int]) -> None:
        """Keep it, and which versions must not be pruned."""
        self._db.execute(
            "INSERT INTO model(model, next, state, needed) VALUES(?, 1, ?, ?) ON CONFLICT DO UPDATE "
            "SET state = excluded.state, needed = excluded.needed",
            (model, state.model_dump_json().encode(), json.dumps(sorted(needed))),
        )

    def told(self, model: str) -> dict[str, Told]:
        """What each node was last told."""
        rows = self._db.execute("SELECT node, document, payload FROM told WHERE model = ? ORDER BY node", (model,))
        return {
            node: self.whole(Told, document, table="told", row=f"{model} {node}").model_copy(update={"payload": said})
            for node, document, said in rows
        }

    def tell(self, model: str, told: Told) -> None:
        """Keep it before it is said."""
        document = told.model_copy(update={"payload": b""}).model_dump_json().encode()
        self._db.execute("INSERT OR REPLACE INTO told VALUES(?, ?, ?, ?)", (model, told.node, document, told.payload))

    def untell(self, model: str, node: str) -> None:
        """It is no node any more."""
        self._db.execute("DELETE FROM told WHERE model = ? AND node = ?", (model, node))

    # --- wishes ---------------------------------------------------------------------------------

    def wish(self, model: str, kind: Kind, *, version: int | None, node: str | None, by: str, why: str) -> int:
        """Leave one for the cloud; its number. UsageError if too many wait."""
        with self.together():
            (waiting,) = self._db.execute("SELECT count(*) FROM wish WHERE answer IS NULL").fetchone()
            if waiting >= OPEN_WISHES:
                raise UsageError(f"{waiting} wishes wait for the cloud; is it running? Start it, and ask again")
            self._db.execute(
                "DELETE FROM wish WHERE answer IS NOT NULL AND id <= (SELECT max(id) FROM wish) - ?", (WISHES,)
            )
            cursor = self._db.execute(
                "INSERT INTO wish(model, kind, version, node, by, why) VALUES(?, ?, ?, ?, ?, ?)",
                (model, kind, version, node, by, why),
            )
        return int(cursor.lastrowid or 0)

    def wishes(self, model: str) -> list[Wish]:
        """Those that wait, oldest first."""
        rows = self._db.execute("SELECT * FROM wish WHERE model = ? AND answer IS NULL ORDER BY id", (model,))
        return [Wish(*row) for row in rows]

    def answer(self, wish: int, text: str) -> None:
        """What came of it."""
        self._db.execute("UPDATE wish SET answer = ? WHERE id = ?", (text, wish))

    def answered(self, wish: int) -> str | None:
        """The answer, once there is one."""
        row = self._db.execute("SELECT answer FROM wish WHERE id = ?", (wish,)).fetchone()
        return row[0] if row else None
