"""The batons of a run, beside its report: `shoal workpiece JOB --data DIR` reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from messages.errors import ShoalError, UsageError
from messages.negotiation import Workpiece
from shoal.__main__ import app
from shoal.swarm import batons

LAG = str(Path(__file__).parent.parent / "examples" / "workshop_lag.json")


def test_a_run_leaves_the_baton_of_every_job_where_its_last_line_says(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    ran = CliRunner().invoke(app, ["swarm", LAG, "--judge", "fifo", "--quiet", "--out", out])
    assert ran.exit_code == 0
    assert f"shoal workpiece JOB --data {out}" in ran.output.replace("\n", "").splitlines()[-1]
    runs = json.loads((tmp_path / "out" / "runs.json").read_text())
    for job in ("T1", "T12"):
        shown = CliRunner().invoke(app, ["workpiece", job, "--data", out, "--json"])
        assert shown.exit_code == 0, shown.output
        baton = Workpiece.decode(shown.output.encode())
        mine = sorted((run for run in runs if run["job"] == job), key=lambda run: run["op"])
        assert baton.state == "done"
        assert [(step.op, step.machine) for step in baton.steps] == [(run["op"], run["machine"]) for run in mine]
    assert "done at" in CliRunner().invoke(app, ["workpiece", "T1", "--data", out]).output


@pytest.mark.parametrize(
    ("words", "kind", "cure"),
    [
        (["b8"], ShoalError, "no baton of 'b8'"),
        (["b07", "--site", "other"], ShoalError, "was of site 'here', not 'other'"),
        (["b07", "--site", "here"], None, "waiting"),
    ],
)
def test_a_job_or_a_site_that_was_not_in_the_run_is_said(
    words: list[str], kind: type[Exception] | None, cure: str, tmp_path: Path
) -> None:
    baton = Workpiece(job="b07", revision=1, at=1, product="vase", state="waiting", steps=[])
    (tmp_path / batons.FILE).write_text(json.dumps(batons.document("here", [baton])))
    result = CliRunner().invoke(app, ["workpiece", *words, "--data", str(tmp_path)])
    if kind is None:
        assert result.exit_code == 0 and cure in result.output
    else:
        assert isinstance(result.exception, kind) and not isinstance(result.exception, UsageError)
        assert cure in str(result.exception)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"site": "s", "batons": [{}]}', '{"site": "s", "batons": 1}', "\udcff"]
)
def test_a_file_that_holds_no_batons_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / batons.FILE).write_text(text, errors="surrogateescape")
    result = CliRunner().invoke(app, ["workpiece", "b07", "--data", str(tmp_path)])
    assert isinstance(result.exception, UsageError) and str(tmp_path / batons.FILE) in str(result.exception)
