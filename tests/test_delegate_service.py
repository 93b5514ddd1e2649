"""Real edge processes between real brokers, while the cloud comes and goes: work goes on, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from conftest import eventually
from edge_rig import EdgeProcess

from firmware_sim.factory import Factory
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import SECOND, ClockService
from messages.contracts import Burst, Envelope, Taken
from messages.errors import BusLost
from messages.message import Message
from messages.negotiation import Agenda, Award, AwardAck, Delegation, JudgeInForce, OpenJob, task_of
from messages.plant import load_plant
from messages.routes import (
    ACTION,
    AGENDA,
    AWARD,
    AWARD_ACK,
    BURST,
    DELEGATION,
    JUDGE,
    PEER_AWARD,
    PEER_JUDGE,
    TAKEN,
)

SITE, T0, STEP = "s1", 1_750_000_000 * SECOND, 120 * SECOND
NODES = ("n1", "n2")
JOBS = tuple(f"j{n}" for n in range(1, 7))
WANTED = {(job, op) for job in JOBS for op in range(2)}
PLANT = f"""
site = "{SITE}"
tick_s = 60
transport_s = 60
products = ["p"]
""" + "".join(
    f"""
[[workshops]]
name = "{stage}"
node = "n1"
"""
    + "".join(
        f"""
  [[workshops.machines]]
  id = "{stage}-{n}"
  node = "n{n}"
  work_kw = 10
  idle_kw = 1
  preheat_kw = 2
  preheat_h = 0
  time_h = [0.2]
"""
        for n in (1, 2)
    )
    for stage in ("cut", "bend")
)


class Cloud:
    """A judge on the uplink, for as long as it speaks."""

    def __init__(self, port: int) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="cloud", backoff_s=(0.05, 0.2))
        self.agendas: dict[str, Agenda] = {}
        self.acks: list[AwardAck] = []
        self.bus.on(AGENDA, self._on_agenda, site=SITE)
        self.bus.on(AWARD_ACK, self._on_ack, site=SITE)

    async def _on_agenda(self, received: Received) -> None:
        self.agendas[received.ids["node"]] = received.message

    async def _on_ack(self, received: Received) -> None:
        self.acks.append(received.message)

    async def judge(self, term: int, now: int, until: int) -> None:
        body = JudgeInForce(term=term, session="c0c0c0c0", judge="cloud", at=now, delegates=list(NODES))
        word = Envelope[JudgeInForce](key="judge", target=f"{SITE}/all", counter=now, valid_until=until, body=body)
        await self.bus.publish(JUDGE, word, site=SITE)
        jobs = [OpenJob(job=job, product="p", done=0) for job in JOBS]
        for node in NODES:
            told = Delegation(term=term, session="c0c0c0c0", revision=1, at=now, jobs=jobs)
            await self.bus.publish(DELEGATION, told, site=SITE, node=node)

    async def award(self, job: str, machine: str, now: int) -> None:
        body = Award(term=1, session="c0c0c0c0", job=job, op=0, round=1, machine=machine, seconds=720.0)
        name, node = task_of(job, 0), f"n{machine[-1]}"
        award = Envelope[Award](
            key=name, target=f"{SITE}/{node}", counter=2**24 + 1, valid_until=now + 3600 * SECOND, body=body
        )
        await self.bus.publish(AWARD, award, site=SITE, node=node, task=name)

    def obey(self, term: int) -> bool:
        return [self.agendas[node].term for node in NODES if node in self.agendas] == [term] * len(NODES)


class Site:
    """The machines on the site's broker, somebody who listens there, and time."""

    def __init__(self, port: int, plant: Path, clock: ClockService) -> None:
        self.clock, self.plant = clock, load_plant(plant)
        self.factory = Factory(self.plant, start=T0, products=dict.fromkeys(JOBS, "p"))
        self.held: dict[tuple[str, int], Burst] = {}
        self.seqs: Counter[str] = Counter()
        self.words: dict[str, Envelope[JudgeInForce]] = {}
        self.heard: list[tuple[int, str]] = []
        self.awards: dict[tuple[str, str], Message] = {}
        self.dead: set[str] = set()
        self.bus = Bus("127.0.0.1", port, client_id="machines", backoff_s=(0.05, 0.2))
        self.bus.on(ACTION, self._on_action, site=SITE)
        self.bus.on(TAKEN, self._on_taken, site=SITE)
        self.bus.on(PEER_JUDGE, self._on_word, on_cleared=self._on_word_cleared, site=SITE)
        self.bus.on(PEER_AWARD, self._on_award, on_cleared=self._on_award_cleared, site=SITE)

    async def _on_action(self, received: Received) -> None:
        self.factory.act(received.ids["device"], received.message, self.clock.now)

    async def _on_taken(self, received: Received) -> None:
        taken: Taken = received.message
        for low, high in taken.ranges:
            for seq in range(low, high + 1):
                self.held.pop((received.ids["device"], seq), None)

    async def _on_word(self, received: Received) -> None:
        word: Envelope[JudgeInForce] = received.message
        self.words[received.ids["node"]] = word
        if (said := (word.body.term, word.body.judge)) not in self.heard:
            self.heard.append(said)

    async def _on_word_cleared(self, ids: dict[str, str]) -> None:
        self.words.pop(ids["node"], None)

    async def _on_award(self, received: Received) -> None:
        self.awards[received.ids["node"], received.ids["task"]] = received.message

    async def _on_award_cleared(self, ids: dict[str, str]) -> None:
        self.awards.pop((ids["node"], ids["task"]), None)

    async def step(self) -> None:
        """Two minutes: the machines, then, when they have been heard, the nodes."""
        now = self.clock.now + STEP
        self.factory.advance(now)
        for device in self.factory.talking():
            events, seq = self.factory.drain(device), self.seqs[device]
            self.seqs[device] += 1
            self.held[device, seq] = Burst(
                boot="b001b001", seq=seq, floor=0, first=0, t0=now, at=[], columns={}, units={}, events=events
            )
        await eventually(self._all_taken)
        await self.clock.step(to=now)

    async def _all_taken(self) -> bool:
        there = {key: one for key, one in self.held.items() if self.plant.node_of(key[0]) not in self.dead}
        for (device, _), burst in sorted(there.items()):
            try:
                await self.bus.publish(BURST, burst, site=SITE, node=self.plant.node_of(device), device=device)
            except BusLost:
                break
        if there:
            await asyncio.sleep(0.01)
        return not [key for key in there if key in self.held]

    async def until(self, condition: Callable[[], bool], *, steps: int) -> None:
        """Steps of time until it is so, with a moment for the bus in each; after the last of them it must get so."""
        for _ in range(steps):
            if condition():
                return
            await self.step()
            for _ in range(10):
                if condition():
                    return
                await asyncio.sleep(0.003)
        await eventually(condition, what=f"{steps} steps and a minute later: {self.heard} {self.runs()}")

    def runs(self) -> Counter[tuple[str, int]]:
        return Counter((one.job, one.op) for one in self.factory.done)


