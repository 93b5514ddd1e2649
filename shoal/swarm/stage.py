"""The stage of a simulated swarm: floor, nodes, judges, store and brokers around one queue of events.

stage = Stage(swarm); stage.run(watch); outcome = stage.outcome()
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from edge.delegate import Word
from firmware_sim.factory import Factory
from firmware_sim.settings import Breakdown, Variation
from messages.clock import SECOND
from messages.contracts import Action, Finished, OrderedJob, Record
from messages.dispatch.awaiting import longer
from messages.dispatch.task import Send, Task
from messages.negotiation import Agenda, Authority, Delegation, Workpiece, task_of
from messages.pace import pace_of
from shoal.swarm.answers import Reign
from shoal.swarm.cast import Node, Seat
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.disturb import Happening
from shoal.swarm.limit import Limit
from shoal.swarm.outcome import Look, Swarm, Trouble, Watch
from shoal.swarm.world import FLOOR, HAPPENING, Alarm, Wire, World

WILL_S = 20
"""A broker says so long after it last heard of a client that it is away."""


class Stage:
    """One swarm, from the first order to the last finished task."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm, self.plant = swarm, swarm.plant
        self.pace = pace_of(self.plant)
        self.rng = random.Random(swarm.seed)
        self.world = World(swarm.start)
        self.wire = Wire(self.world, swarm.scenario, self.rng)
        self.jobs: list[OrderedJob] = list(swarm.jobs)
        self.cancelled: dict[str, int] = {}
        self.chronicle = Chronicle(self.plant, self.jobs)
        self.factory = Factory(
            self.plant,
            start=swarm.start,
            seed=swarm.seed,
            variation=Variation(sigma=swarm.sigma),
            scenario=tuple(_breakdown(one) for one in swarm.scenario.happenings if one.kind == "breakdown"),
            products={job.job: job.product for job in self.jobs},
        )
        self.stored: list[Record] = []
        self.agendas: dict[str, Agenda] = {}
        self.online = dict.fromkeys(self.plant.nodes, True)
        self.kept: dict[tuple[str, str], Any] = {}
        self.batons: dict[str, Workpiece] = {}
        self.remembered = 0
        self.cut = False
        self.troubles: list[tuple[Trouble, Happening]] = []
        self.reigns: list[Reign] = []
        self.moved_at = swarm.start
        self.delegates = tuple(self.plant.nodes if swarm.delegates is None else swarm.delegates)
        no_judge = any(one.kind in ("cloud", "judge") for one in swarm.scenario.happenings)
        self.peers = bool(self.delegates) and no_judge
        """Whether the site's broker is simulated: only where the judge may be away."""
        self.nodes = {name: Node(self, name) for name in self.plant.nodes}
        self.seats: list[Seat] = []
        self.term = 0
        self.disk: list[Task] = []
        self.late_us = 0
        self.decisions = 0
        self._last_at = swarm.start + max((one.at_us for one in swarm.scenario.happenings), default=0)
        self.limit = Limit(self.plant, swarm.scenario, swarm.start)
        self.limit.expect(self.jobs)
        self.stopped = False
        """It came to its limit."""
        self._floor = Alarm(self.world, FLOOR, self._on_floor)
        for one in swarm.scenario.happenings:
            self.world.at(swarm.start + one.at_us, HAPPENING, partial(self._happen, one))
        self.begin_judging()

    def run(self, watch: Watch | None = None, *, most_events: int | None = None) -> None:
        """Until everything is done, nothing moves any more, or its limit is passed."""
        began = time.process_time(), time.perf_counter()
        seen = self.world.now
        self._floor.set(self.factory.next_event())
        while not self.over and self.world.step():
            if watch is not None and self.world.now > seen:
                seen = self.world.now
                if watch.wants(seen):
                    watch.look(self.look())
            if most_events is not None and self.world.events >= most_events:
                break
            if self.limit.passed(self.world.now, self.world.events):
                self.stopped = True
                break
        if watch is not None:
            watch.look(self.look())
        self.cpu_s, self.wall_s = time.process_time() - began[0], time.perf_counter() - began[1]

    @property
    def over(self) -> bool:
        """Whether all is done and said, or nothing has moved for longer than anything could wait."""
        if (
            self.world.now - max(self.moved_at, self.limit.quiet_until) > self.limit.patience_us
            and not self.chronicle.running
        ):
            return True
        if self.world.now < self._last_at or self.remembered < self.chronicle.done or self.chronicle.running:
            return False
        cloud = (seat for seat in self.seats if seat.alive and seat.host is None)
        return any(seat.agent.done and not seat.book.changed for seat in cloud)

    def look(self) -> Look:
        """The floor now."""
        tasks: dict[str, int] = {}
        judging = [seat for seat in self.seats if seat.alive]
        for seat in judging[:1]:
            for task in seat.book.tasks.values():
                tasks[task.state] = tasks.get(task.state, 0) + 1
        return Look(
            now=self.world.now,
            runs=self.chronicle.all_runs(),
            carries=tuple(self.chronicle.carries),
            downs=self.chronicle.all_downs(),
            troubles=tuple(trouble for trouble, _ in self.troubles),
            tasks=tasks,
            judge=" and ".join(seat.name for seat in judging) or "nobody",
        )

    # --- messages ------------------------------------------------------------------------------------

    def is_open(self, plane: str) -> bool:
        """Whether a node reaches that broker."""
        return not self.cut if plane == "cloud" else self.peers

    def to_judges(self, kind: str, node: str, message: Any, plane: str) -> None:
        """What a node says to whoever judges there."""
        if self.is_open(plane):
            for seat in self.seats:
                if seat.plane == plane and seat.alive:
                    self.wire.send(kind, seat.hear, (node, message))

    def say_agenda(self, node: str, agenda: Agenda, plane: str) -> None:
        """It is retained: whoever judges later reads it first. On the site's broker all nodes hear it."""
        if plane == "cloud":
            self.agendas[node] = agenda
        else:
            for name, other in self.nodes.items():
                if name != node:
                    self.wire.send("peer agenda", other.hear_peer, (node, agenda))
        self.to_judges("agenda", node, agenda, plane)

    def say_word(self, seat: Seat, word: Word) -> None:
        """Who judges, for all nodes, and for other judges on the same broker."""
        if seat.plane == "cloud":
            self.kept["judge", ""] = word
        for other in self.seats:
            if other is not seat and other.plane == seat.plane and other.alive:
                self.wire.send("judge", other.hear, ("", word.body))
        for node in self.nodes.values():
            if node is not seat.host:
                self.wire.send("judge", node.hear, (seat.plane, "judge", word))

    def to_node(self, seat: Seat, send: Send) -> None:
        """An offer or an award."""
        if send.what == "award" and seat.plane == "cloud":
            self.kept[send.node, send.task] = send.message
        self.wire.send(send.what, self.nodes[send.node].hear, (seat.plane, send.what, send.message))

    def tell_delegates(self, delegation: Delegation) -> None:
        """The open jobs, should they have to judge; retained."""
        for name in self.delegates:
            self.kept[name, "delegation"] = delegation
            self.wire.send("delegation", self.nodes[name].hear, ("cloud", "delegation", delegation))

    def retained(self, node: str) -> Iterator[tuple[str, str, Any]]:
        """What the cloud's broker has kept for a node."""
        judge = self.kept.get(("judge", ""))
        if judge is not None:
            yield "cloud", "judge", judge
        for (name, what), message in list(self.kept.items()):
            if name == node:
                yield "cloud", "delegation" if what == "delegation" else "award", message

    def hand_on(self, batons: Iterable[Workpiece]) -> None:
        """Workpieces with their histories, as a reader has them: of a lower revision it takes no notice."""
        for baton in batons:
            known = self.batons.get(baton.job)
            if known is None or baton.revision >= known.revision:
                self.batons[baton.job] = baton
            self.wire.counts["baton"] += 1

    def store(self, record: Record) -> None:
        """A record is on its way to the store; it is sent until it is there."""
        self.world.at(self.world.now + self.wire.late_us(), FLOOR, partial(self._stored, record))

    def act(self, device: str, action: Action) -> None:
        """What a node asks of a machine."""
        self.wire.send("action", partial(self._act, device), action)

    def presence(self, node: str) -> None:
        """Tell the judges whether a node is there: at once when it comes, after a while when it goes."""
        if self.nodes[node].up and not self.cut:
            self._present(node, online=True)
        else:
            self.world.at(self.world.now + WILL_S * SECOND, HAPPENING, partial(self._gone, node))

    # --- judges --------------------------------------------------------------------------------------

    def begin_judging(self, *, term: int | None = None, tasks: list[Task] | None = None) -> None:
        """A judge takes its seat, above every term that is known, or of a term of its own."""
        self.term = max(self.term, *(agenda.term for agenda in self.agendas.values()), 0) + 1 if term is None else term
        session = f"{self.rng.getrandbits(32):08x}"
        name = "cloud" if not self.seats else f"cloud ({len(self.seats) + 1})"
        self.reigns.append(Reign(name, self.term, self.world.now))
        seat = Seat(self, name, Authority(self.term, session), self.disk if tasks is None else tasks)
        self.seats.append(seat)
        seat.begin()

    def begun_itself(self, jobs: list[OrderedJob]) -> None:
        """A judge began jobs that nobody ordered, for components that are short."""
        known = {one.job for one in self.jobs} if jobs else set()
        for job in jobs:
            if job.job not in known:
                self.jobs.append(job)
                self.chronicle.add(job)
        if jobs:
            self.limit.expect(self.jobs)

    def fenced(self, seat: Seat) -> None:
        """A higher judge was heard of. Where nobody else judges here, it begins again above that one."""
        self.end_judging(seat, fenced=True)
        if seat.host is None and not any(one.alive and one.host is None for one in self.seats):
            self.late_us = longer(self.late_us, self.pace)
            pause_us = round(self.pace.delegate_s * SECOND) + self.late_us
            self.world.at(self.world.now + pause_us, HAPPENING, self._begin_again)

    def end_judging(self, seat: Seat, *, fenced: bool = False) -> None:
        """A seat is empty; its disk stays, a delegate has none."""
        if seat.host is None:
            self.disk, self.late_us = seat.disk, seat.book.late_us
        reign = self.reigns[self.seats.index(seat)]
        reign.end, reign.fenced = self.world.now, fenced
        self.decisions += seat.agent.decisions
        seat.end()

    def _begin_again(self) -> None:
        if not any(seat.alive and seat.host is None for seat in self.seats):
            self.begin_judging()

    def delegate(self, host: Node) -> None:
        """A node judges from now on."""
        authority = host.standing.begin(f"{self.rng.getrandbits(32):08x}")
        seat = Seat(self, host.name, authority, [], host)
        self.reigns.append(Reign(host.name, authority.term, self.world.now))
        self.seats.append(seat)
        seat.adopt(host.standing)

    def host_is_away(self, name: str) -> None:
        """A node crashed: if it judged, it does no more."""
        for seat in self.seats:
            if seat.alive and seat.host is not None and seat.host.name == name:
                self.end_judging(seat)

    # --- the floor -----------------------------------------------------------------------------------

    def _act(self, device: str, action: Action) -> None:
        self.factory.act(device, action, self.world.now)
        self._floor.set(self.world.now)

    def _on_floor(self) -> None:
        now = self.world.now
        self.factory.advance(now)
        for machine in self.factory.talking():
            events = self.factory.drain(machine)
            self.moved_at = now
            for event in events:
                self.chronicle.on_event(machine, event)
            self.world.at(now, FLOOR, partial(self._see, machine, events))
        carried = self.factory.logistics.carried
        while carried:
            self.chronicle.on_trip(carried.popleft())
        self._floor.set(self.factory.next_event())

    def _see(self, machine: str, events: list[Any]) -> None:
        self.nodes[self.plant.node_of(machine)].see(machine, events)

    def _stored(self, record: Record) -> None:
        self.stored.append(record)
        if isinstance(record, Finished):
            self.remembered += 1
            node = self.plant.node_of(record.machine)
            task = task_of(record.job, record.op)
            if self.kept.pop((node, task), None) is not None:
                self.wire.send("cleared", self.nodes[node].hear, ("cloud", "cleared", task))
        for seat in self.seats:
            if seat.host is None:
                seat.record(record)

    def _present(self, node: str, *, online: bool) -> None:
        self.online[node] = online
        for seat in (seat for seat in self.seats if seat.host is None):
            seat.presence(node, online)

    def _gone(self, node: str) -> None:
        if not self.nodes[node].up or self.cut:
            self._present(node, online=False)

    # --- what befalls it -----------------------------------------------------------------------------

    def _happen(self, one: Happening) -> None:
        self.moved_at = self.world.now
        self.troubles.append((Trouble(self.world.now, one.kind, one.what), one))
        back = partial(self.world.at, self.world.now + one.lasts_us, HAPPENING)
        if one.kind == "node" and one.node is not None:
            node = self.nodes[one.node]
            if node.up:
                node.crash()
                self.presence(one.node)
                back(node.wake)
        elif one.kind == "judge":
            for seat in [seat for seat in self.seats if seat.alive and seat.host is None]:
                self.end_judging(seat)
            back(self._begin_again)
        elif one.kind == "rival":
            alive = [seat for seat in self.seats if seat.alive and seat.host is None]
            known = self.rng.random() < 0.5
            self.begin_judging(term=self.term + self.rng.choice((0, 1)), tasks=alive[0].disk if alive and known else [])
        elif one.kind == "cloud":
            self.cut = True
            for name in self.nodes:
                self.presence(name)
            back(self._reach)
        elif one.kind == "rush" and one.job is not None:
            due = self.world.now + one.lasts_us
            job = OrderedJob(job=one.job, product=one.product or one.job, due_at=due)
            self.jobs.append(job)
            self.limit.expect(self.jobs)
            self.chronicle.add(job)
            self.factory.expect(job.job, job.product)
            for seat in (seat for seat in self.seats if seat.host is None):
                seat.add(job)
        elif one.kind == "cancel" and one.job is not None:
            self.cancelled[one.job] = self.world.now
            for seat in (seat for seat in self.seats if seat.host is None):
                seat.cancel(one.job)

    def _reach(self) -> None:
        """The cloud is there again."""
        self.cut = False
        self.moved_at = self.world.now
        for seat in self.seats:
            if seat.alive and seat.host is None:
                for send in seat.book.on_connect():
                    self.to_node(seat, send)
        for node in self.nodes.values():
            node.reconnect()


def _breakdown(one: Happening) -> Breakdown:
    return Breakdown(machine=one.machine, at_s=one.at_s, repair_h=max(one.lasts_s, 1.0) / 3600)
