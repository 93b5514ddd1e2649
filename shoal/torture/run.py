"""One run: start all, produce while killing, bring everything home, judge.

    outcome = asyncio.run(torture(Plan(seed=1), directory))

Every wait is bounded. What does not come home in time is not waited for: it is judged as it lies.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cloud.settings import CloudSettings
from messages.contracts import Health
from messages.observe import observe
from shoal.processes import ProcessFailed
from shoal.torture.cast import FORGETFUL, NODES, PLANT, SITE, SUMMING, Files, Traffic, producers, services
from shoal.torture.checker import check
from shoal.torture.executioner import BLACKOUT, Executioner, Kill
from shoal.torture.influx import Influx
from shoal.torture.powercut import Power
from shoal.torture.producer import ProducerSettings, Status
from shoal.torture.stage import BROKER, INGEST, STORE, Launch, Stage, plain, wait_for_port
from shoal.torture.verdict import Verdict
from shoal.torture.witness import Witness

READY_S = 30.0
HOME_S = 90.0
"""After the last kill: until producers are rid of everything, and again until the nodes are."""
Tell = Callable[[str, "Executioner"], None]


@dataclass(frozen=True)
class Plan:
    """What is asked of a run."""

    seed: int = 1
    seconds: float = 630.0
    """of traffic under kills"""
    kills: int = 22
    """of each kind of victim, at least"""
    store: str = "sqlite"
    power_cuts: bool = False
    """the death of an edge node or of ingest is a power cut of its disk"""
    traffic: Traffic = field(default_factory=Traffic)
    victims: tuple[str, ...] = ("edge", "ingest", "broker", "store")
    blackout: float = BLACKOUT
    """share of strikes that take one victim of every kind at once"""
    grace_s: float = 3.0
    """in which a missing burst may still come, before it is a gap"""
    home_s: float = HOME_S


@dataclass
class Outcome:
    """What happened, and what became of the readings."""

    verdict: Verdict
    kills: list[Kill]
    wanted: dict[str, int]
    traffic_s: float
    spared: int = 0
    pauses: int = 0
    repeats: int = 0
    forks: int = 0
    batches: int = 0
    bursts: int = 0
    bursts_sent: int = 0
    power_cuts: int = 0
    unsure: int = 0
    troubles: list[str] = field(default_factory=list)
    """Why the run does not hold beside what the verdict says."""

    @property
    def killed(self) -> dict[str, int]:
        """Kills per kind of victim."""
        return {kind: sum(kill.victim == kind for kill in self.kills) for kind in self.wanted}

    @property
    def holds(self) -> bool:
        return self.verdict.holds and not self.troubles and not self.forks


async def torture(plan: Plan, directory: Path, *, launch: Launch = plain, tell: Tell | None = None) -> Outcome:
    """Run `plan` in `directory`; ProcessFailed when a process ends that nobody killed."""
    files, rng = Files.made(directory), random.Random(plan.seed)
    files.plant.write_text(PLANT.model_dump_json(indent=1), encoding="utf-8")
    influx = Influx(files.directory / "influx") if plan.store != "sqlite" else None
    with Stage(files.directory, launch, _power(plan, files, rng)) as stage:
        system = services(
            files, stage.broker_port, influx.settings if influx else {"kind": "sqlite"}, grace_s=plan.grace_s
        )
        for name, (command, settings) in system.items():
            stage.service(name, command, settings)
        stage.start(BROKER)
        if influx:
            stage.commands[STORE] = influx.command()
            stage.start(STORE)
            await asyncio.to_thread(influx.prepare, [*stage.commands[INGEST], "--init-store"])
        if not await asyncio.to_thread(wait_for_port, stage.broker_port):
            raise ProcessFailed(f"mosquitto does not accept connections; its log: {stage.log_of(BROKER)}")
        async with observe("127.0.0.1", stage.broker_port, retry_s=0.2) as watcher:
            run = _Run(plan, files, stage, rng, tell or (lambda _phase, _executioner: None))
            following = asyncio.create_task(run.witness.follow(watcher))
            try:
                for name in system:
                    stage.start(name)
                traffic_s = await run.play()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        for name in system:
            stage.stop(name)
        cloud = system[INGEST][1]
        assert isinstance(cloud, CloudSettings)
        return await asyncio.to_thread(partial(run.judge, cloud, traffic_s))


def _power(plan: Plan, files: Files, rng: random.Random) -> dict[str, Power]:
    if not plan.power_cuts:
        return {}
    databases = {node: files.data(node) / "node.db" for node in NODES} | {INGEST: files.cloud / "shoal.db"}
    return {
        name: Power(
            (path, path.with_name(path.name + "-wal")),
            files.directory / f"{name}.trace",
            random.Random(rng.getrandbits(32)),
        )
        for name, path in databases.items()
    }


class _Run:
    """The acts of one run."""

    def __init__(self, plan: Plan, files: Files, stage: Stage, rng: random.Random, tell: Tell) -> None:
        self.plan, self.files, self.stage = plan, files, stage
        self.witness = Witness(SITE)
        processes = {"edge": NODES, "ingest": (INGEST,), "broker": (BROKER,), "store": (STORE,)}
        struck = [kind for kind in plan.victims if kind != "store" or plan.store != "sqlite"]
        victims = {kind: processes[kind] for kind in struck}
        self.executioner = Executioner(stage, self.witness, victims, rng, plan.blackout)
        self.producers = producers(files, stage.broker_port, plan.seed, plan.traffic)
        self.troubles: list[str] = []
        self._tell = tell

    async def play(self) -> float:
        """All acts; how long there was traffic, s."""
        self._say("starting")
        await self._until("the nodes are not online", lambda: self.witness.online >= set(NODES))
        for node, settings in self.producers.items():
            self._produce(node, settings)
        await self._until("not every device was heard", lambda: all(one.heard for one in self._statuses()))
        began = time.monotonic()
        await self.executioner.work(
            wanted=self.plan.kills, seconds=self.plan.seconds, tell=partial(self._say, "killing")
        )
        traffic_s = time.monotonic() - began
        await self._bring_home()
        return traffic_s

    def judge(self, cloud: CloudSettings, traffic_s: float) -> Outcome:
        """After every process but the store has ended."""
        self._say("judging")
        with cloud.store_file.open(read_only=True) as store:
            oracle = [settings.oracle for settings in self.producers.values()]
            verdict = check(oracle, store, PLANT, forgetful=FORGETFUL)
            counts = json.loads(store.kept("ingest") or "{}")
        wanted = dict.fromkeys(self.executioner.victims, self.plan.kills)
        for kind, number in wanted.items():
            killed = self.executioner.counts[kind]
            if killed < number:
                self.troubles.append(f"{kind} was killed {killed} times, {number} were asked for")
        statuses = self._statuses()
        return Outcome(
            verdict=verdict,
            kills=self.executioner.kills,
            wanted=wanted,
            traffic_s=traffic_s,
            spared=self.executioner.spared,
            pauses=self.executioner.pauses,
            repeats=int(counts.get("repeats", 0)),
            forks=int(counts.get("forks", 0)),
            batches=int(counts.get("batches", 0)),
            bursts=sum(one.bursts for one in statuses),
            bursts_sent=sum(one.sent for one in statuses),
            power_cuts=sum(one.cuts for one in self.stage.power.values()),
            unsure=sum(one.unsure for one in self.stage.power.values()),
            troubles=self.troubles,
        )

    # --- private ----------------------------------------------------------------------------------

    def _say(self, phase: str) -> None:
        self._tell(phase, self.executioner)

    def _produce(self, node: str, settings: ProducerSettings) -> None:
        name = f"producer-{node}"
        path = self.files.directory / f"{name}.json"
        path.write_text(settings.model_dump_json(), encoding="utf-8")
        self.stage.commands[name] = [sys.executable, "-m", "shoal.torture.producer", str(path)]
        self.stage.start(name)

    def _statuses(self) -> list[Status]:
        return [Status.read(settings.status) for settings in self.producers.values()]

    async def _bring_home(self) -> None:
        """Devices get rid of what they hold, then the nodes."""
        self._say("bringing home")
        for node in self.producers:
            self.stage.dead.add(f"producer-{node}")
            self.stage.processes[f"producer-{node}"].terminate()
        if not await self._comes(lambda: all(one.done for one in self._statuses())):
            self.troubles.append(f"producers were not rid of their bursts within {self.plan.home_s:g} s")
        elif any(one.gave_up for one in self._statuses()):
            self.troubles.append("a device could not get rid of its bursts: they were never `Taken`")
        await self._flush_sums()
        since = time.monotonic() + self.plan.grace_s + 2.0  # a gap is told after the grace, within a second or so
        if not await self._comes(lambda: self._nodes_empty(since)):
            self.troubles.append(f"nodes still hold batches {self.plan.home_s:g} s after the last burst")

    async def _flush_sums(self) -> None:
        """Refusals held back go out a minute after the first of them, or when the node starts again: that is sooner."""
        before = self.witness.health.get(SUMMING)
        await asyncio.to_thread(self.stage.stop, SUMMING)
        self.stage.start(SUMMING)
        if not await self._comes(lambda: _session(self.witness.health.get(SUMMING)) != _session(before)):
            self.troubles.append(f"{SUMMING} was started again, and did not speak within {self.plan.home_s:g} s")

    def _nodes_empty(self, since: float) -> bool:
        """Whether every node said after `since` that nothing waits in it."""
        for node in NODES:
            at, health = self.witness.health.get(node, (0.0, None))
            if health is None or at < since:
                return False
            waiting = [n for name, n in health.counters.items() if name.startswith(("inbox_", "outbox_"))]
            if any(waiting):
                return False
        return True

    async def _until(self, trouble: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        while not condition():
            self.stage.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{trouble} after {READY_S:g} s; see the logs in {self.files.directory}")
            await asyncio.sleep(0.05)

    async def _comes(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + self.plan.home_s
        while not condition():
            self.stage.check()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


def _session(said: tuple[float, Health] | None) -> str | None:
    return said[1].session if said else None
