"""The learning service of one site: rounds, versions and releases over a bus of its own, beside everything else.

    learning = Learning(settings.learning, site="s1", data=settings.data, key=key, bus=bus, now=clock.now, …)
    await learning.run(clock)                   # until cancelled

What is decided is in `cloud.site_learning`, in one thread of its own: signatures, sums and disks never keep the loop,
on which telemetry is taken in, waiting. This here hears, says, and looks at the time: on every tick of plant time
rounds open and close, wishes of `shoal models` are taken up, leases renewed; a round closes at once when everybody
was heard. What is to be said is on the disk before, artefacts go out before what names them, and after every connect
everything is said again. A connection that goes in between is no loss. Artefacts that nobody needs are taken back.

Where plant time waits for us (lock step), it is held before a round's deadline until those that took part last time
were heard, and while a candidate is simulated, `HOLD_S` of real time a tick at most. A candidate is simulated by
`simulate`, one at a time, in a thread or wherever that has it done; what comes of one that nobody waits for any more
changes nothing.
Bounds: those of the core; a batch of the bus; one simulation.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from cloud.learning_settings import LearningSettings
from cloud.registry import FILE
from cloud.retained_artefacts import RetainedArtefacts
from cloud.saying import Out, parts
from cloud.site_learning import SiteLearning
from cloud.validation import Outcome, Question, Simulate, answer
from cloud.versions import Version
from cloud.working import in_thread
from messages.bus import Bus, Received
from messages.clock import Clock
from messages.errors import BadMessage, BusLost, BusRefused, ShoalError
from messages.learning import Artefact
from messages.logs import get_logger
from messages.routes import ARTEFACT, CAPABILITY, MODEL_REPORT, PRESENCE, ROUND, UPDATE
from messages.signing import SigningKey

HOLD_S = 5.0
"""Real time for which a tick waits for updates before a round's deadline, and for a simulation, in lock step."""

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger("learning")


def nobody(version: Version) -> Mapping[str, float]:
    """A simulation that there is not."""
    raise ShoalError(
        f"nothing here can simulate version {version.version}; shoal models release --try --unvalidated goes without"
    )


