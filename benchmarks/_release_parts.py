"""The figures of the parts beside `releases`, as lines; `_release_validation` says its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _release_flips import on_the_disk, on_the_way
from _release_kills import CASES, Case, Ends, cut, killed
from _release_trips import Fault, ended
from _release_validation import validation

from messages.learning import MAX_ARTEFACT
from tests.hostile import hostile, model
from tests.releasing import KEY, Released

Line = dict[str, Any]


def flips(quick: bool) -> Iterator[Line]:
    """Every bit on its way; of every byte on the disk one."""
    found = [*on_the_way(8 if quick else 1)]
    note = f"{'one bit' if quick else 'every bit'} of each byte: {', '.join(f'{one.what} {one.size}' for one in found)}"
    yield _none(
        "flips_taken_on_the_way", sum(one.taken for one in found), sum(one.flips for one in found), "flips", note
    )
    disk = [*on_the_disk(64 if quick else 8)]
    note = f"one bit of {'one in 8 bytes' if quick else 'each byte'} of {len(disk)} files; a released version must run"
    yield _none(
        "flips_that_decide_after_a_restart",
        sum(one.taken for one in disk),
        sum(one.flips for one in disk),
        "flips",
        note,
    )


def kills(quick: bool) -> Iterator[Line]:
    """SIGKILL and power cuts at every step of taking up a release."""
    every, draws = (12, 1) if quick else (1, 8)
    where = f"at {'every step' if every == 1 else f'one step in {every}'} of a take-up, and in the restart after it"
    runs: dict[str, tuple[Callable[[Case], Ends], str]] = {
        "sigkill": (lambda case: killed(case, every), f"real processes and files, killed {where}"),
        "power_cut": (lambda case: cut(case, every, draws), f"cut {where}, {draws} draws each of what was on the disk"),
    }
    for name, (run, how) in runs.items():
        ends = [run(case) for case in CASES]
        found = sum((one.found for one in ends), Counter[str]())
        steps, ways = sum(one.steps for one in ends), {one: found[one] for one in ("old", "new", "mixed")}
        each = ", ".join(f"{case.name} {one.steps}" for case, one in zip(CASES, ends, strict=True))
        yield _none(f"{name}_mixed", found["mixed"], steps, "kills", f"{how}: {each}") | {"ways": ways}
        note = "the release that comes again after the restart runs, and after one more"
        yield _none(f"{name}_release_lost", found["lost"], steps, "kills", note)


def onnx(quick: bool) -> Iterator[Line]:
    """Hostile graphs, looked at by a process that is watched; all of them, `quick` or not."""
    del quick
    with tempfile.TemporaryDirectory() as name:
        files = [data for _, data, _ in hostile()]
        for k, data in enumerate([*files, model().SerializeToString()]):
            (Path(name) / f"{k:03}.onnx").write_bytes(data)
            fits = 0 < len(data) <= MAX_ARTEFACT
            release = Released(1, counter=k + 1, code=data, network=None).payload if fits else b""
            (Path(name) / f"{k:03}.json").write_bytes(release)
        command = [sys.executable, str(Path(__file__).with_name("_release_graphs.py")), name, KEY.public]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout)
    if not found["sound_runs"]:
        raise AssertionError("the sound graph does not run either: nothing was shown")
    count, refused, named = found["files"], found["alone_refused"], found["released"]
    note = f"as releases {found['release_refused']} of the {named} that one can name; onnxruntime asked: "
    yield {
        "figure": "hostile_graphs_refused",
        "value": refused,
        "unit": f"of {count} files",
        "target": f"{count}, >= 30",
        "holds": refused == count >= 30 and found["release_refused"] == named and not found["runtime_asked"],
        "note": note + ("yes" if found["runtime_asked"] else "no") + "; the sound graph after them runs",
    }
    note = f"files, folders, modules, sockets, processes; for the sound graph after them: {found['sound_opened']}"
    yield _none("opened_for_hostile_graphs", found["opened"], count, "files", note)
    note = (
        f"beyond its own bytes, {found['largest_kb']:.0f} kB at most; the process's peak grew by {found['grown_kb']} kB"
    )
    yield {
        "figure": "memory_for_a_hostile_graph",
        "value": round(found["peak_kb"]),
        "unit": "kB",
        "target": "<= 2048",
        "holds": found["peak_kb"] <= 2048,
        "note": note,
    }


def at_once(quick: bool) -> Iterator[Line]:
    """Candidates that trip or answer nonsense, and sensors that fall silent beside one that does not."""
    trials, most = (3, 1_000) if quick else (100, 2_000)
    faults: tuple[Fault, ...] = ("trip", "non-finite")
    for fault in faults:
        found = [one for seed in range(trials) if (one := ended(fault, seed, silent=0.1, most=most)).faults]
        unsafe, back = sum(one.unsafe for one in found), sum(one.stage == "rolled_back" for one in found)
        worst = max(one.faults + one.after for one in found)
        yield {
            "figure": f"decisions_until_taken_back_{fault.replace('-', '_')}",
            "value": worst,
            "unit": "decisions",
            "target": "1",
            "holds": worst == 1 and back == len(found) >= 0.9 * trials and not unsafe,
            "note": f"from the first such one on any of 4 canaries, most of {len(found)} trials; {back} ended in the "
            f"cloud by that report; {unsafe} unsafe actions went out",
        }
    found = [ended("none", seed, silent=0.3, most=most) for seed in range(trials)]
    silent, unsafe = sum(one.silent for one in found), sum(one.unsafe for one in found)
    note = f"{silent} decisions with a sensor missing, stale or no number; {unsafe} unsafe actions went out"
    yield _none(
        "rollbacks_for_silent_sensors", sum(one.stage == "rolled_back" for one in found), trials, "trials", note
    )


def _none(figure: str, value: int, times: int, of: str, note: str) -> Line:
    """None of so many may be."""
    return {
        "figure": figure,
        "value": value,
        "unit": f"of {times} {of}",
        "target": "0",
        "holds": not value and times > 0,
        "note": note,
    }


PARTS: dict[str, Callable[[bool], Iterator[Line]]] = {
    "flips": flips,
    "kills": kills,
    "onnx": onnx,
    "at_once": at_once,
    "validation": validation,
}
