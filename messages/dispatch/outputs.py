"""Parts behind machines whose places are counted, as nodes say which lie there. Pure.

is_gone("T1", before, said, "press-4")      # the part is there no more
put_aside(known, agenda)                    # jobs whose parts have left since the agenda before
"""

from __future__ import annotations

from messages.dispatch.task import Task
from messages.negotiation import Agenda


def is_gone(job: str, before: Task | None, said: Agenda | None, machine: str) -> bool:
    """Whether a part that `before` was done to lies no more behind `machine`, as its node says: it was put aside, or
    fetched by an award that was withdrawn since."""
    output = said.outputs.get(machine) if said is not None else None
    if output is None or before is None or before.ended_at is None:
        return False
    return before.ended_at <= output.at and job not in output.jobs


def put_aside(known: Agenda, agenda: Agenda) -> set[str]:
    """Jobs whose parts lay behind a machine, and do not any more."""
    found = set[str]()
    for machine, output in agenda.outputs.items():
        before = known.outputs.get(machine)
        if before is not None:
            found |= set(before.jobs).difference(output.jobs)
    return found
