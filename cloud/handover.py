"""Who may still start what: the memory behind holds, so that no operation is started by two nodes.

Pure. Every plan grants its operations to nodes. A grant ends when its node has acknowledged a later revision, or with
the lease it was given under. While another node holds a grant of an operation, its new owner is held.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence

from pydantic import BaseModel

from messages.contracts import Hold
from messages.floor import Key
from messages.plan import Plan

NodeOf = Callable[[str], str]


class Grant(BaseModel):
    """A node that some plan allowed to start an operation, and that has not obeyed a later plan yet."""

    job: str
    op: int
    node: str
    until: int


def granted(
    known: Iterable[Grant],
    plan: Plan,
    node_of: NodeOf,
    *,
    until: int,
    now: int,
    over: Container[Key],
    jobs: Container[str],
) -> list[Grant]:
    """`known` and what `plan` grants until the end of its lease; less what has ended, begun (`over`) or left `jobs`."""
    found = {(one.job, one.op, one.node): one for one in known}
    for one in plan.assignments:
        if not one.interrupted:
            node = node_of(one.machine)
            found[one.job, one.op, node] = Grant(job=one.job, op=one.op, node=node, until=until)
    return [one for one in found.values() if one.until > now and one.job in jobs and (one.job, one.op) not in over]


def without(known: Sequence[Grant], node: str) -> list[Grant]:
    """After `node` has acknowledged the revision in force."""
    return [one for one in known if one.node != node]


def holds(known: Iterable[Grant], plan: Plan, node_of: NodeOf, *, skew_us: int) -> list[Hold]:
    """For every operation of a new plan, the other nodes that may still start it."""
    owner = {(one.job, one.op): node_of(one.machine) for one in plan.assignments if not one.interrupted}
    return [
        Hold(job=one.job, op=one.op, owner=one.node, until=one.until + skew_us)
        for one in known
        if owner.get((one.job, one.op), one.node) != one.node
    ]
