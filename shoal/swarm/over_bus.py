"""A swarm as processes over real brokers in accelerated time, from the first order to the verdict.

    outcome = over_bus(Swarm(plant, jobs, ByRule(kind="fifo")), Path("out/swarm"), watch=picture.look)

Every node, the simulated floor and the cloud are the processes of `shoal edge`, `shoal sim` and `shoal cloud`, in lock
step. Plant time goes on in steps of `step_us`: the tick of the plant, or a twentieth of the shortest operation where
that is longer; a step takes `PACE_S` of real time at least, so that a negotiation takes about a step, as its messages
are under way in real time. What happened is read from the floor's own truth, never from what an agent says.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from messages.broker import Broker
from messages.circular import number_of
from messages.clock import SECOND
from messages.contracts import OrderedJob
from messages.logs import configure
from messages.observe import observe
from messages.settings import Settings
from shoal.stage import Stage, in_thread
from shoal.swarm.account import account, excuses, history_of
from shoal.swarm.bus_cast import Files, cast_of, step_us
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.disturb import refuse_simulated
from shoal.swarm.follow import Follower
from shoal.swarm.incidents import Incidents, Kill
from shoal.swarm.limit import Limit
from shoal.swarm.outcome import Key, Look, Outcome, Swarm, Watch
from shoal.swarm.truth import Tail, carried

LOG = "swarm.log"
PACE_S = 0.02
"""Least real time of a step."""
PATIENCE_STEPS = 20_000
"""Nothing moved for so many: it never will."""
RETRY_S = 0.2
"""Real time after which a lost broker is listened to again."""
SETTLE_S = 20.0
"""Real time in which the last batons should come, when all work is done."""


def over_bus(
    swarm: Swarm,
    directory: Path | None = None,
    *,
    watch: Watch | None = None,
    kills: Sequence[Kill] = (),
    speed: float | None = None,
) -> Outcome:
    """Run it to its end. `directory` is new or empty; absent: a temporary one, kept only where something is wrong
    (`Outcome.kept`, or the error names a log within).

    speed   plant seconds per real second, at most
    """
    return asyncio.run(run(swarm, directory, watch=watch, kills=kills, speed=speed))


async def run(
    swarm: Swarm,
    directory: Path | None = None,
    *,
    watch: Watch | None = None,
    kills: Sequence[Kill] = (),
    speed: float | None = None,
) -> Outcome:
    """`over_bus`, for who has a loop."""
    refuse_simulated(swarm.scenario)
    files = Files(directory or Path(tempfile.mkdtemp(prefix="shoal-swarm-")))
    try:
        outcome = await _run(swarm, files, watch, kills, speed)
    except asyncio.CancelledError:  # nobody waits for what it was about to say; of a failure the logs tell
        if directory is None:
            shutil.rmtree(files.directory, ignore_errors=True)
        raise
    return outcome if directory is not None else tidied(outcome, files.directory)


def tidied(outcome: Outcome, directory: Path) -> Outcome:
    """Nobody needs the files of a run that holds; of another one it is said where they are."""
    if not outcome.holds:
        return replace(outcome, kept=directory)
    shutil.rmtree(directory, ignore_errors=True)
    return outcome


async def _run(swarm: Swarm, files: Files, watch: Watch | None, kills: Sequence[Kill], speed: float | None) -> Outcome:
    files.write_plant(swarm)
    with (files.directory / LOG).open("w", encoding="utf-8") as log_file:
        configure("swarm", stream=log_file)  # what is said when a broker dies belongs there, not on the screen
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            outcome = await _play(swarm, files, watch, kills, speed)
        finally:
            configure("swarm", stream=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return replace(outcome, cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


async def _play(swarm: Swarm, files: Files, watch: Watch | None, kills: Sequence[Kill], speed: float | None) -> Outcome:
    uplink = Broker(directory=files.directory / "uplink")
    await in_thread(uplink.start)

    def cast(port: int, clock: str) -> Mapping[str, tuple[str, Settings]]:
        ahead_s = step_us(swarm.plant) / SECOND
        return cast_of(swarm, files, site_port=port, cloud_port=uplink.port, clock=clock, ahead_s=ahead_s)

    try:
        async with (
            Stage(files.directory, swarm.plant, swarm.start, cast) as stage,
            observe(uplink.host, uplink.port, retry_s=RETRY_S) as cloud,
            observe(stage.broker.host, stage.broker.port, retry_s=RETRY_S) as site,
        ):
            follower = Follower(swarm.plant.site)
            course = _Course(swarm, files, stage, Incidents(swarm, stage, uplink, cloud, follower), watch, speed)
            following = [asyncio.create_task(follower.follow(one)) for one in (cloud, site)]
            try:
                return await course.to_the_end(kills)
            finally:
                for task in following:
                    task.cancel()
                await asyncio.gather(*following, return_exceptions=True)
    finally:
        await in_thread(uplink.stop)


class _Course:
    """One run: its course, and what came of it."""

    def __init__(
        self, swarm: Swarm, files: Files, stage: Stage, incidents: Incidents, watch: Watch | None, speed: float | None
    ) -> None:
        self.swarm, self.files, self.stage, self.incidents, self.watch = swarm, files, stage, incidents, watch
        self.follower = incidents.follower
        self.chronicle = Chronicle(swarm.plant, incidents.jobs)
        self.tail = Tail(files.truth, self.chronicle)
        self.limit, self.step_us = Limit(swarm.plant, swarm.scenario, swarm.start), step_us(swarm.plant)
        self.limit.expect(incidents.jobs)
        self.pace_s = max(PACE_S, self.step_us / SECOND / speed if speed else 0.0)
        self.faults: list[str] = []
        self.own: set[str] = set()
        """Jobs that the plant began itself, for components that are short."""

    async def to_the_end(self, kills: Sequence[Kill]) -> Outcome:
        """Play, drain, judge."""
        began = time.monotonic()
        await self.stage.up()
        await self.incidents.begin(kills)
        await self._until_over()
        ended = self.stage.clock.now
        await self._settle()
        await in_thread(partial(self.stage.stop, "sim"))  # it writes what it counted
        self.tail.read()
        self.chronicle.carries[:] = carried(self.files.summary)
        if self.watch:
            self.watch.look(self._look())
        return self._outcome(ended, time.monotonic() - began)

    # --- the course -----------------------------------------------------------------------------------

    async def _until_over(self) -> None:
        moved_at = self.swarm.start
        patience_us = min(self.limit.patience_us, PATIENCE_STEPS * self.step_us)
        while True:
            await self._step()
            now = self.stage.clock.now
            if self.tail.read():
                moved_at = max(moved_at, now)
            if self.watch and self.watch.wants(now):
                self.watch.look(self._look())
            if self._over():
                return
            quiet = now - max(moved_at, self.limit.quiet_until, self.incidents.to_come or 0)
            if quiet > patience_us and not self.chronicle.running:
                self.faults.append(f"nothing moved any more from {(moved_at - self.swarm.start) / SECOND:.0f} s on")
                return
            if self.limit.passed(now):
                stopped = self.limit.fault(now, self.incidents.jobs, self.chronicle, self._excused())
                self.faults += [stopped] if stopped else []
                return

    async def _step(self) -> None:
        due_s = time.monotonic() + self.pace_s
        await self.incidents.befall()
        await self.stage.clock.step(to=self.stage.clock.now + self.step_us)
        self.stage.check()
        self.incidents.check()
        self._take_own()
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def _take_own(self) -> None:
        """Jobs that nobody ordered are known by their batons."""
        if self.swarm.plant.circular is None:
            return
        for name, baton in self.follower.batons.items():
            if name not in self.own and number_of(name):
                job = OrderedJob(job=name, product=baton.product)
                self.own.add(name)
                self.incidents.jobs.append(job)
                self.limit.expect(self.incidents.jobs)
                self.chronicle.add(job)

    def _over(self) -> bool:
        """Everything is done that is to be done, and nothing is to happen any more."""
        if self.incidents.to_come is not None or self.chronicle.running:
            return False
        done = {(run.job, run.op) for run in self.chronicle.runs if not run.interrupted}
        return all(key in done or self._is_cancelled(key[0]) for key in self._keys())

    def _keys(self) -> Iterator[Key]:
        for job in self.incidents.jobs:
            for op in range(len(self.swarm.plant.route(job.product))):
                yield job.job, op

    def _is_cancelled(self, job: str) -> bool:
        """The swarm says so, and it was asked to, or began the job itself."""
        baton = self.follower.batons.get(job)
        may_be = job in self.incidents.cancelled or job in self.own
        return may_be and baton is not None and baton.state in ("cancelled", "done")

    async def _settle(self) -> None:
        """Let the last records reach the store and the last batons be said; plant time goes on."""
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until and not self._is_settled():
            await self._step()

    def _is_settled(self) -> bool:
        batons = self.follower.batons
        ended = all(job.job in batons and batons[job.job].state in ("done", "cancelled") for job in self.incidents.jobs)
        return ended and not self._forgotten()

    def _forgotten(self) -> bool:
        """Whether a run is missing in its baton yet."""
        known = history_of(self.follower.batons.values())
        return any(not run.interrupted and (run.job, run.op) not in known for run in self.chronicle.runs)

    # --- what came of it ------------------------------------------------------------------------------

    def _look(self) -> Look:
        shop = self.follower.shop
        return Look(
            now=self.stage.clock.now,
            runs=self.chronicle.all_runs(),
            carries=tuple(self.chronicle.carries),
            downs=self.chronicle.all_downs(),
            troubles=tuple(trouble for trouble, _ in self.incidents.troubles),
            tasks=shop.tasks if shop else {},
            judge=self.follower.judge,
        )

    def _excused(self) -> dict[Key, str]:
        return dict(excuses(self._keys(), self.follower.batons, cancelled=self.incidents.cancelled, own=self.own))

    def _unheard(self) -> Iterator[str]:
        if self.follower.bad:
            yield f"{self.follower.bad} messages broke their contract"

    def _outcome(self, ended: int, wall_s: float) -> Outcome:
        found = account(
            self.swarm,
            "bus",
            jobs=self.incidents.jobs,
            chronicle=self.chronicle,
            batons=self.follower.batons.values(),
            troubles=self.incidents.troubles,
            reigns=self.follower.reigns,
            excused=self._excused(),
            messages=dict(self.follower.counts) | {"again": self.follower.retendered},
            ended=ended,
        )
        faults = (*self.faults, *found.faults, *self._unheard())
        return replace(found, faults=faults, events=self.tail.events, wall_s=wall_s)
