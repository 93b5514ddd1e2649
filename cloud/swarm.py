"""The judge of one site as a service: one term after the other, and never beside another judge of the cloud.

    swarm = Swarm(settings.swarm, plant, disk, store, connect, clock, accelerated=…)
    await swarm.run()                   # until cancelled

It begins a term above all it knows of: its own last one, which is on the disk before anybody hears of it, and what
nodes and other judges say. A term ends when a higher judge is heard of. A delegate that judged while the cloud was away
is taken over from after a pause; another judge of the cloud is not: as long as that one renews its word, this one
stands by, listens under a name of its own, and says so. The name that awards is one for the site, `shoal-judge-<site>`:
whoever connects with it throws out an older connection at the broker.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import structlog
from pydantic import TypeAdapter

from cloud.reign import NOBODY, Reign
from cloud.settings import SwarmSettings
from cloud.stores import Store
from cloud.swarmbook import OWN_SESSIONS, SwarmBook
from messages.bus import Bus, Received
from messages.clock import SECOND, Clock
from messages.contracts import Envelope
from messages.dispatch.awaiting import longer
from messages.dispatch.judge import ByRule, Judge
from messages.errors import BusLost
from messages.negotiation import Agenda, Authority, JudgeInForce
from messages.pace import pace_of
from messages.plant import Plant
from messages.routes import AGENDA, JUDGE

log = structlog.get_logger("judge")

QUIET_S = 0.3
"""Who listens has heard what is retained when nothing has come for so long (real time) since it was connected."""
HOLD_S = 20.0
"""A tick of a plant whose time waits for the judge is held at most so long (real time) until it has begun."""
CONNECT_S = 5.0
"""And no longer than this for one whose broker is away."""
TELL_S = 60.0
"""Figures are logged this often (real time), if there are new ones."""
SLOW_MS = 20.0
"""A rule is compiled when the plain one has taken so long for a decision; a tree search is from the start."""
COMPILE_S = 300.0
"""A child that is not through compiling by then is killed; the plain judge goes on."""
CHILD = "from cloud.dispatch import warm; warm()"

Connect = Callable[[str, bool], Bus]
"""(client id, whether the broker keeps what comes while we are away) → a bus that does not run yet."""


@dataclass
class Swarm:
    """One site's judge."""

    settings: SwarmSettings
    plant: Plant
    disk: SwarmBook
    store: Store
    connect: Connect
    clock: Clock
    accelerated: bool = False
    """plant time waits for us"""
    compile: bool = True
    reign: Reign | None = None
    terms: int = 0
    rival: Envelope[JudgeInForce] | None = None
    """the word of another judge of the cloud that this one stands by for"""
    _judge: Judge = field(init=False)
    _heard: Authority = NOBODY
    _started: asyncio.Event = field(default_factory=asyncio.Event)
    _ticked: asyncio.Event = field(default_factory=asyncio.Event)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._judge = self.settings.judge

    async def run(self) -> None:
        """Judge, or stand by, until cancelled."""
        async with asyncio.TaskGroup() as tg:
            tg.create_task(self.clock.drive(self.on_tick, phase="cloud"), name="clock")
            tg.create_task(self._judge_for_ever(), name="judge")
            tg.create_task(self._tell_for_ever(), name="figures")
            if self.compile:
                tg.create_task(self._get_ready(), name="kernels")

    async def on_tick(self, now: int) -> None:
        """Time has come; the first tick tells what time it is."""
        self._started.set()
        self._ticked.set()
        if self.accelerated:
            with suppress(TimeoutError):
                async with asyncio.timeout(HOLD_S):  # `wait_for` may swallow that we are cancelled
                    await self._settled.wait()
        if self.reign is not None:
            await self.reign.on_tick(now)

    def counters(self) -> dict[str, float]:
        """Figures since the start of the present term, and how things stand."""
        reign = self.reign
        found = {"judge_terms": float(self.terms), "judge_stands_by": float(self.rival is not None)}
        if reign is not None:
            counts = {name: float(count) for name, count in reign.counts.items() if name != "decided_us"}
            found |= {f"judge_{name}": count for name, count in counts.items()}
            found["judge_decision_ms"] = reign.counts["decided_us"] / 1e3 / max(1, reign.counts["decisions"])
            found["judge_slowest_ms"] = reign.slowest_ms
            found["judge_unsaid"] = float(reign.voice.unsaid)
        return found

    # --- terms -----------------------------------------------------------------------------------------

    async def _judge_for_ever(self) -> None:
        await self._started.wait()
        while True:
            await self._listen()
            authority = self._begin()
            bus = self.connect(f"shoal-judge-{self.plant.site}", True)
            reign = Reign(
                *(self.settings, self.plant, self.disk, self.store, bus, authority, self._judge),
                now=self.clock.now,
                accelerated=self.accelerated,
            )
            await reign.catch_up()
            self.reign = reign
            reign.listen()
            log.info("judge.begins", term=authority.term, session=authority.session, jobs=len(reign.agent.jobs))
            self._settled.set()
            await reign.run()
            self.reign, self._heard = None, max(self._heard, reign.heard)
            log.warning("judge.fenced", term=authority.term, by=reign.heard.term, session=reign.heard.session)
            if reign.rival is None:  # by a delegate, which had not heard it
                pace = pace_of(self.plant)
                late_us = longer(reign.book.late_us, pace)
                self.disk.remember(late_us=late_us)
                await self._pause(pace.delegate_s + late_us / SECOND)
            self._settled.clear()

    def _begin(self) -> Authority:
        """A term above all others; on the disk before anybody hears of it."""
        state = self.disk.state()
        authority = max(Authority(state.term, state.session), self._heard).followed_by(secrets.token_hex(8))
        sessions = [*state.sessions, authority.session][-OWN_SESSIONS:]
        self.disk.remember(term=authority.term, session=authority.session, sessions=sessions)
        self.terms += 1
        return authority

    async def _pause(self, seconds: float) -> None:
        until = self.clock.now() + round(seconds * SECOND)
        while self.clock.now() < until:
            self._ticked.clear()
            await self._ticked.wait()

    async def _listen(self) -> None:
        """Hear what is retained, and stand by as long as another judge of the cloud renews its word."""
        word: Envelope[JudgeInForce] | None = None
        last = time.monotonic()
        mine = self.disk.state().sessions

        async def on_judge(received: Received) -> None:
            nonlocal word, last
            said, last = cast(Envelope[JudgeInForce], received.message), time.monotonic()
            until = pace_of(self.plant).believed(said.valid_until, at=said.body.at, now=self.clock.now())
            word = said.model_copy(update={"valid_until": until})
            self._heard = max(self._heard, word.body.authority)

        async def on_agenda(received: Received) -> None:
            nonlocal last
            last = time.monotonic()
            self._heard = max(self._heard, cast(Agenda, received.message).authority)

        async def on_cleared(_: dict[str, str]) -> None:
            nonlocal word
            word = None

        bus = self.connect(f"shoal-judge-{self.plant.site}-hears-{secrets.token_hex(4)}", False)
        bus.on(JUDGE, on_judge, on_cleared=on_cleared, site=self.plant.site)
        bus.on(AGENDA, on_agenda, site=self.plant.site)
        running = asyncio.ensure_future(bus.run())
        try:
            await self._connected(bus, running)
            last = time.monotonic()
            while True:
                await _first(asyncio.sleep(QUIET_S / 10), running)
                if time.monotonic() - last < QUIET_S:
                    continue
                rival = word if word is not None and self._is_another(word, mine) else None
                if rival is None:
                    break
                if self.rival is None:
                    log.warning(
                        "judge.stands_by",
                        session=rival.body.session,
                        term=rival.body.term,
                        cure="two judges of one site: stop one; this one begins when the other's word has run out",
                    )
                self.rival = rival
                self._settled.set()  # plant time need not wait
        finally:
            self.rival = None
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def _connected(self, bus: Bus, running: asyncio.Future[None]) -> None:
        """Plant time need not wait for a judge whose broker is away."""
        while True:
            try:
                await _first(bus.wait_connected(CONNECT_S), running)
            except BusLost as error:
                if not self._settled.is_set():
                    log.warning(
                        "judge.hears_nobody", why=str(error), then="plant time goes on; it begins when it hears"
                    )
                self._settled.set()
                continue
            self._settled.clear()
            return

    def _is_another(self, word: Envelope[JudgeInForce], mine: Collection[str]) -> bool:
        """Whether this is the word, still good, of a judge of the cloud that was not this one."""
        return word.body.judge == "cloud" and word.body.session not in mine and self.clock.now() < word.valid_until

    # --- beside it ---------------------------------------------------------------------------------------

    async def _tell_for_ever(self) -> None:
        said: dict[str, float] = {}
        while True:
            await asyncio.sleep(TELL_S)
            if (figures := self.counters()) != said:
                said = figures
                log.info("judge.figures", **{name.removeprefix("judge_"): round(one, 1) for name, one in said.items()})

    async def _get_ready(self) -> None:
        """The plain judge answers until another process has compiled what the compiled one needs."""
        while isinstance(self.settings.judge, ByRule) and (self.reign is None or self.reign.slowest_ms < SLOW_MS):
            self._ticked.clear()
            await self._ticked.wait()
        began = time.monotonic()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        try:
            async with asyncio.timeout(COMPILE_S):
                code = await child.wait()
        except TimeoutError:
            code = -1
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if code:
            log.warning("judge.not_compiled", code=code, then="the plain judge goes on, with fewer iterations")
            return
        self._judge = await asyncio.to_thread(_compiled, self.settings.judge)
        if self.reign is not None:
            self.reign.agent.judge = self._judge
        log.info("judge.compiled", took_s=round(time.monotonic() - began, 1))


def _compiled(judge: Judge) -> Judge:
    from cloud.dispatch import AnyJudge, warm

    warm()
    reader: TypeAdapter[Judge] = TypeAdapter(AnyJudge)
    return reader.validate_python(judge.model_dump())


async def _first(what: object, running: asyncio.Future[None]) -> None:
    """Wait for `what`, unless the bus ends with an error before it."""
    waiting = asyncio.ensure_future(cast("asyncio.Future[None]", what))
    try:
        await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        await waiting
    finally:
        waiting.cancel()
