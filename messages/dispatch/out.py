"""Offers and awards as they go out to one node."""

from __future__ import annotations

from collections.abc import Mapping

from messages.contracts import Envelope
from messages.dispatch.task import Send, Task
from messages.negotiation import Authority, Award, Offer, task_of


def offer_to(
    node: str, task: Task, seconds: Mapping[str, float], authority: Authority, arrives_at: Mapping[str, int]
) -> Send:
    """`seconds`: the node's able machines; `arrives_at`: when the part could be there, where that is foreseen."""
    body = Offer(
        term=authority.term,
        session=authority.session,
        job=task.job,
        op=task.op,
        round=task.round,
        deadline=task.deadline,
        seconds=dict(seconds),
        arrives_at={name: arrives_at[name] for name in seconds if name in arrives_at},
        due_at=task.due_at,
    )
    return Send("offer", node, task_of(*task.key), body)


def award_to(
    target: tuple[str, str], task: Task, machine: str, authority: Authority, *, counter: int, withdrawn: bool
) -> Send:
    """`target`: site and node of the machine; `withdrawn`: the award is asked back."""
    site, node = target
    body = Award(
        term=authority.term,
        session=authority.session,
        job=task.job,
        op=task.op,
        round=task.round,
        machine=None if withdrawn else machine,
        not_before=task.not_before,
        seconds=task.seconds.get(machine, 0.0),
        last=task.last,
        ahead=0 if withdrawn else task.ahead,
        fetch_at=None if withdrawn else task.fetch_at,
        cancelled=task.cancelled and withdrawn,
    )
    envelope = Envelope[Award](
        key=task_of(*task.key), target=f"{site}/{node}", counter=counter, valid_until=task.lease, body=body
    )
    return Send("award", node, envelope.key, envelope)
