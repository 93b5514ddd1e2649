"""What a swarm did about each disturbance, from what really happened.

answered(troubles, happenings, chronicle, jobs, reigns, start=t0)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from messages.clock import SECOND
from messages.contracts import OrderedJob
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.disturb import Happening
from shoal.swarm.outcome import Key, Run, Trouble


@dataclass
class Reign:
    """Somebody judged from `begin` to `end`; None: to the last."""

    name: str
    term: int
    begin: int
    end: int | None = None
    fenced: bool = False


def answered(
    troubles: Sequence[tuple[Trouble, Happening]],
    chronicle: Chronicle,
    jobs: Iterable[OrderedJob],
    reigns: Sequence[Reign],
    excused: Mapping[Key, str],
    machines: Mapping[str, str],
) -> tuple[Trouble, ...]:
    """Each with its answer. `machines`: machine → node."""
    due = {job.job: job.due_at for job in jobs}
    done = [run for run in chronicle.runs if not run.interrupted]
    found = []
    for trouble, one in troubles:
        span = trouble.at, trouble.at + one.lasts_us
        match one.kind:
            case "breakdown":
                answer = _broken(one.machine or "", span[0], chronicle.runs, done)
            case "rush":
                answer = _rushed(one.job or "", due.get(one.job or ""), done)
            case "cancel":
                answer = _cancelled(one.job or "", done, excused)
            case "node":
                mine = [run for run in done if machines.get(run.machine) == one.node and span[0] < run.end <= span[1]]
                answer = f"it came back with its disk; {_ended(len(mine))} on its machines meanwhile"
            case "cloud":
                meanwhile = [run for run in done if span[0] < run.end <= span[1]]
                stood_in = [one.name for one in reigns if span[0] < one.begin <= span[1]]
                who = f"{', '.join(stood_in)} judged" if stood_in else "nobody judged"
                answer = f"{who}; {_ended(len(meanwhile))} meanwhile"
            case "judge":
                answer = _followed(trouble.at, reigns)
            case "rival":
                answer = _fenced(trouble.at, reigns)
        found.append(replace(trouble, answer=answer))
    return tuple(found)


def _broken(machine: str, at: int, runs: Sequence[Run], done: Sequence[Run]) -> str:
    cut = next((run for run in runs if run.interrupted and run.machine == machine and run.end == at), None)
    if cut is None:
        return "it did not work then"
    again = next((run for run in done if (run.job, run.op) == (cut.job, cut.op)), None)
    if again is None:
        return f"{cut.job} op {cut.op} was interrupted"
    where = "there again" if again.machine == machine else f"by {again.machine}"
    return f"{cut.job} op {cut.op} was interrupted, done {where} {(again.end - at) / SECOND:.0f} s later"


def _rushed(job: str, due: int | None, done: Sequence[Run]) -> str:
    last = max((run.end for run in done if run.job == job), default=None)
    if last is None or due is None:
        return "not done"
    late_s = (last - due) / SECOND
    return f"done {late_s:.0f} s late" if late_s > 0 else f"done {-late_s:.0f} s before it was due"


def _cancelled(job: str, done: Sequence[Run], excused: Mapping[Key, str]) -> str:
    before = sum(run.job == job for run in done)
    after = sum(key[0] == job for key in excused)
    if not after:
        return "all of its operations had been begun"
    return f"{before} of its operations had been begun, {after} were not begun any more"


def _followed(at: int, reigns: Sequence[Reign]) -> str:
    following = min((one for one in reigns if one.begin > at), key=lambda one: one.begin, default=None)
    if following is None:
        return "nobody began after it"
    return f"{following.name} began {(following.begin - at) / SECOND:.0f} s later with term {following.term}"


def _fenced(at: int, reigns: Sequence[Reign]) -> str:
    out = min(
        (one for one in reigns if one.fenced and (one.end or 0) >= at), key=lambda one: one.end or 0, default=None
    )
    if out is None:
        return "neither heard of the other"
    return f"{out.name} (term {out.term}) was fenced {((out.end or at) - at) / SECOND:.1f} s later"


def _ended(count: int) -> str:
    return f"{count} operation{'' if count == 1 else 's'} ended"
