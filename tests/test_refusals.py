"""What a file that is no problem is answered: the place in the words of that file, what is wrong, the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messages.errors import ConfigError
from messages.instances import load_problem

CERAMIC = Path(__file__).parent.parent / "examples" / "ceramic.json"
TICKS: dict[str, Any] = {
    "machines": [{"id": "m"}, {"id": "n"}],
    "jobs": [
        {"id": "a", "operations": [{"op": 0, "alternatives": {"m": 3}}, {"op": 1, "alternatives": {"n": 3}}]},
    ],
}


def refusal(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as caught:
        load_problem(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    for raw in ("Input should", "Field required", "validation", "Dictionary", "Tuple"):
        assert raw not in text, "that is a library talking to its programmer"
    return text.removeprefix(f"{path}: ")


def machine(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["stages"][2]["machines"][1].update({key: value})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (machine("work_kw", "many"), "stages[2].machines[1].work_kw: 'many' is no number; write one"),
        (machine("idle_kw", -5), "stages[2].machines[1].idle_kw: -5 is less than 0; give 0 or more (machine"),
        (machine("batch", 0), "stages[2].machines[1].batch: 0 is less than 1; give 1 or more"),
        (machine("carrier", "Gas!"), "stages[2].machines[1].carrier: 'Gas!' is no name here; small letters"),
        (machine("on_breakdown", "go"), "on_breakdown: 'go' is unknown; use 'resume', 'restart' or 'scrap'"),
        (machine("unavailable_h", [[5, 3]]), "unavailable_h[0]: [5, 3] is empty; let it end after its start"),
        (machine("time_h", [1] * 14), "time_h of machine 'glazing-2': 14 entries, elsewhere there are 15"),
        (lambda data: data.update(sizes=[1, 0, *[1] * 13]), "sizes[1]: 0 is less than 1"),
        (lambda data: data.update(families=[3] * 15), "families[0]: 3 is no text; put it in quotation marks"),
        (lambda data: data.update(capture_kg=-1), "capture_kg: -1 is less than 0"),
        (lambda data: data.update(limits={"makespam": 3}), "limits.makespam: 'makespam' is unknown; use 'makespan'"),
        (lambda data: data.update(crews={"fitters": 0}), "crews.fitters: 0 is less than 1"),
        (lambda data: data["stages"][1].update(crew={"fitters": 1}), "stages[1] (job '1').crew: needs 1 of 'fitters'"),
        (
            lambda data: data["stages"][1].update(wait_min_h=3, wait_max_h=2),
            "stages[1].wait_max_h: 2 is less than wait_min_h, 3; correct one",
        ),
        (
            lambda data: data.update(carbon={"electricity": {"step_h": 0, "values": [1]}}),
            "carbon.electricity.step_h: each value holds for no time; give more than 0",
        ),
        (
            lambda data: data.update(carbon={"electricity": {"step_h": 1, "values": ["x"]}}),
            "carbon.electricity.values[0]: 'x' is no number; write one",
        ),
    ],
)
def test_of_a_stage_file_the_place_is_named_as_it_stands_there(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    data = json.loads(CERAMIC.read_text())
    change(data)
    assert text in refusal(tmp_path / "bad.json", data)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"alternatives": {"kiln": 3}}, "machine 'kiln' is not in `machines`; add it there or correct the id"),
        ({"alternatives": {}}, "jobs[0].operations[0].alternatives: is empty; give at least one"),
        (
            {"alternatives": {"m": -3}},
            "jobs[0].operations[0].alternatives.m: -3 is less than 0; give 0 or more (job 'a')",
        ),
        ({"alternatives": {"m": 3.5}}, "jobs[0].operations[0].alternatives.m: 3.5 is off the grid"),
        ({"alternatives": {"m": "long"}}, "jobs[0].operations[0].alternatives.m: 'long' is no number; write one"),
        ({"alternatives": 3}, "jobs[0].operations[0].alternatives: 3 is no object; write {…}"),
        ({"op": 1}, "jobs.a.operations: 1 stands there twice"),
        (
            {"after": [1]},
            "jobs[0].operations[0].after: this word is unknown; operations are done in the order in which they stand",
        ),
    ],
)
def test_of_a_problem_in_ticks_the_job_is_named_too(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    data = json.loads(json.dumps(TICKS))
    data["jobs"][0]["operations"][0].update(change)
    assert text in refusal(tmp_path / "bad.json", data)


def test_what_is_missing_is_to_be_added(tmp_path: Path) -> None:
    data = json.loads(json.dumps(TICKS))
    del data["jobs"][0]["operations"][1]["alternatives"]
    assert refusal(tmp_path / "bad.json", data) == "jobs[0].operations[1].alternatives: is missing; add it (job 'a')"
