"""All cases of the federation experiment, each once: in worker processes, kept line by line, gone on with after a cut.

    for done in all_of(cases, pace, path, jobs=2): …      # Done: those on the disk first

`path` is a JSON-lines file: one line per case, with the pace it was run at. Lines of another pace, and a last line that
was cut off, do not count; cases that have a line are not run again. Bounds: one line per case and pace.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

from shoal.experiments.arms import ARMS, DEFAULT, Arena, Case, Course, Pace

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""One thread per worker: the matrices are small."""


@dataclass(frozen=True)
class Done:
    """One case, run."""

    case: Case
    arms: dict[str, Course]
    new: dict[str, list[float]]
    """objective of the first days of a new cell: from `scratch`, or with what the default had learned"""
    cpu_s: float


def run(case: Case, pace: Pace) -> Done:
    """Every arm of one case."""
    began = time.process_time()
    arena = Arena(case, pace)
    default, base = arena.shared(whole=True)
    body, _ = arena.shared(whole=False)
    found = {"local": arena.local(), **arena.fedavg(), "body": body, DEFAULT: default, "pooled": arena.pooled()}
    arms = {name: found[name] for name in ARMS}
    new = {"scratch": arena.new_cell(None), DEFAULT: arena.new_cell(base)}
    return Done(case, arms, new, time.process_time() - began)


def all_of(cases: Sequence[Case], pace: Pace, path: Path, *, jobs: int) -> Iterator[Done]:
    """Every case, as it is done; what is in the file already comes first."""
    mark = mark_of(pace)
    wanted = list(dict.fromkeys(cases))
    for done in _kept(path, mark):
        if done.case in wanted:
            wanted.remove(done.case)
            yield done
    if not wanted:
        return
    os.environ.update(dict.fromkeys(THREADS, "1"))  # of the workers: they begin anew, and read it then
    with ProcessPoolExecutor(
        min(jobs, len(wanted)), mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        try:
            for future in as_completed([pool.submit(run, case, pace) for case in wanted]):
                done = future.result()
                with path.open("a", encoding="utf-8") as lines:
                    lines.write(_line(done, mark))
                yield done
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A worker whose parent was killed ends too, in the middle of its case: nobody would take the result."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        Thread(target=watch, daemon=True).start()


def mark_of(pace: Pace) -> str:
    """What tells one pace from another."""
    facts = asdict(pace) | {"learner": pace.learner.model_dump()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _line(done: Done, mark: str) -> str:
    return json.dumps({"pace": mark, **asdict(done)}) + "\n"


def _kept(path: Path, mark: str) -> Iterator[Done]:
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):  # cut off while it was written: what comes next must not be joined to it
        with path.open("r+b") as lines:
            lines.truncate(whole)
    for line in data[:whole].splitlines():
        facts: dict[str, Any] = json.loads(line)
        if facts.pop("pace") == mark:
            facts["case"] = Case(**facts["case"])
            facts["arms"] = {name: Course(**course) for name, course in facts["arms"].items()}
            yield Done(**facts)
