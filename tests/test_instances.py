"""Files become problems exactly, or an error that names place and cure; plans become files and come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.scheduling import Dispatch
from messages.errors import ConfigError
from messages.instances import load_problem, plan_document, plan_from_document
from messages.judge import violations
from messages.problem import Problem

REPO = Path(__file__).parent.parent
CERAMIC = REPO / "examples" / "ceramic.json"
SHARED = REPO / ".." / "shared" / "data"


def test_the_ceramic_line_is_read_as_it_stands() -> None:
    problem = load_problem(CERAMIC)
    data = json.loads(CERAMIC.read_text())
    assert (len(problem.jobs), len(problem.machines), problem.time_unit) == (15, 16, "h")
    assert [job.id for job in problem.jobs] == [str(number) for number in range(1, 16)]
    assert [step.op for step in problem.jobs[0].operations] == [0, 1, 2, 3]
    for s, stage in enumerate(data["stages"]):
        for machine in stage["machines"]:
            read = problem.machine[machine["id"]]
            assert problem.in_unit(read.preheat) == machine["preheat_h"]
            assert (read.power_kw.work, read.power_kw.idle) == (machine["work_kw"], machine["idle_kw"])
            assert read.carrier == stage["carrier"]
            for job, hours in zip(problem.jobs, machine["time_h"], strict=True):
                assert problem.in_unit(job.operations[s].alternatives[machine["id"]]) == hours


def test_a_problem_written_by_itself_is_read_back(tmp_path: Path) -> None:
    problem = load_problem(CERAMIC)
    path = tmp_path / "native.json"
    path.write_bytes(problem.encode())
    assert load_problem(path) == problem


FJS = "2 3 1.5\r\n 2   1 1 5\t 2  2 0  3 4 \n\n1  1  3   7  \n\n"


def test_an_fjs_file_is_read_through_its_irregular_white_space_and_zero_times(tmp_path: Path) -> None:
    path = tmp_path / "tiny.fjs"
    path.write_text(FJS)
    problem = load_problem(path)
    assert [job.id for job in problem.jobs] == ["1", "2"]
    assert [dict(step.alternatives) for step in problem.jobs[0].operations] == [{"1": 5}, {"2": 0, "3": 4}]
    assert [machine.id for machine in problem.machines] == ["1", "2", "3"]


def test_an_fjs_copy_with_machines_from_0_is_the_same_problem(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one, zero = tmp_path / "one" / "t.fjs", tmp_path / "t.fjs"
    one.write_text("1 2\n2 1 1 5 2 1 3 2 4\n")
    zero.write_text("1 2\n2 1 0 5 2 0 3 1 4\n")
    assert load_problem(one) == load_problem(zero)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "empty"),
        ("3\n", "line 1"),
        ("2 2\n1 1 1 5\n", "2 jobs announced, 1 line"),
        ("1 2\n1 1 3 5\n", ":2: machine 3 is unknown"),
        ("1 2\n1 2 0 5 2 5\n", ":2: machine 2 is unknown"),
        ("1 2\n2 1 1 5\n", ":2: the line ends"),
        ("1 2\n1 1 1 5 9\n", "too many"),
        ("1 2\n1 1 1 -5\n", "out of range"),
        ("1 2\n1 1 1 2.5\n", "off the grid"),
        ("1 2\n1 1 1 nan\n", "off the grid"),
        ("1 2\n1 1 x 5\n", "'x' is not a number"),
        ("1 2\n1 0\n", "no machine"),
        ("1 2\n0\n", "without operations"),
        ("1 2\n1 2 1 5 1 6\n", "twice"),
        ("1 2\n1 99999999999 1 5\n", "ends where"),
    ],
)
def test_a_broken_fjs_file_is_refused_with_line_and_cure(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "bad.fjs"
    path.write_text(text)
    with pytest.raises(ConfigError, match=place):
        load_problem(path)


def change(*keys: object, to: object) -> str:
    data = json.loads(CERAMIC.read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    if to is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    return json.dumps(data)


MACHINE = ("stages", 0, "machines", 1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "not valid JSON"),
        ('{"stages": NaN}', "NaN"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "neither"),
        ("{}", "neither"),
        ('{"tasks": []}', "workshop with transport"),
        (change("time_unit", to="weeks"), "weeks"),
        (change("stages", to={}), "stages: a list is missing"),
        (change(*MACHINE, "id", to=None), r"stages\[0\].machines\[1\]"),
        (change(*MACHINE, "id", to="forming-1"), "twice"),
        (change(*MACHINE, "time_h", to=None), "time_h: a list is missing"),
        (change(*MACHINE, "time_h", to=[1, 2]), "one time per job"),
        (change(*MACHINE, "time_h", 3, to=-2), r"time_h\[3\]: -2 is negative"),
        (change(*MACHINE, "time_h", 3, to="2"), "not a time"),
        (change(*MACHINE, "time_h", 3, to=0.33333333333), "off the grid"),
        (change(*MACHINE, "work_kw", to=-1), "work"),
        (change(*MACHINE, "work_kw", to="many"), "work"),
        (change("initial_state", to="glowing"), "glowing"),
        ('{"jobs": [], "machines": [{"id": "m", "preheat": 1.5}]}', "preheat: 1.5 is off the grid"),
        ('{"jobs": [{"id": "1"}]}', "operations"),
    ],
)
def test_a_broken_json_file_is_refused_with_place_and_cure(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=place) as caught:
        load_problem(path)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_problem(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_problem(tmp_path / "b.json")


@given(st.text(max_size=200))
def test_no_text_makes_the_fjs_reader_fail_otherwise_than_with_a_clear_error(text: str) -> None:
    from messages.fjs import from_fjs

    try:
        assert from_fjs(text, Path("x.fjs"))["name"] == "x"
    except ConfigError as error:
        assert "x.fjs" in str(error)


def test_no_orders_and_no_machines_are_legal(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    path.write_text('{"jobs": [], "machines": []}')
    assert load_problem(path).jobs == ()


def test_a_plan_in_a_file_has_times_in_hours_and_comes_back_unchanged() -> None:
    problem = load_problem(CERAMIC)
    plan = Dispatch().solve(problem).plans[0]
    document = json.loads(json.dumps(plan_document(problem, plan)))
    assert document["objectives"]["makespan"] == 33.0
    assert document["objectives"]["energy"] == document["objectives"]["energy_kwh"]
    assert max(one["end"] for one in document["assignments"]) == 33.0
    assert set(document["assignments"][0]) == {"job", "op", "machine", "start", "end"}
    again = plan_from_document(problem, document)
    assert again.assignments == plan.assignments
    assert again.machine_states == plan.machine_states
    assert violations(problem, again) == []
    document["assignments"][0]["start"] = 0.1
    with pytest.raises(Exception, match=r"assignments\[0\].start.*off the grid"):
        plan_from_document(problem, document)


@pytest.mark.skipif(not (SHARED / "brandimarte").is_dir(), reason="the Brandimarte instances are not beside the repo")
def test_every_brandimarte_instance_is_read_and_a_rule_plans_it_without_violation() -> None:
    for path in sorted((SHARED / "brandimarte").glob("*.fjs")):
        problem = load_problem(path)
        assert violations(problem, Dispatch().solve(problem).plans[0]) == []
