"""The cells of a node on the bus: bursts in, actions out, and beside that rounds, releases and what is said of them.

    agents = Agents(node, cells, models, worker, settings, keys=keys, connect=connect)
    node.first.append(agents.on_bursts)      # asked before anything is kept
    agents.listen(); …; agents.run() as a task; await agents.on_tick(now)

Deciding never waits: not for the disk (in real time cells are heard on a connection of their own as well, because
whoever keeps bursts may wait for a commit before the next ones are handled; what comes twice is decided once), and not
for the learner, which works in a thread of its own, `SLICE` steps at a time and half of the time. In lock step a tick
ends when the actions for everything that had come are with the broker, what rounds and releases need has come
(`FETCH_S` of real time at most), and `TICK_STEPS` steps are made or nothing is left to learn: how far a learner comes
then depends on plant time alone.

What the cloud says of learning comes on a connection of its own, and artefacts on another
(`edge.artefact_fetching`). Updates go out until the broker has them (`edge.posting`), and again whenever their open
round is said again. Reports are signed and retained (`edge.reporting`): they are said when something changes, after
every connect, and figures alone every `report_s`. Bounds: what waits here is one update and one report per model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.agent import Agent, Newest
from edge.artefact_fetching import ArtefactFetching
from edge.learning_worker import LearningWorker, Said
from edge.models import Models
from edge.posting import Posting
from edge.reporting import Reporting
from messages.bus import Bus, Received
from messages.clock import SECOND, LockStepClock
from messages.contracts import Action, Envelope
from messages.errors import BadMessage, BusLost, StoreDown
from messages.learning import ModelReport, Round
from messages.logs import get_logger
from messages.routes import ACTION, BURST, MODEL, ROUND
from messages.signing import SigningKey, verify

if TYPE_CHECKING:
    from edge.node import Node

SLICE = 10
"""Optimiser steps between two looks at what else there is to do."""
TICK_STEPS = 2_000
"""The same of one tick in lock step, at most."""
FETCH_S = 10.0
IDLE_S = 5.0
"""The worker looks at what is due so often, even if nothing comes."""

log = get_logger("edge")

P = ParamSpec("P")


@dataclass
class Agents:
    """Handlers and loops."""

    node: Node
    agents: Mapping[str, Agent]
    """device → who decides for it"""
    models: Models
    worker: LearningWorker
    newest: Newest
    keys: Mapping[str, Ed25519PublicKey]
    targets: frozenset[str]
    key: SigningKey
    """what reports are signed with"""
    first_report: int
    """its number"""
    report_s: float
    cells: Bus
    """to the site's broker; in lock step it is not used"""
    cloud: Bus
    connect: Callable[[], Bus]
    """a new connection to the cloud's broker, for artefacts"""
    unsigned: int = 0
    """rounds that were not signed by a known key, or not meant for this node"""
    over: int = 0
    """rounds that came when they were no longer valid"""
    not_kept: int = 0
    """times the disk was full under what is learned or released"""
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="learning"))
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _actions: dict[str, Action] = field(default_factory=dict)
    """by device: the last one"""
    _answers: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lock_step = isinstance(self.node.clock, LockStepClock)
        self._model_names = [agent.cell.model for agent in self.agents.values()]
        site, node = self.node.site, self.node.node
        self._fetching = ArtefactFetching(self.connect, self._on_part, site=site)
        self._posting = Posting(self.cloud, site=site, node=node)
        self._reporting = Reporting(self.node, self.cloud, self.key, first=self.first_report, every_s=self.report_s)

    # --- wiring ------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Handlers, before the buses run."""
        site, node = self.node.site, self.node.node
        for device in self.agents:
            self.cells.on(BURST, self._on_own_burst, site=site, node=node, device=device)
        self.cells.on_connect(self._on_cells_connect)
        self.cloud.on(ROUND, self._on_round, site=site)
        for model in self._model_names:
            self.cloud.on(MODEL, self._on_release, site=site, node=node, model=model)
        self.cloud.on_connect(self._on_cloud_connect)
        self.cloud.on_bad(self.node.on_bad)  # a broken burst is the intake's to record, once

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tg:
                if not self._lock_step:
                    tg.create_task(self.cells.run(), name="cells")
                    tg.create_task(self._learn_for_ever(), name="learning")
                tg.create_task(self.cloud.run(), name="learning bus")
                tg.create_task(self._fetching.run(), name="artefacts")
                tg.create_task(self._posting.run(), name="updates")
        finally:
            self._worker.shutdown(wait=False, cancel_futures=True)

    async def on_tick(self, now: int) -> None:
        """Time has come: figures that are due; in lock step everything that learning has to do."""
        if self._lock_step:
            await self._in_lock_step(now)
        for model in self._model_names:
            self._reporting.due(self._report(self.models.report(model, now)))

    def counters(self) -> dict[str, float]:
        """For health."""
        counts = [agent.counts for agent in self.agents.values()]
        learners = self.worker.learners.values()
        return {
            "decisions": sum(one.decisions for one in counts),
            "decisions_safe": sum(one.safe for one in counts),
            "decisions_explored": sum(one.explored for one in counts),
            "decisions_late": sum(one.late for one in counts),
            "samples_ahead": sum(one.ahead for one in counts),
            "samples_again": sum(one.again for one in counts),
            "clock_set_back": sum(one.set_back for one in counts),
            "trips": sum(one.trips for one in counts),
            "transitions": sum(one.transitions for one in counts),
            "transitions_lost": sum(one.lost for one in learners),
            "transition_gaps": sum(one.gaps for one in counts),
            "rounds": sum(one.rounds for one in learners),
            "rounds_refused": self.worker.refused + self.unsigned,
            "rounds_over": self.over,
            "learning_not_kept": self.not_kept,
            "learner_steps": sum(one.trainer.learner.steps for one in learners),
        }

    # --- deciding ----------------------------------------------------------------------------------

    def on_bursts(self, received: list[Received], now: int) -> None:
        """What devices say; before it is kept. What is said of it is signed when all actions have gone out."""
        reports: list[ModelReport] = []
        for one in received:
            device = one.ids["device"]
            agent = self.agents.get(device)
            if agent is None:
                self.newest.take(device, one.message, now + 60 * SECOND)
                continue
            answer = agent.on_burst(one.message, now)
            if answer.back_us:
                log.warning("edge.clock_set_back", device=device, by_s=round(answer.back_us / SECOND, 3))
            if answer.action is not None:
                self._actions[device] = answer.action
                self._act(device, answer.action)
            reports += answer.reports
            if answer.transitions:
                self.worker.note(agent.cell.model, answer.transitions)
                self._work.set()
        self._say(reports)

    async def _on_own_burst(self, received: Received) -> None:
        self.on_bursts([received], await self.node.now())

    async def _on_cells_connect(self) -> None:
        """Cells may not have heard us: what is still valid is said again."""
        now = await self.node.now()
        for device, action in self._actions.items():
            if now < action.valid_until:
                self._act(device, action)

    def _act(self, device: str, action: Action) -> None:
        bus = self.node.local if self._lock_step or not self.cells.connected.is_set() else self.cells
        ids = {"site": self.node.site, "node": self.node.node, "device": device}
        try:
            answer = bus.publish_nowait(ACTION, action, expiry_s=None, payload=None, **ids)
        except BusLost:
            self.node.unsent += 1  # the cell takes the safe action by itself
            return
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)

    # --- learning ----------------------------------------------------------------------------------

    async def _on_round(self, received: Received) -> None:
        """A round was opened, closed, or said again; whose word it is is looked at before anything else."""
        now = await self.node.now()
        envelope: Envelope[Round] = received.message
        try:
            verify(received.payload, self.keys)
            if envelope.target not in self.targets:
                raise BadMessage(f"it is for {envelope.target!r}, not for this node")
        except BadMessage as error:
            self.unsigned += 1
            if self.unsigned & (self.unsigned - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                log.warning("edge.round_refused", why=str(error), refused=self.unsigned)
            return
        if now >= envelope.valid_until:  # retained, and over; or this node's clock is ahead
            self.over += 1
            return
        if envelope.body.closed is not None:
            self._posting.over(envelope.body.model, envelope.body.round)
        self._take(await self._in_worker(self.worker.on_round, envelope, received.payload, now), news=True)

    async def _on_release(self, received: Received) -> None:
        now, model = await self.node.now(), received.ids["model"]
        self._take(await self._in_worker(self.worker.on_release, model, received.payload, now), news=True)

    async def _on_part(self, received: Received) -> None:
        now, part = await self.node.now(), received.ids["part"]
        number = int(part) if part.isdecimal() else -1
        said = await self._in_worker(self.worker.on_part, received.ids["digest"], number, received.payload, now)
        self._take(said, news=True)

    async def _learn_for_ever(self) -> None:
        while True:
            self._work.clear()
            began = self.node.monotonic()
            said = await self._in_worker(self.worker.work, SLICE, self.node.clock.now())
            self._take(said)
            if said.busy:
                await asyncio.sleep(self.node.monotonic() - began)  # half of the time is for everything else
                continue
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def _in_lock_step(self, now: int) -> None:
        if self._answers:
            await asyncio.wait(self._answers, timeout=FETCH_S)
        await self._fetching.settled(FETCH_S)
        for _ in range(TICK_STEPS // SLICE):
            said = await self._in_worker(self.worker.work, SLICE, now)
            self._take(said)
            if not said.busy:
                return

    async def _in_worker(self, do: Callable[P, Said], *args: P.args, **kwargs: P.kwargs) -> Said:
        """What it says. On a full disk nothing: it is tried again, and who decides does not notice."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, partial(do, *args, **kwargs))
        except StoreDown as error:
            self.not_kept += 1
            if self.not_kept & (self.not_kept - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                log.error("edge.learning_not_kept", why=str(error), times=self.not_kept)
            return Said(wanted=self._fetching.wanted)

    def _take(self, said: Said, *, news: bool = False) -> None:
        """What the worker said; `news`: it may have more to do."""
        for update in said.updates:
            self._posting.put(update)
        if said.updates and not said.reports:
            now = self.node.clock.now()
            self._say(self.models.report(one.head.model, now) for one in said.updates)
        self._say(said.reports)
        self._fetching.want(said.wanted)
        if news:
            self._work.set()

    # --- what is said of it -----------------------------------------------------------------------

    async def _on_cloud_connect(self) -> None:
        now = self.node.clock.now()
        if not now:
            return  # in lock step, before the first tick: it says them
        self._say(self.models.report(model, now) for model in self._model_names)

    def _report(self, report: ModelReport) -> ModelReport:
        trainer = self.worker.learners[report.model].trainer
        limit = trainer.learner.settings.limit
        return report.model_copy(update={"learned_round": trainer.learned_round, "cost_limit": limit})

    def _say(self, reports: Iterable[ModelReport]) -> None:
        self._reporting.say(map(self._report, reports))
