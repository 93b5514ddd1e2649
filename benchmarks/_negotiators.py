"""Machine agents for the benchmark of negotiations: nodes of ten machines each, several nodes in one process.

    python benchmarks/_negotiators.py --port 1883 --nodes 10 --first 0 --last 4

Every node is a connection of its own (`messages.bus.Bus`) with the real `Executor` and `Bidding`; its state is encoded
whenever a node would write it to its disk, but not written. Machines are stood in for: a part is there when it is
called, and work is done as soon as it begins.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from edge.bidding import Bidding  # noqa: E402
from edge.executor import Executor, Out  # noqa: E402
from messages.bus import Bus, Received  # noqa: E402
from messages.contracts import Action, MachineEvent, Presence  # noqa: E402
from messages.logs import configure  # noqa: E402
from messages.message import Message  # noqa: E402
from messages.negotiation import task_of  # noqa: E402
from messages.plant import Plant  # noqa: E402
from messages.process import run_until_stopped  # noqa: E402
from messages.route import Route  # noqa: E402
from messages.routes import AGENDA, AWARD, AWARD_ACK, BID, JUDGE, OFFER, PRESENCE  # noqa: E402

SITE = "net"
MACHINES = 10
"""Per node."""
WORK_S = 60.0
"""Nominal time of every operation."""


def now_us() -> int:
    """Plant time is the time of day."""
    return time.time_ns() // 1000


def node_name(n: int) -> str:
    """Name of node `n`."""
    return f"n{n:03}"


def plant_of(nodes: int, able: int) -> Plant:
    """`nodes` nodes of ten machines; product n is made by all machines of `able` nodes in a row, beginning with n."""
    names = [[f"m{n:03}-{k}" for k in range(MACHINES)] for n in range(nodes)]
    hours = WORK_S / 3600
    watts = {"work_kw": 10.0, "idle_kw": 1.0, "preheat_kw": 0.0, "preheat_h": 0.0}
    steps = {
        f"p{n:03}": [{"time_h": {name: hours for k in range(able) for name in names[(n + k) % nodes]}}]
        for n in range(nodes)
    }
    workshops = [
        {"name": node_name(n), "node": node_name(n), "machines": [{"id": name, **watts} for name in names[n]]}
        for n in range(nodes)
    ]
    return Plant.model_validate(
        {
            "site": SITE,
            "tick_s": 1.0,
            "transport_s": 0.0,
            "products": list(steps),
            "routes": steps,
            "workshops": [{**one, "machines": [{**m, "time_h": {}} for m in one["machines"]]} for one in workshops],
        }
    )


class Agents:
    """One node: hears offers and awards, answers, and has its machines do the work."""

    def __init__(self, plant: Plant, node: str, port: int) -> None:
        self.node = node
        self.executor = Executor(plant, node)
        self.bidding = Bidding(self.executor)
        self.bus = Bus("127.0.0.1", port, client_id=f"{SITE}-{node}", keepalive_s=60, connect_timeout_s=30.0)
        self.bus.on(JUDGE, self._on_judge, site=SITE)
        self.bus.on(OFFER, self._on_offer, site=SITE, node=node)
        self.bus.on(AWARD, self._on_award, on_cleared=self._on_cleared, site=SITE, node=node)
        self.bus.on_connect(self._hello)
        self._said: tuple[object, ...] = ()

    async def _hello(self) -> None:
        await self.bus.publish(PRESENCE, Presence(online=True, session="a0000001"), site=SITE, node=self.node)

    async def _on_judge(self, received: Received) -> None:
        self.executor.awards.obey(received.message.body.authority)
        self._keep(Out())

    async def _on_offer(self, received: Received) -> None:
        obeyed = self.executor.awards.authority
        bid = self.bidding.bid(received.message, now_us())
        if self.executor.awards.authority != obeyed:
            self._keep(Out())
        if bid is not None:
            self._send(BID, bid, task=task_of(bid.job, bid.op))

    async def _on_award(self, received: Received) -> None:
        out = self.executor.on_award(received.message, now_us())
        self._keep(out)
        todo = list(out.actions)
        while todo:
            more = self._work(*todo.pop(0))
            self._keep(more)
            todo += more.actions

    async def _on_cleared(self, ids: dict[str, str]) -> None:
        self.executor.awards.confirmed(ids["task"])

    def _work(self, machine: str, action: Action) -> Out:
        """What a machine without inertia says to it."""
        at = now_us()
        common = {"at": at, "job": action.job, "op": action.op, "action": action.id}
        match action.kind:
            case "call":
                events = [MachineEvent(kind="part_identified", **common)]
            case "start":
                done = MachineEvent(at=at + 1, kind="finished", job=action.job, op=action.op)
                events = [MachineEvent(kind="started", **common), done]
            case kind:
                events = [MachineEvent(at=at, kind="state", state=kind, action=action.id)]
        return self.executor.on_events(machine, events, at)

    def _keep(self, out: Out) -> None:
        """As `edge.node.Node._commit`, without the disk."""
        self.executor.snapshot()
        for ack in out.award_acks:
            self._send(AWARD_ACK, ack, task=task_of(ack.job, ack.op))
        awards = self.executor.awards
        held = (awards.term, awards.session, awards.revision)
        agenda = self.bidding.agenda(now_us()) if held != self._said else None
        if agenda is not None:
            self._said = held
            self._send(AGENDA, agenda)

    def _send(self, route: Route, message: Message, **level: str) -> None:
        answer = self.bus.publish_nowait(route, message, site=SITE, node=self.node, **level)
        answer.add_done_callback(lambda one: one.cancelled() or one.exception())


async def host(options: argparse.Namespace) -> None:
    """The nodes from `first` to `last`, until stopped."""
    plant = plant_of(options.nodes, options.able)
    agents = [Agents(plant, node_name(n), options.port) for n in range(options.first, options.last)]
    async with asyncio.TaskGroup() as tasks:
        for one in agents:
            tasks.create_task(one.bus.run())


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True, help="of the whole site")
    parser.add_argument("--able", type=int, default=3, help="nodes whose machines can make a product")
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--last", type=int, required=True, help="not included")
    configure("negotiators", level="warning")
    raise SystemExit(run_until_stopped(host(parser.parse_args())))


if __name__ == "__main__":
    main()
