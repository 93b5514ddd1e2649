"""A canary beside sensors that fail: what is not known is no fault of whoever decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_rig import wanting
from test_agent import Rig

from messages.cells import METRICS
from messages.learning import ModelReport

LOCKED = {
    "interlocks": [
        {"action": "reroute", "metric": "wear", "above": 0.9},
        {"action": "reroute", "metric": "emitted_kg", "above": 1e9},
    ]
}
SILENT: dict[str, dict[str, float | None]] = {
    "what the model reads": {"wear": None},
    "what the model reads, beyond what the sensor can say": {"wear": 1e9},
    "what the model reads, all of it": dict.fromkeys(METRICS),
    "what only an interlock reads": {"emitted_kg": None},
}


@pytest.mark.parametrize("how", SILENT)
def test_a_candidate_stays_when_a_sensor_falls_silent_and_goes_when_it_wants_what_is_locked(
    tmp_path: Path, how: str
) -> None:
    rig = Rig(tmp_path, **LOCKED)
    rig.release(1, wanting("wait"), counter=1)
    rig.release(2, wanting("reroute"), counter=2, stage="canary")
    told = [rig.step(**({"wear": 0.5} if k % 3 else SILENT[how])) for k in range(60)]
    silent = [action.kind for k, action in enumerate(told) if action is not None and k % 3 == 0]
    report = _said(rig)
    assert {arm.version: arm.trips for arm in report.arms} == {1: 0, 2: 0} and report.refused is None
    assert "reroute" in {action.kind for action in told if action is not None}
    assert rig.agent.counts.trips == 0 and rig.agent.counts.decisions == 60
    assert set(silent) == {"wait"}, "not known is not safe"
    decisions, trips = 0, {1: 0, 2: 1}
    while _said(rig).refused is None:
        assert (action := rig.step(wear=0.95)) is not None and action.kind == "wait"
        decisions += 1
    assert decisions <= 4, "a block of the incumbent's, and the first of the candidate's"
    assert {arm.version: arm.trips for arm in _said(rig).arms} == trips


def _said(rig: Rig) -> ModelReport:
    return rig.models.report("cell", rig.at)
