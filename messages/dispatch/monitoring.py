"""The monitoring agent: what records, agendas and the judge's book say, as one view of the whole site for the others.

    monitor = Monitor(node_of)
    monitor.on_record(record)
    view = monitor.view(book, batons=pieces.states(), now=now)      # None: as it was last said

Pure. Of a machine the newest word counts: its node's agenda, or the record of a state it entered; of a machine whose
node is away nothing is known. Times worked are those of the records read; a run of more than `LONGEST_RUN_S` was
measured by a clock that was set in between, and is not counted. A revision is the plant time at which the
view was said, or one more than the last: whoever judges later says higher ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from messages.clock import SECOND
from messages.contracts import Finished, Interrupted, Record, StateChanged
from messages.dispatch.tenders import Tenders
from messages.negotiation import Agenda, Held, MachineView, ShopView

MAX_STUCK = 1_000
"""Jobs that block each other, or of which work was done twice, that a view names; the first ones."""
LONGEST_RUN_S = 31 * 86_400.0
"""Longer work is none that a machine did: its clock began at 1970, say, and was right when the work ended."""
MOST_WORKED_S = 1e9
"""What a view can say that a machine has worked; from there on it says that."""


class Monitor:
    """The view of one site."""

    def __init__(self, node_of: Mapping[str, str], *, first_revision: int = 0) -> None:
        """`node_of`: machine → node; revisions are above `first_revision`."""
        self.node_of = dict(node_of)
        self.revision = first_revision
        self._entered: dict[str, StateChanged] = {}
        self._worked_us: dict[str, int] = {}
        self._said: ShopView | None = None

    @property
    def said(self) -> ShopView | None:
        """The last view."""
        return self._said

    def on_record(self, record: Record) -> None:
        """What a machine did; records may overtake each other."""
        match record:
            case StateChanged():
                known = self._entered.get(record.machine)
                if known is None or record.at >= known.at:
                    self._entered[record.machine] = record
            case Finished() | Interrupted():
                worked = record.at - record.started_at
                if 0 < worked <= LONGEST_RUN_S * SECOND:
                    self._worked_us[record.machine] = self._worked_us.get(record.machine, 0) + worked

    def view(
        self,
        book: Tenders,
        *,
        batons: Mapping[str, int],
        now: int,
        stuck: Sequence[str] = (),
        inventory: Mapping[str, int] | None = None,
    ) -> ShopView | None:
        """The site as it is now; None where nothing is otherwise than last time."""
        held: dict[str, list[Held]] = {}
        for agenda in book.nodes.agendas.values():
            for one in agenda.awards:
                held.setdefault(one.machine, []).append(one)
        view = ShopView(
            term=book.authority.term,
            session=book.authority.session,
            revision=self.revision,
            at=now if self._said is None else self._said.at,
            machines={name: self._machine(name, book, held.get(name, [])) for name in self.node_of},
            nodes={node: book.nodes.is_online(node) for node in sorted(set(self.node_of.values()))},
            jobs=dict(batons),
            tasks=dict(Counter(task.state for task in book.tasks.values())),
            stuck=list(stuck[:MAX_STUCK]),
            twice=sorted(book.twice)[:MAX_STUCK],
            inventory=dict(inventory or {}),
        )
        if view == self._said:
            return None
        self.revision = max(self.revision + 1, now)
        self._said = view.model_copy(update={"revision": self.revision, "at": now})
        return self._said

    def _machine(self, name: str, book: Tenders, held: Sequence[Held]) -> MachineView:
        node = self.node_of[name]
        agenda = book.nodes.agendas.get(node)
        running = next((one for one in reversed(held) if one.state == "started"), None)
        state, repair_at = self._state(name, agenda, running)
        return MachineView(
            node=node,
            state=state if book.nodes.is_online(node) else "unknown",
            job=running.job if running else None,
            op=running.op if running else None,
            waiting=sum(one.state == "held" for one in held),
            free_at=agenda.free_at.get(name) if agenda else None,
            repair_at=repair_at,
            worked_s=min(MOST_WORKED_S, round(self._worked_us.get(name, 0) / SECOND, 3)),
            wear=agenda.wear.get(name) if agenda else None,
        )

    def _state(self, name: str, agenda: Agenda | None, running: Held | None) -> tuple[str, int | None]:
        entered = self._entered.get(name)
        if agenda is None or (entered is not None and entered.at > agenda.at):
            return (entered.state, entered.repair_at) if entered else ("off", None)
        if name in agenda.down:
            return "down", agenda.down[name]
        if running is not None:
            return "work", None
        if entered is not None and entered.state not in ("work", "down"):
            return entered.state, None
        return ("idle" if name in agenda.warm or entered is not None else "off"), None
