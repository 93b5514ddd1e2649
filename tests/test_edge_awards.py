"""A real edge process on a real broker takes part in the contract net: it bids, holds, begins, and obeys one judge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from conftest import eventually
from edge_rig import DEVICE, NODE, SITE, T0, EdgeProcess, Machine

from messages.broker import Broker
from messages.bus import Bus, Received
from messages.clock import SECOND, ClockService
from messages.contracts import Envelope, MachineEvent, Presence
from messages.message import Message
from messages.negotiation import Agenda, Award, AwardAck, Bid, JudgeInForce, Offer, task_of
from messages.routes import AGENDA, AWARD, AWARD_ACK, BID, JUDGE, OFFER, PRESENCE

MINUTE = 60 * SECOND
TASK = task_of("b01", 3)
JUDGES = {"old": (1, "aaaaaaaa"), "new": (2, "00000000")}


class Judge:
    """What a judge says and hears."""

    def __init__(self, port: int) -> None:
        self.bus = Bus("127.0.0.1", port, client_id="judge")
        self.heard: list[Message] = []
        for route in (BID, AWARD_ACK, AGENDA, PRESENCE):
            self.bus.on(route, self._on, site=SITE)

    async def _on(self, received: Received) -> None:
        self.heard.append(received.message)

    def last(self, kind: type[Message]) -> Message | None:
        return next((one for one in reversed(self.heard) if isinstance(one, kind)), None)

    async def meet(self) -> None:
        """Wait for the node: an offer made before it listens is heard by nobody, as no broker keeps offers."""
        await eventually(lambda: any(isinstance(one, Presence) and one.online for one in self.heard))

    async def offer(self, by: str, now: int, round_: int) -> None:
        term, session = JUDGES[by]
        offer = Offer(
            term=term, session=session, job="b01", op=3, round=round_, deadline=now + MINUTE, seconds={DEVICE: 3600.0}
        )
        await self.bus.publish(OFFER, offer, site=SITE, node=NODE, task=TASK)

    async def award(self, by: str, now: int, counter: int, machine: str | None = DEVICE) -> None:
        term, session = JUDGES[by]
        body = Award(term=term, session=session, job="b01", op=3, round=1, machine=machine, seconds=3600.0)
        envelope = Envelope[Award](
            key=TASK, target=f"{SITE}/{NODE}", counter=counter, valid_until=now + 240 * MINUTE, body=body
        )
        await self.bus.publish(AWARD, envelope, site=SITE, node=NODE, task=TASK)

    async def acknowledged(self, counter: int) -> AwardAck:
        def found() -> AwardAck | None:
            ack = self.last(AwardAck)
            return ack if isinstance(ack, AwardAck) and ack.counter == counter else None

        ack: AwardAck = await eventually(found)
        self.heard.clear()
        return ack


@asynccontextmanager
async def running(*buses: Bus) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(bus.run()) for bus in buses]
    try:
        for bus in buses:
            await bus.wait_connected(60)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_node_bids_holds_through_a_kill_begins_once_and_obeys_the_highest_judge(
    tmp_path: Path, broker: Broker
) -> None:
    machine, judge = Machine(broker.port), Judge(broker.port)
    async with ClockService(start=T0) as clock:
        with EdgeProcess(tmp_path / "edge", broker.port, clock=f"127.0.0.1:{clock.port}") as edge:
            async with running(machine.bus, judge.bus):
                await clock.gather({NODE}, timeout_s=60)
                await clock.step(to=T0 + MINUTE)
                now = clock.now

                await judge.meet()
                await judge.offer("old", now, 1)
                bid = await eventually(lambda: judge.last(Bid))
                [one] = bid.bids
                assert (one.machine, bid.round, one.end_at - one.start_at) == (DEVICE, 1, 3600 * SECOND)
                assert one.start_at > now, "it is cold: first it must be heated"

                await judge.award("old", now, 5)
                assert (await judge.acknowledged(5)).accepted
                call = (await eventually(lambda: machine.actions))[0]
                assert (call.kind, call.job, call.op) == ("call", "b01", 3)

                await judge.award("old", now, 4)
                late = await judge.acknowledged(4)
                assert (late.accepted, late.held) == (False, 5)

                edge.kill()
                await clock.step(to=clock.now)
                edge.start()
                await clock.gather({NODE}, timeout_s=60)
                await clock.step(to=now + MINUTE)
                agenda = await eventually(lambda: judge.last(Agenda))
                assert [(held.job, held.op, held.counter, held.state) for held in agenda.awards] == [
                    ("b01", 3, 5, "held")
                ]

                term, session = JUDGES["new"]
                body = JudgeInForce(term=term, session=session, judge="cloud", at=now)
                envelope = Envelope[JudgeInForce](
                    key="judge", target=f"{SITE}/all", counter=term, valid_until=now + 60 * MINUTE, body=body
                )
                await judge.bus.publish(JUDGE, envelope, site=SITE)
                agenda = await eventually(
                    lambda: next((a for a in judge.heard if isinstance(a, Agenda) and a.term == 2), None)
                )
                assert agenda.awards, "who judges changes, what is held does not"
                judge.heard.clear()
                await judge.award("old", now, 6)
                fenced = await judge.acknowledged(6)
                assert not fenced.accepted and "term 2" in (fenced.reason or "")

                machine.actions.clear()
                seen = MachineEvent(at=clock.now, kind="part_identified", job="b01", op=3, action=call.id)
                machine.send(machine.make(events=[seen, MachineEvent(at=clock.now, kind="state", state="idle")]))
                await eventually(lambda: not machine.held)
                await clock.step(to=clock.now + 10 * MINUTE)
                start = await eventually(lambda: next((a for a in machine.actions if a.kind == "start"), None))
                assert start.duration_s == 3600.0
                await judge.award("new", now, 7, machine=None)
                doubtful = await judge.acknowledged(7)
                assert not doubtful.accepted and "may have begun" in (doubtful.reason or "")
                begun = MachineEvent(at=clock.now, kind="started", job="b01", op=3, action=start.id)
                machine.send(machine.make(events=[begun]))
                agenda = await eventually(
                    lambda: next(
                        (
                            a
                            for a in judge.heard
                            if isinstance(a, Agenda) and a.awards and a.awards[0].state == "started"
                        ),
                        None,
                    )
                )
                assert agenda.free_at[DEVICE] == begun.at + 3600 * SECOND

                ended = MachineEvent(at=clock.now, kind="finished", job="b01", op=3)
                machine.send(machine.make(events=[ended]))
                await eventually(lambda: [held.state for held in judge.last(Agenda).awards] == ["finished"])
                await judge.bus.clear(AWARD, site=SITE, node=NODE, task=TASK)
                judge.heard.clear()
                await clock.step(to=clock.now + 2 * MINUTE)
                agenda = await eventually(lambda: judge.last(Agenda))
                assert not agenda.awards, "what the judge knows to be done is not said for ever"
                await judge.award("new", clock.now, 8)
                late = await judge.acknowledged(8)
                assert not late.accepted and "running or done" in (late.reason or "")
            assert edge.stop() == 0, edge.said()
