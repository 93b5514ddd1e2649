"""The judge for the benchmark of negotiations: real book, real agent, a rule, on a connection of its own.

    python benchmarks/_negotiations.py --port 1883 --nodes 10 --able 3 --open 10 --seconds 10 --pids 71,72,73

`--open` tasks are kept in negotiation all the time, or `--rate` tasks a second are begun. When every node obeys, some
seconds pass, then `--seconds` are measured. The last line is a JSON object: awards acknowledged, milliseconds from an
offer to the acknowledgement of the award, messages and bytes by route as they came and went here, and the CPU time of
this process and of `--pids`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from _negotiators import SITE, now_us, plant_of  # noqa: E402

from messages.bus import Bus, Received  # noqa: E402
from messages.contracts import Envelope, OrderedJob  # noqa: E402
from messages.dispatch.agent import Dispatcher  # noqa: E402
from messages.dispatch.judge import ByRule  # noqa: E402
from messages.dispatch.task import Send  # noqa: E402
from messages.dispatch.tenders import Tenders  # noqa: E402
from messages.errors import BusLost  # noqa: E402
from messages.logs import configure  # noqa: E402
from messages.negotiation import Authority, JudgeInForce, task_of  # noqa: E402
from messages.routes import AGENDA, AWARD, AWARD_ACK, BID, JUDGE, OFFER, PRESENCE  # noqa: E402

WARM_S = 2.0
SESSION = "beef0001"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
IDLE_S = 0.2
"""The agent looks at the time at least so often."""


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Negotiations:
    """The scheduling agent on the bus."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        plant = plant_of(options.nodes, options.able)
        self.products = plant.products
        machines = {name: plant.node_of(name) for name in plant.machines}
        self.book = Tenders(Authority(1, SESSION), site=SITE, judge="cloud", machines=machines)
        self.agent = Dispatcher(plant, self.book, ByRule(kind="fifo"), t0=now_us())
        self.bus = Bus("127.0.0.1", options.port, client_id=f"{SITE}-judge", keepalive_s=60)
        self.bus.on(PRESENCE, self._on_presence, batch=True, site=SITE)
        self.bus.on(AGENDA, self._on_agenda, batch=True, site=SITE)
        self.bus.on(BID, self._on_bid, batch=True, site=SITE)
        self.bus.on(AWARD_ACK, self._on_ack, batch=True, site=SITE)
        self.wake = asyncio.Event()
        self.out: deque[tuple[Any, bytes, dict[str, str]]] = deque()
        self.messages: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.begun: dict[str, float] = {}
        self.awarded: dict[str, str] = {}
        self.took_ms: list[float] = []
        self.ended = self.jobs = 0
        self.decide_s = 0.0

    # --- what arrives ---------------------------------------------------------------------------------

    def _count(self, name: str, received: list[Received]) -> None:
        self.messages[name] += len(received)
        self.bytes[name] += sum(len(one.payload) for one in received)
        self.wake.set()

    async def _on_presence(self, received: list[Received]) -> None:
        for one in received:
            self.book.on_presence(one.ids["node"], one.message.online)
        self.wake.set()

    async def _on_agenda(self, received: list[Received]) -> None:
        self._count("agenda", received)
        for one in received:
            self._send(self.book.on_agenda(one.ids["node"], one.message))

    async def _on_bid(self, received: list[Received]) -> None:
        self._count("bid", received)
        for one in received:
            self.book.on_bid(one.ids["node"], one.message)

    async def _on_ack(self, received: list[Received]) -> None:
        self._count("ack", received)
        for one in received:
            ack = one.message
            self.book.on_ack(one.ids["node"], ack, now_us())
            if ack.accepted and ack.job in self.begun:
                self.took_ms.append(1000 * (time.monotonic() - self.begun.pop(ack.job)))

    # --- what goes out --------------------------------------------------------------------------------

    def _send(self, sends: list[Send]) -> None:
        for one in sends:
            message, ids = one.message, {"site": SITE, "node": one.node, "task": one.task}
            route = {"offer": OFFER, "award": AWARD, "judge": JUDGE}[one.what]
            if isinstance(message, JudgeInForce):
                until = message.at + 3600 * 1_000_000
                message = Envelope[JudgeInForce](
                    key="judge", target=f"{SITE}/all", counter=message.at, valid_until=until, body=message
                )
                ids = {"site": SITE}
            elif one.what == "offer":
                self.begun.setdefault(message.job, time.monotonic())
            else:
                self.awarded[message.body.job] = one.node
            payload = message.encode()
            self.messages[one.what] += 1
            self.bytes[one.what] += len(payload)
            self._publish(route, payload, ids)

    def _publish(self, route: Any, payload: bytes, ids: dict[str, str]) -> None:
        self.out.append((route, payload, ids))
        self._flush()

    def _flush(self) -> None:
        """As much as the bus takes at a time; an answer makes room for more."""
        with contextlib.suppress(BusLost):
            while self.out:
                route, payload, ids = self.out[0]
                answer = self.bus.publish_nowait(route, payload=payload, **ids)
                answer.add_done_callback(self._answered)
                self.out.popleft()

    def _answered(self, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._flush()

    def _forget_done(self) -> None:
        """What is done leaves the book, and the retained award the broker."""
        for key in [task.key for task in self.book.tasks.values() if task.state == "done"]:
            job, op = key
            self.ended += 1
            self.book.forget(job)
            del self.agent.jobs[job]
            ids = {"site": SITE, "node": self.awarded.pop(job), "task": task_of(job, op)}
            self.messages["clear"] += 1
            self._publish(AWARD, b"", ids)

    def _new_jobs(self, wanted: int) -> None:
        fresh = []
        for _ in range(wanted):
            product = self.products[7 * self.jobs % len(self.products)]
            fresh.append(OrderedJob(job=f"j{self.jobs:06}", product=product))
            self.jobs += 1
        self.agent.add(fresh)

    async def _step(self, wait_s: float = IDLE_S) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await self.wake.wait()
        self.wake.clear()
        self._forget_done()

    def _tick(self) -> None:
        began = time.process_time()
        sends = self.agent.on_tick(now_us())
        self.decide_s += time.process_time() - began
        self._send(sends)

    # --- the course -----------------------------------------------------------------------------------

    async def measure(self) -> dict[str, Any]:
        """Begin, wait until all obey, warm up, measure."""
        options = self.options
        await self.bus.wait_connected(30)
        async with asyncio.timeout(120):
            while len(self.book.nodes.online) < options.nodes or not self.book.established:
                self._tick()
                await self._step()
        begin = until = 0.0
        since = time.monotonic()
        before: dict[int, float] = {}
        while not until or time.monotonic() < until:
            wait_s = IDLE_S
            if options.rate:
                self._new_jobs(int((time.monotonic() - since) * options.rate) - self.jobs)
                wait_s = min(IDLE_S, since + (self.jobs + 1) / options.rate - time.monotonic())
            else:
                self._new_jobs(options.open - len(self.agent.jobs))
            self._tick()
            await self._step(wait_s)
            if not until and time.monotonic() > since + WARM_S:
                begin = time.monotonic()
                until = begin + options.seconds
                before = {pid: cpu_s(pid) for pid in (os.getpid(), *options.pids)}
                self.messages.clear()
                self.bytes.clear()
                self.took_ms.clear()
                self.ended, self.decide_s = 0, 0.0
        spent = {pid: cpu_s(pid) - one for pid, one in before.items()}
        return {
            "seconds": time.monotonic() - begin,
            "awards": len(self.took_ms),
            "ended": self.ended,
            "took_ms": [round(one, 3) for one in self.took_ms],
            "messages": self.messages,
            "bytes": self.bytes,
            "agent_cpu_s": self.decide_s,
            "cpu_s": [spent[pid] for pid in (os.getpid(), *options.pids)],
        }


async def run(options: argparse.Namespace) -> None:
    """Measure once and print."""
    judge = Negotiations(options)
    bus = asyncio.create_task(judge.bus.run())
    try:
        print(json.dumps(await judge.measure()), flush=True)
    finally:
        bus.cancel()
        await asyncio.wait({bus})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--able", type=int, default=3, help="nodes whose machines can make a product")
    parser.add_argument("--open", type=int, default=10, help="tasks in negotiation at a time")
    parser.add_argument("--rate", type=float, default=0.0, help="instead: tasks begun a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pids", type=lambda text: [int(one) for one in text.split(",")], default=[])
    configure("negotiations", level="warning")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