class Learning:
    """Of one site."""

    def __init__(
        self,
        settings: LearningSettings,
        *,
        site: str,
        data: Path,
        key: SigningKey,
        bus: Bus,
        now: Callable[[], int],
        simulate: Simulate = nobody,
        accelerated: bool = False,
    ) -> None:
        """`accelerated`: plant time waits for us."""
        self._settings, self._site, self._data, self._key = settings, site, data, key
        self._bus, self._now, self._simulate, self._accelerated = bus, now, simulate, accelerated
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learning")
        self._core: SiteLearning
        self._shown: RetainedArtefacts
        self._there: set[Artefact] = set()
        """published on this connection"""
        self._saying = asyncio.Lock()
        self._heard = asyncio.Event()
        self._asked = asyncio.Event()
        self._answered = asyncio.Event()
        self._timed = asyncio.Event()
        self._last = 0
        self._figures: dict[str, float] = {}
        self._bad = 0
        self._simulated = 0

    async def run(self, clock: Clock) -> None:
        """Learn, until cancelled."""
        try:
            await self._do(self._open)
            self._listen()
            async with asyncio.TaskGroup() as tg:
                tg.create_task(self._hear(), name="learning bus")
                tg.create_task(clock.drive(self.on_tick, phase="cloud"), name="learning clock")
                tg.create_task(self._validate(), name="validation")
        finally:
            self._worker.submit(self._close)
            self._worker.shutdown(wait=True)

    def counters(self) -> dict[str, float]:
        """Figures, as of the last tick."""
        return self._figures

    async def _hear(self) -> None:
        """Once it is known what time it is: what is decided before would be said with a validity that is over."""
        await self._timed.wait()
        await self._bus.run()

    async def on_tick(self, now: int) -> None:
        """Time has come."""
        self._timed.set()
        await self._say(await self._do(self._core.on_time, now))
        if self._accelerated:
            await self._hold(now)
            await self._hold_for_simulation()
        figures = await self._do(self._core.figures)
        self._figures = {**figures, "learning_bad": float(self._bad), "learning_simulated": float(self._simulated)}

    # --- what comes in --------------------------------------------------------------------------

    def _listen(self) -> None:
        site, bus = self._site, self._bus
        bus.on(PRESENCE, self._on_presence, on_cleared=self._on_retired, site=site)
        bus.on(CAPABILITY, self._on_capability, site=site)
        bus.on(ROUND, self._on_round, site=site)
        bus.on(UPDATE, self._on_updates, batch=True, site=site)
        bus.on(MODEL_REPORT, self._on_reports, batch=True, site=site)
        bus.on_bad(self._on_bad)
        bus.on_connect(self._again)

    async def _on_presence(self, received: Received) -> None:
        await self._do(self._core.on_presence, received.ids["node"], online=received.message.online)
        self._heard.set()

    async def _on_retired(self, ids: dict[str, str]) -> None:
        await self._say(await self._do(self._core.on_retired, ids["node"], self._now()))

    async def _on_capability(self, received: Received) -> None:
        shown = received.message.public_key
        await self._do(self._core.on_capability, received.ids["node"], shown, self._now())

    async def _on_round(self, received: Received) -> None:
        if received.retained:  # else it is our own word, as it goes out
            await self._do(self._core.on_said, received.payload)

    async def _on_updates(self, received: list[Received]) -> None:
        came = []
        for one in received:
            if one.ids["round"].isdecimal():
                came.append((one.ids["node"], int(one.ids["round"]), one.message))
            else:
                await self._on_bad(one.topic, one.payload, f"{one.ids['round']!r} is no number of a round")
        await self._say(await self._do(self._core.on_updates, came, self._now()))
        self._heard.set()

    async def _on_reports(self, received: list[Received]) -> None:
        came = [(one.ids["node"], one.message, one.payload) for one in received]
        await self._say(await self._do(self._core.on_reports, came, self._now()))

    async def _on_bad(self, topic: str, payload: bytes, why: str) -> None:
        """Bytes that nobody can read: said, counted; of an update, the round says so as well."""
        self._bad += 1
        with suppress(BadMessage):
            node = UPDATE.ids(topic)["node"]
            await self._do(self._core.on_bad, node, why, self._now())
        if self._bad & (self._bad - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            log.warning("learning.bad_message", topic=topic[:200], why=why[:500], bad=self._bad)

    # --- what goes out --------------------------------------------------------------------------

    async def _again(self) -> None:
        """After every connect."""
        async with self._saying:
            self._there.clear()
            await self._publish(await self._do(self._core.all))
            await self._take_back(again=True)

    async def _say(self, outs: list[Out]) -> None:
        """What was decided; lost with the connection, it is said again after the next."""
        self._asked.set()
        if not outs:
            return
        with suppress(BusLost):
            async with self._saying:
                await self._publish(outs)
                await self._take_back()

    async def _publish(self, outs: Iterable[Out]) -> None:
        newest = {out.route.topic(**out.ids): out for out in outs}
        for artefact in {one for out in newest.values() for one in out.artefacts} - self._there:
            for number, part in parts(await self._do(self._bytes, artefact)):
                await self._bus.publish(ARTEFACT, part, site=self._site, digest=artefact.digest, part=number)
            self._there.add(artefact)
        ended = await asyncio.gather(*(self._put(out) for out in newest.values()), return_exceptions=True)
        for error in ended:
            if isinstance(error, BusRefused):
                log.error("learning.not_said", why=str(error), cure="let the cloud write below all/down and +/down")
            if isinstance(error, BaseException):
                raise error

    async def _put(self, out: Out) -> None:
        if out.payload is None:
            await self._bus.clear(out.route, **out.ids)
        else:
            await self._bus.publish(out.route, None, expiry_s=None, payload=out.payload, **out.ids)

    async def _take_back(self, *, again: bool = False) -> None:
        for artefact in await self._do(self._old, again):
            for number in range(artefact.parts):
                await self._bus.clear(ARTEFACT, site=self._site, digest=artefact.digest, part=str(number))
            self._there.discard(artefact)
            await self._do(self._shown.gone, artefact)

    # --- validation, and plant time that waits --------------------------------------------------

    async def _validate(self) -> None:
        while True:
            self._asked.clear()
            found = await self._do(lambda: next(self._core.questions(), None))
            if found is None:
                await self._asked.wait()
                continue
            model, question = found
            began = time.monotonic()
            outcome = await in_thread(partial(_outcome, question, self._simulate), threading.Event())
            self._simulated += 1
            log.info(
                "learning.simulated",
                model=model,
                version=question.candidate.version,
                metrics=dict(outcome.metrics),
                incumbent=dict(outcome.incumbent),
                error=outcome.error,
                took_s=round(time.monotonic() - began, 2),
            )
            await self._say(await self._do(self._core.on_validated, model, question, outcome, self._now()))
            self._answered.set()

    async def _hold(self, now: int) -> None:
        """The next tick would be past the deadline: nodes are waited for in this one, in which they are in time."""
        step, self._last = now - (self._last or now), now
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_S):
                while await self._do(self._core.waits, now + step):
                    self._heard.clear()
                    if await self._do(self._core.waits, now + step):
                        await self._heard.wait()

    async def _hold_for_simulation(self) -> None:
        """What a candidate is worth is known at the tick at which it is asked, however slow the machine."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_S):
                while await self._do(lambda: next(self._core.questions(), None)) is not None:
                    self._answered.clear()
                    if await self._do(lambda: next(self._core.questions(), None)) is not None:
                        await self._answered.wait()

    # --- the thread -----------------------------------------------------------------------------

    async def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In the thread of the core, in turn."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, partial(work, *args, **kwargs))

    def _open(self) -> None:
        self._core = SiteLearning(self._settings, site=self._site, data=self._data, key=self._key)
        self._shown = RetainedArtefacts(self._data / FILE)

    def _close(self) -> None:
        for name in ("_shown", "_core"):
            if hasattr(self, name):
                getattr(self, name).close()

    def _bytes(self, artefact: Artefact) -> bytes:
        self._shown.show(artefact)
        return self._core.data(artefact)

    def _old(self, again: bool) -> list[Artefact]:
        return self._shown.old(self._core.artefacts(), again=again)


def _outcome(question: Question, simulate: Simulate) -> Outcome:
    """An incumbent that cannot be simulated is no reason to stop, and none to take the candidate."""
    try:
        return answer(question, simulate)
    except ShoalError as error:
        return Outcome({}, {}, f"the incumbent could not be simulated: {error}")