class Edge(EdgeProcess):
    """One of two nodes."""

    def __init__(self, folder: Path, node: str, plant: Path, ports: tuple[int, int], **settings: object) -> None:
        super().__init__(folder, ports[0], uplink_port=ports[1], **settings)
        told = folder / "node.toml"
        lines = told.read_text().splitlines()
        lines[:3] = [f'site = "{SITE}"', f'node = "{node}"', f'plant = "{plant}"']
        told.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("brokers", [2, 1], ids=["two brokers", "one broker"])
async def test_while_the_cloud_is_away_a_delegate_awards_and_every_task_is_done_once(
    tmp_path: Path, broker: Broker, brokers: int
) -> None:
    plant = tmp_path / "plant.toml"
    plant.write_text(PLANT)
    async with AsyncExitStack() as stack:
        uplink = stack.enter_context(Broker(directory=tmp_path / "uplink")) if brokers == 2 else broker
        clock = await stack.enter_async_context(ClockService(start=T0))
        site, cloud = Site(broker.port, plant, clock), Cloud(uplink.port)
        ports, settings = (broker.port, uplink.port), {"clock": f"127.0.0.1:{clock.port}"}
        edges = {node: stack.enter_context(Edge(tmp_path / node, node, plant, ports, **settings)) for node in NODES}
        for bus in (site.bus, cloud.bus):
            running = asyncio.ensure_future(bus.run())
            stack.push_async_callback(_ended, running)
            await bus.wait_connected(60)
        await clock.gather(set(NODES), timeout_s=60)
        await site.step()

        silent_at = clock.now + 5 * STEP
        await cloud.judge(1, clock.now, silent_at)
        await cloud.award("j1", "cut-2", clock.now)
        await eventually(lambda: cloud.obey(1) and all(one.delegate for one in cloud.agendas.values()) and cloud.acks)
        assert cloud.acks[0].accepted
        while clock.now < silent_at - STEP:
            await site.step()
            assert not site.heard, "the judge is not silent yet"
        if brokers == 2:
            uplink.kill()

        expected = [(2, "n1")]
        await site.until(lambda: site.heard == expected, steps=10)
        await site.until(lambda: sum(site.runs().values()) >= 4, steps=100)
        if brokers == 2:  # the delegate dies: the next one goes on, and it obeys that one when it is back
            edges["n1"].kill()
            site.dead.add("n1")
            expected.append((3, "n2"))
            await site.until(lambda: site.heard == expected, steps=60)
            edges["n1"].start()
            await clock.gather(set(NODES), timeout_s=60)
            await clock.step(to=clock.now)  # before it knows the time it hears no machine
            site.dead.clear()
            await site.until(lambda: list(site.words) == ["n2"], steps=10)
            uplink.start()
            await cloud.bus.wait_connected(60)

        term = expected[-1][0]
        await eventually(lambda: cloud.obey(term))
        await cloud.judge(term + 1, clock.now, clock.now + 5 * STEP)
        await eventually(lambda: cloud.obey(term + 1))
        await site.until(lambda: not site.words and not site.awards, steps=3)
        assert site.heard == expected, "who is fenced is silent"

        expected.append((term + 2, "n1"))
        await site.until(lambda: site.heard == expected, steps=20)
        await site.until(lambda: set(site.runs()) == WANTED, steps=300)
        assert site.runs() == dict.fromkeys(WANTED, 1)
        for edge in edges.values():
            assert edge.stop() == 0, edge.said()


async def _ended(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
