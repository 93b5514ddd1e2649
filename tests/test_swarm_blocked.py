"""Parts that are in each other's way, or only seem to be: what nodes say of their outputs, and what the judge tries."""

from __future__ import annotations

from typing import Any

from edge.bidding import Bidding
from edge.executor import Executor
from messages.clock import SECOND
from messages.contracts import Envelope, Finished, MachineEvent, OrderedJob
from messages.dispatch.agent import Dispatcher
from messages.dispatch.ground import Ground
from messages.dispatch.judge import ByRule
from messages.dispatch.situation import situation
from messages.dispatch.tenders import Tenders
from messages.negotiation import Agenda, Authority, Award, Bid, MachineBid, Offer, Output, task_of
from messages.plant import Plant

ME = Authority(1, "0000000a")
MACHINE = {"work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0, "buffer": {"in": 1, "out": 1}}
PLANT = Plant.model_validate(
    {
        "site": "s",
        "tick_s": 1.0,
        "products": ["p", "q"],
        "routes": {
            "p": [{"time_h": {"a": 0.01}}, {"time_h": {"b": 0.01}}],
            "q": [{"time_h": {"b": 0.01}}, {"time_h": {"a": 0.01}}],
        },
        "workshops": [{"name": f"w{name}", "node": f"n{name}", "machines": [MACHINE | {"id": name}]} for name in "ab"],
    }
)
FULL = {"j1": "a", "j2": "a", "k1": "b", "k2": "b"}
"""job → the machine behind which its part lies: both have one place, and one part too many to begin"""


class Site:
    """A judge of the plant to whom both nodes speak, with a floor that is `FULL`."""

    def __init__(self) -> None:
        self.book = Tenders(ME, site="s", judge="cloud", machines={"a": "na", "b": "nb"})
        self.agent = Dispatcher(PLANT, self.book, ByRule(kind="fifo"), t0=0)
        jobs = [OrderedJob(job=job, product="p" if machine == "a" else "q") for job, machine in FULL.items()]
        self.agent.add(jobs)
        self.revision = 0
        for node in ("na", "nb"):
            self.book.on_presence(node, True)
            self.agenda(node, 0)
        self.agent.on_tick(0)
        for job, machine in FULL.items():
            self.agent.on_record(Finished(at=10 * SECOND, machine=machine, job=job, op=0, started_at=SECOND))

    def agenda(self, node: str, at_s: int, **more: Any) -> None:
        self.revision += 1
        self.book.on_agenda(node, Agenda(term=1, session=ME.session, revision=self.revision, at=at_s * SECOND, **more))

    def awarded(self, at_s: int) -> dict[str, str]:
        """One tick in which all bid, and one to decide: job → its machine."""
        now, found = at_s * SECOND, {}
        for send in (one for _ in range(3) for one in self.agent.on_tick(now)):
            if isinstance(send.message, Offer):
                offer = send.message
                bids = [
                    MachineBid(machine=name, start_at=now, end_at=now + round(seconds * SECOND), energy_kwh=0)
                    for name, seconds in offer.seconds.items()
                ]
                answer = {"job": offer.job, "op": offer.op, "round": offer.round, "bids": bids}
                self.book.on_bid(
                    send.node, Bid(term=1, session=ME.session, at=now, valid_until=now + 600 * SECOND, **answer)
                )
            elif send.what == "award":
                found[send.message.body.job] = send.message.body.machine  # type: ignore[attr-defined]
        return found

    def kept(self, at_s: int) -> dict[str, int]:
        state, _ = situation(Ground(PLANT, 0), self.agent.jobs, self.book, now=at_s * SECOND)
        return {name: machine.kept for name, machine in state.machines.items()}


def test_a_part_that_was_put_aside_takes_no_place_in_the_judges_eyes_and_the_plant_goes_on() -> None:
    site = Site()
    assert site.kept(20) == {"a": 2, "b": 2}
    site.agenda("na", 9, outputs={"a": Output(at=9 * SECOND)})
    assert site.kept(20) == {"a": 2, "b": 2}, "said before the work ended"
    before = site.book.version
    site.agenda("na", 20, outputs={"a": Output(at=10 * SECOND, jobs=["j1", "j2"])})
    assert (site.kept(20), site.book.version) == ({"a": 2, "b": 2}, before)
    site.agenda("na", 21, outputs={"a": Output(at=10 * SECOND, jobs=["j2"])})
    assert site.kept(21) == {"a": 1, "b": 2}
    assert site.book.version > before, "the judge is asked anew"
    assert "a" in site.awarded(22).values()


def test_where_all_block_each_other_and_nothing_is_at_work_one_is_awarded_and_frees_the_others() -> None:
    site = Site()
    awarded = site.awarded(20)
    assert set(awarded.values()) == {"a", "b"}, "one was tried, and then another was not blocked any more"


def test_nothing_is_tried_while_anything_is_at_work() -> None:
    site = Site()
    at_work = {"job": "j1", "op": 1, "machine": "b", "counter": 7, "state": "started", "at": 0, "valid_until": 0}
    site.book.add(site.book.tasks["j1", 1].model_copy(update={"job": "other", "op": 0}))
    site.agenda("nb", 15, awards=[at_work | {"job": "other", "op": 0}])
    assert site.awarded(20) == {}


def test_a_node_says_which_parts_lie_behind_its_machines_and_at_once_when_it_put_one_aside() -> None:
    """The call of a part for the machine behind which it lies is taken back when the award is."""
    executor = Executor(PLANT, "na")
    bidding = Bidding(executor)

    def award(counter: int, machine: str | None, at_s: int) -> None:
        body = Award(term=1, session=ME.session, round=1, job="k1", op=1, machine=machine, seconds=36)
        executor.on_award(
            Envelope[Award](
                key=task_of("k1", 1), target="s/na", counter=counter, valid_until=9_000 * SECOND, body=body
            ),
            at_s * SECOND,
        )

    def event(kind: Any, at_s: int, op: int, action: str | None = None) -> None:
        executor.on_events(
            "a", [MachineEvent(at=at_s * SECOND, kind=kind, job="k1", op=op, action=action)], 12 * SECOND
        )

    def outputs() -> Output:
        agenda = bidding.agenda(12 * SECOND)
        assert agenda is not None
        return agenda.outputs["a"]

    award(1, "a", 1)
    event("started", 5, 0)
    event("finished", 10, 0)
    assert outputs() == Output(at=10 * SECOND, jobs=["k1"])
    (call,) = executor.machines["a"].parts.called.values()
    award(2, None, 12)
    (drop,) = executor.machines["a"].parts.called.values()
    assert (call.action.kind, drop.action.kind) == ("call", "drop")
    before = executor.awards.revision
    event("part_left", 12, 0, drop.action.id)
    assert outputs() == Output(at=10 * SECOND)
    assert executor.awards.revision > before
