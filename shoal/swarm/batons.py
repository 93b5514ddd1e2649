"""The batons of a run in a file beside its report, so that `shoal workpiece JOB --data DIR` finds them there.

(folder / FILE).write_text(json.dumps(document(site, batons)))
baton = read(folder / FILE, "b07", site=None)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from messages.errors import BadMessage, ShoalError, UsageError
from messages.negotiation import Workpiece
from messages.plant import near

FILE = "batons.json"


def document(site: str, batons: Iterable[Workpiece]) -> dict[str, Any]:
    """All of them, in the order of their names."""
    ordered = sorted(batons, key=lambda baton: baton.job)
    return {"site": site, "batons": [json.loads(baton.encode()) for baton in ordered]}


def read(path: Path, job: str, *, site: str | None) -> Workpiece:
    """The baton of a job; ShoalError: there is none, UsageError: the file is no such one. `site`: absent, the run's."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        batons = [Workpiece.decode(json.dumps(one).encode()) for one in found["batons"]]
        of = str(found["site"])
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); name the directory of `--out`") from None
    except (ValueError, KeyError, TypeError, RecursionError, BadMessage):
        raise UsageError(f"{path}: holds no batons of a run; write it again with `shoal swarm … --out`") from None
    if site is not None and site != of:
        raise ShoalError(f"the run in {path.parent} was of site {of!r}, not {site!r}; leave --site out")
    for baton in batons:
        if baton.job == job:
            return baton
    raise ShoalError(f"no baton of {job!r} in {path}{near(job, [baton.job for baton in batons])}")
