"""Files become problems exactly, or an error that names place and cure; plans become files and come back."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import problems, some_plan

from cloud.scheduling import Dispatch
from messages.curve import Curve
from messages.errors import ConfigError, UsageError
from messages.gaps import machine_states, moves
from messages.instances import load_problem, plan_document, plan_from_document, problem_text, waves
from messages.judge import objective, violations
from messages.plan import Plan
from messages.problem import Problem, Transport, Window
from messages.readings import READINGS, Reading, workshop_readings

REPO = Path(__file__).parent.parent
CERAMIC = REPO / "examples" / "ceramic.json"
WAVES = REPO / "examples" / "ceramic_waves.json"
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


def test_a_signal_that_ends_before_the_horizon_is_refused_with_three_cures(tmp_path: Path) -> None:
    data = json.loads(CERAMIC.read_text()) | {"horizon_h": 40}
    for curve, text in (
        ({"step_h": 1, "values": [0.1] * 39}, r"carbon.gas: ends at 37 h, before the horizon \(40 h\); give more"),
        ({"start_h": 1, "step_h": 40, "values": [0.1]}, "carbon.gas: begins at 1 h, after 0; give earlier values"),
        ({"step_h": 1, "values": [0.1] * 42}, None),  # from -2 h, as `signals_from_h` says
        ({"step_h": 1, "values": [0.1], "periodic": True}, None),
    ):
        (tmp_path / "c.json").write_text(json.dumps(data | {"carbon": {"gas": curve}}))
        if text is None:
            assert load_problem(tmp_path / "c.json").carbon["gas"].at(0) == 0.1
        else:
            with pytest.raises(ConfigError, match=text):
                load_problem(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "not valid JSON"),
        ('{"stages": NaN}', "NaN"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "neither"),
        ("{}", "neither"),
        ('{"tasks": []}', "machines: a list is missing here"),
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
        ('{"jobs": [{"id": "1", "relaese": 3, "operations": []}]}', r"jobs\[0\].relaese: .* did you mean 'release'"),
        ('{"jobs": [], "machines": [{"id": "m", "power_kw": {"wrok": 3}}]}', r"machines\[0\].power_kw.wrok"),
        ('{"jobs": [], "carbon": {"gas": {"stepp": 1, "values": [1]}}}', r"carbon.gas.stepp: .*'step'"),
        ('{"jobs": [], "transport": {"ticks": {}, "kw": 3}}', "transport.kw: this word is unknown"),
        ('{"jobs": [], "weather": {}}', "weather: this word is unknown; drop it; only text"),
        (change("due_hours", to=[1] * 15), "due_hours: this word is unknown; did you mean 'due_h'"),
        (change("due_h", to=[1, 2]), "due_h: 2 entries for 15 jobs"),
        (change("due_h", to=[-1] * 15), r"due_h\[0\]: -1 is negative"),
        (change("release_h", to={}), "release_h: a list is missing"),
        (change("families", to=["a"]), "families: 1 entries for 15 jobs"),
        (change(*MACHINE, "preheat_hour", to=1), r"machines\[1\].preheat_hour: .* did you mean 'preheat_h'"),
        (change("stages", 1, "wait_mx_h", to=1), r"stages\[1\].wait_mx_h: .*'wait_max_h'"),
        (change("stages", 0, "wait_min_h", to=1), "first operation waits for nothing"),
        (change(*MACHINE, "unavailable_h", to=[[1]]), r"unavailable_h\[0\]: write \[start, end\]"),
        (change(*MACHINE, "unavailable_h", to=[[2, 2]]), "window 2..2 is empty|is empty"),
        (change(*MACHINE, "unavailable_h", to=[[1, 2, "lunch"]]), "reason"),
        (change(*MACHINE, "setup_h", to=[1]), r"setup_h: an object is missing"),
        (change("transport", to={"time_h": {"forming": {"dryin": 1}}}), "there is no place 'dryin'"),
        (change("transport", to={"time_h": {"forming": {"drying": -1}}}), "forming.drying: -1 is negative"),
        (change("carbon", to={"gas": {"values": [1]}}), "carbon.gas: step_h is missing"),
        (change("carbon", to={"gas": {"step_h": 1, "values": []}}), "carbon.gas.values"),
        (change("carbon", to={"gas": {"step_h": 1, "values": [-1]}}), "carbon.gas.values: -1.0 is negative"),
        (change("tariff", to={"gas": {"step_h": 0, "values": [1]}}), "tariff.gas.step"),
        (change("stages", 0, "crew", to={"fitters": 1}), "needs 1 of 'fitters', there are 0; add them to `crews`"),
        (change("sizes", to=[2] * 15), "size: 2 does not fit 'forming-1'; raise its `batch`"),
        (change("limits", to={"ledger": 0}), "limits.ledger: no energy carrier has a carbon curve; add `carbon`"),
        (change("limits", to={"tardiness": 0}), "limits.tardiness: no job has a due date"),
        (change("limits", to={"makespan": "soon"}), "limits.makespan: 'soon' is not a time"),
        (change("capture_kg", to=3), "state `horizon`"),
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(), seed=st.integers(0, 3), unit=st.sampled_from(["h", "min", "s", ""]))
def test_whatever_a_problem_and_its_plan_say_comes_back_from_their_files(
    problem: Problem, seed: int, unit: str
) -> None:
    """Also where a tick is a third of an hour, which no decimal writes."""
    problem = problem.model_copy(update={"time_unit": unit, "tick_s": 1200.0, "name": "Ofen 1"})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "p.json"
        path.write_text(problem_text(problem))
        assert load_problem(path) == problem
        assert load_problem(path).sha256 == problem.sha256
    every = (*problem.history, *some_plan(problem, seed))
    plan = Plan(
        problem_sha256=problem.sha256,
        assignments=every,
        machine_states=machine_states(problem, every),
        moves=moves(problem, every),
        solver="x",
        status="feasible",
        bound=7.0,
        bound_of="tardiness",
        t0=1_700_000_000_000_000,
        revision=3,
        runtime_s=0.25,
    )
    plan = plan.model_copy(update={"objectives": objective(problem, plan)})
    document = json.loads(json.dumps(plan_document(problem, plan)))
    assert plan_from_document(problem, document) == plan.model_copy(update={"objectives": {}})


STAGES = {
    "time_unit": "h",
    "crews": {"fitters": 2},
    "job_ids": ["a", "b"],
    "orders": ["o1", None],
    "families": ["red", "blue"],
    "sizes": [1, 2],
    "release_h": [0, 2],
    "due_h": [None, 12.5],
    "horizon_h": 48,
    "capture_kg": 1,
    "limits": {"makespan": 40, "ledger": 90},
    "transport": {"time_h": {"press": {"fire": 0.5}, "k": {"p": 1}}, "power_kw": 2},
    "carbon": {"electricity": {"start_h": -6, "step_h": 0.5, "values": [0.1, 0.2], "periodic": True}},
    "base_load": {"electricity": {"step_h": 48, "values": [5]}},
    "stages": [
        {
            "name": "press",
            "crew": {"fitters": 1},
            "machines": [{"id": "p", "time_h": [1, 2], "batch": 2, "setup_h": {"red": {"blue": 1.5}}, "family": "red"}],
        },
        {
            "name": "fire",
            "wait_min_h": 1,
            "wait_max_h": 6,
            "machines": [{"id": "k", "time_h": [4, 4], "batch": 3, "unavailable_h": [[0, 8], [20, 24, "breakdown"]]}],
        },
    ],
}


def test_a_stage_file_says_shifts_waits_set_ups_crews_transport_and_curves_in_its_unit(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps(STAGES))
    problem = load_problem(tmp_path / "all.json")
    assert (problem.tick_s, problem.horizon, problem.limits) == (1800, 96, {"makespan": 80, "ledger": 90})
    a, b = problem.jobs
    assert (a.part_of, a.release, a.due, b.part_of, b.release, b.due) == ("o1", 0, None, "", 4, 25)
    assert [(one.family, one.size, one.wait_min, one.wait_max) for one in b.operations] == [
        ("blue", 2, 0, None),
        ("blue", 2, 2, 12),
    ]
    press, kiln = problem.machines
    assert (press.setup, press.family, press.batch) == ({"red": {"blue": 3}}, "red", 2)
    assert kiln.unavailable == (Window(start=0, end=16), Window(start=40, end=48, reason="breakdown"))
    assert (a.operations[0].crew, a.operations[1].crew) == ({"fitters": 1}, {})
    assert problem.transport == Transport(ticks={"p": {"k": 1}, "k": {"p": 2}}, power_kw=2)
    assert problem.carbon["electricity"] == Curve(start=-12, step=1, values=(0.1, 0.2), periodic=True)
    assert problem.base_load["electricity"].end == 96
    (tmp_path / "native.json").write_text(problem_text(problem))
    assert load_problem(tmp_path / "native.json") == problem
    assert violations(problem, Plan(assignments=some_plan(problem))) == []


def test_the_three_waves_are_the_ceramic_line_with_shifts_due_dates_and_a_day_of_carbon() -> None:
    read = load_problem(WAVES)
    made = waves(load_problem(CERAMIC), count=3, every=24, due=36, shifts={"forming": (0, 16), "glazing": (0, 16)})
    assert read == made.model_copy(update={"name": "ceramic-waves", "carbon": read.carbon})
    assert [(job.id, job.release, job.due) for job in read.jobs[::15]] == [
        ("1.1", 0, 72),
        ("2.1", 48, 120),
        ("3.1", 96, 168),
    ]
    assert read.machine["forming-1"].unavailable[0] == Window(start=32, end=48)
    assert read.machine["firing-1"].unavailable == ()
    assert (read.carbon["electricity"].at(12), read.carbon["electricity"].at(36)) == (0.18, 0.42)


def test_waves_of_nothing_known_are_refused() -> None:
    line = load_problem(CERAMIC)
    with pytest.raises(UsageError, match="no machine or operation is called 'formin'"):
        waves(line, count=1, every=24, shifts={"formin": (0, 16)})
    with pytest.raises(UsageError, match=r"shifts.forming: 16 to 8 is no part of a day of 24"):
        waves(line, count=1, every=24, shifts={"forming": (16, 8)})
    with pytest.raises(UsageError, match=r"every: 0.3 h is off the grid"):
        waves(line, count=2, every=0.3)


@pytest.mark.skipif(not (SHARED / "brandimarte").is_dir(), reason="the Brandimarte instances are not beside the repo")
def test_every_brandimarte_instance_is_read_and_a_rule_plans_it_without_violation() -> None:
    for path in sorted((SHARED / "brandimarte").glob("*.fjs")):
        problem = load_problem(path)
        assert violations(problem, Dispatch().solve(problem).plans[0]) == []


def test_a_word_that_stands_twice_is_refused_rather_than_lost(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text('{"machines": [{"id": "m", "preheat": 1, "preheat": 2}], "jobs": []}')
    with pytest.raises(ConfigError, match=r"twice.json: 'preheat' stands twice in one object \(the one with 'id'"):
        load_problem(path)


EXAMPLES = REPO / "examples"
WORKSHOP = json.loads((EXAMPLES / "workshop.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("reading", READINGS)
def test_a_workshop_as_published_has_three_readings_each_written_out_in_examples(reading: Reading) -> None:
    problem = load_problem(EXAMPLES / "workshop.json", reading=reading)
    assert problem == workshop_readings(WORKSHOP)[reading] == load_problem(EXAMPLES / f"workshop_{reading}.json")
    assert bool(problem.logistics) == (reading == "vehicles")
    about = json.loads((EXAMPLES / f"workshop_{reading}.json").read_text(encoding="utf-8"))["about"]
    assert "doi:10.11959/j.issn.2096-3750.2025.00468" in about


def test_without_being_told_a_workshop_is_carried_by_vehicles_and_says_so() -> None:
    problem = load_problem(EXAMPLES / "workshop.json")
    carry = problem.transport
    assert (problem.name, carry.vehicles, problem.tick_s) == ("workshop (vehicles)", 2, 0.1)
    trip = carry.between("cell", "raw-03") + (carry.carried("raw-03", "lathe-1") or 0)
    assert problem.in_unit(trip) == WORKSHOP["transport_and_setup_s"]["03"]
    assert all(machine.buffer.in_ == 2 for machine in problem.machines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": [{"order": "09", "id": "T1", "route": []}]}, r"tasks\[0\].order: '09' has no time"),
        ({"tasks": [{"order": "01", "id": "T1"}]}, r"tasks\[0\].route: a list is missing"),
        ({"tasks": [{"order": "01", "id": "T1", "route": []}]}, "operations"),
        (
            {"tasks": [{"order": "01", "id": "T1", "route": [{"operation": "sawing", "time_s": 1}]}]},
            "no machine does 'sawing'",
        ),
        (
            {"tasks": [{"order": "01", "id": "T1", "route": [{"operation": "turning", "time_s": -1}]}]},
            "-1 is no time",
        ),
        (
            {"tasks": [{"order": "01", "id": "T1", "route": [{"operation": "turning", "time_s": 0.0001}]}]},
            "off the grid of 1 ms",
        ),
        ({"tasks": [{"order": "01", "route": []}]}, "id: a text is missing"),
        ({"machines": [{"id": "m", "doess": "turning"}]}, "does: a text is missing"),
        ({"machines": ["m"]}, r"machines\[0\]: an object is missing"),
        ({"transport_and_setup_s": {"01": 15, "02": 75, "03": 80}}, "less than loading and unloading, 20 s"),
        ({"transport_and_setup_s": {"01": 70.001, "02": 75, "03": 80}}, "half of it is no whole millisecond"),
        ({"time_unit": "h"}, "time_unit"),
        ({"vehicles": 0}, "transport.vehicles: 0 is less than 1"),
        ({"vehicles": "two"}, "transport.vehicles"),
        ({"buffer_places": 0}, "0 is less than 1"),
        ({"agvs": 2}, "agvs: this word is unknown"),
    ],
)
def test_a_broken_workshop_is_refused_with_place_and_cure(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "workshop.json"
    path.write_text(json.dumps(WORKSHOP | change), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_problem(path)


def test_a_reading_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="use one of vehicles, occupying, lag"):
        load_problem(EXAMPLES / "workshop.json", reading="other")  # type: ignore[arg-type]


def places_in(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where anything stands in a JSON document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else ())
    )
    return [path, *(place for key, value in inner for place in places_in(value, (*path, key)))]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_workshop_is_a_problem_or_a_refusal(data: st.DataObject, tmp_path: Path) -> None:
    document = json.loads(json.dumps(WORKSHOP))
    place = data.draw(st.sampled_from(places_in(document)[1:]))
    value = data.draw(st.sampled_from([None, True, -1, 0, 0.5, 1e300, "", "x", [], {}, [[]], {"id": 1}]))
    *before, last = place
    inner = document
    for key in before:
        inner = inner[key]
    inner[last] = value
    path = tmp_path / "workshop.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    for reading in READINGS:
        try:
            load_problem(path, reading=reading)
        except ConfigError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
