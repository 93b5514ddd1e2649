"""Who decides for a cell: every sample once, never what safety forbids, and learning only from what really followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_rig import CELL, KEY, NODE, SECOND, SITE, T0, UNIT, TinyCell, plant_file, released, wanting
from hypothesis import given
from hypothesis import strategies as st

from edge.agent import Agent, Newest, samples, seeded
from edge.arms import CanarySettings
from edge.cells import cells_of
from edge.files import Files
from edge.learning import CellSettings, LearningSettings
from edge.models import Models
from edge.policy import F32
from edge.shelf import Shelf
from messages.cells import ACTIONS, DID, EARNED, EMITTED, HIGH, METRICS, MOST_EARNED, MOST_EMITTED_KG
from messages.contracts import Action, Burst
from messages.errors import ConfigError
from messages.learning import PART_BYTES, Artefact, ModelReport
from messages.plant import Plant, load_plant
from messages.signing import public_key, sign

STEP = 900 * SECOND


class Rig:
    """An agent beside a cell that obeys it."""

    def __init__(self, folder: Path, *, explore: float = 0.0, first: float = 0.0, seed: int = 1, **limits: Any) -> None:
        self.plant = load_plant(plant_file(folder))
        learning = LearningSettings(cells={CELL: CellSettings.model_validate({"limits": limits})})
        (self.spec,) = cells_of(self.plant, NODE, learning)
        self.models = Models(
            Shelf(Files(folder / "models")),
            targets={f"{SITE}/{NODE}"},
            keys={"cloud": public_key(KEY.public)},
            session="0a0a0a0a",
            canary=CanarySettings(block=2, washout=0),
        )
        self.agent = Agent(
            self.spec,
            self.models,
            Newest(self.plant.devices(NODE)),
            explore,
            first,
            seeded(seed, "chance"),
            session="0a0a0a0a",
        )
        self.cell = TinyCell()
        self.at = T0
        self.learned: list[Any] = []

    def release(self, version: int, theta: F32, *, counter: int, stage: str = "fleet") -> ModelReport:
        envelope, artefacts = released(version, theta, counter=counter, stage=stage)
        reports = self.models.on_release("cell", sign(envelope, KEY, name="cloud"), self.at)
        for data in artefacts:
            for k in range(Artefact.of(data).parts):
                part = data[k * PART_BYTES : (k + 1) * PART_BYTES]
                reports += self.models.on_part(Artefact.of(data).digest, k, part, self.at)
        return reports[-1]

    def step(self, **spoilt: float | None) -> Action | None:
        """The cell does what it was told, and says so; what it is told next."""
        self.at += STEP
        return self.hear(self.cell.burst(self.at, **spoilt))

    def hear(self, burst: Burst, now: int | None = None) -> Action | None:
        answer = self.agent.on_burst(burst, self.at if now is None else now)
        self.learned += answer.transitions
        if answer.action is not None:
            self.cell.on_action(answer.action)
        return answer.action

    def told(self, steps: int) -> list[str]:
        found = [self.step() for _ in range(steps)]
        return [action.kind for action in found if action is not None]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_every_sample_is_decided_once_and_what_is_older_decides_nothing(rig: Rig) -> None:
    rig.release(1, wanting("reroute"), counter=1)
    first, second = rig.cell.burst(T0), rig.cell.burst(T0 + STEP)
    action = rig.hear(second, T0 + STEP)
    assert action is not None and (action.kind, action.valid_until) == ("reroute", T0 + 2 * STEP)
    assert rig.hear(second, T0 + STEP) is None and rig.hear(first, T0 + STEP) is None
    again = rig.hear(rig.cell.burst(T0 + 2 * STEP), T0 + 2 * STEP)
    assert again is not None and again.id != action.id
    assert (rig.agent.counts.decisions, rig.agent.counts.again) == (2, 2)


def test_what_was_really_done_is_learned_with_what_it_earned_and_emitted(rig: Rig) -> None:
    rig.release(1, wanting("reroute"), counter=1)
    rig.told(3)
    rig.cell._next = None  # the action was lost: the cell waited
    rig.step()
    assert [one.action for one in rig.learned] == [ACTIONS.index("reroute"), ACTIONS.index("reroute"), 3]
    assert [one.reward for one in rig.learned] == [2, 2, 3]  # this cell pays the number of what it does
    assert [round(one.cost, 6) for one in rig.learned] == [0.2, 0.2, 0.3]
    for before, one in zip(rig.learned, rig.learned[1:], strict=False):
        assert (before.after == one.state).all() and one.state.dtype == np.float32
        assert (one.state >= 0).all() and (one.state <= 1).all()


def test_a_gap_a_new_begin_and_totals_that_fall_are_no_transition(rig: Rig) -> None:
    rig.told(2)
    assert len(rig.learned) == 1
    rig.at += STEP  # one sample never came
    rig.step()
    assert (len(rig.learned), rig.agent.counts.gaps) == (1, 1)
    rig.cell.emitted, rig.cell.earned = 40.0, 400.0
    rig.step()
    assert len(rig.learned) == 2
    rig.cell.emitted = 0.0  # its totals began anew
    rig.step()
    rig.cell.boot = "c002c002"  # and so did the cell
    rig.step()
    assert (len(rig.learned), rig.agent.counts.gaps) == (2, 3)
    rig.told(2)
    assert len(rig.learned) == 4


@pytest.mark.parametrize(
    "spoilt",
    [
        {"wear": 1.7},
        {"wear": None},
        {EARNED: 1e6},
        {EARNED: -1.1 * MOST_EARNED},
        {EMITTED: 1.1 * MOST_EMITTED_KG + 1},
        {DID: 7.0},
        {DID: 0.5},
    ],
    ids=str,
)
def test_a_bad_reading_is_never_learned_from(rig: Rig, spoilt: dict[str, float | None]) -> None:
    rig.told(3)
    rig.step(**spoilt)
    sound = len(rig.learned)
    rig.told(2)
    assert sound == 2
    # `did` speaks of one step; a state or a total that is not known spoils the step after it as well.
    assert len(rig.learned) == (4 if DID in spoilt else 3)


def test_a_value_beyond_its_limits_is_not_decided_by_and_the_safe_action_goes_out(rig: Rig) -> None:
    rig.release(1, wanting("service"), counter=1)
    assert rig.told(2) == ["service", "service"]
    action = rig.step(wear=1.2)
    assert action is not None and action.kind == "wait"
    assert rig.told(1) == ["service"]
    assert (rig.agent.counts.safe, rig.agent.counts.trips) == (1, 0)


def test_a_column_in_another_unit_is_not_taken(rig: Rig) -> None:
    rig.release(1, wanting("service"), counter=1)
    burst = rig.cell.burst(T0)
    other = burst.model_copy(update={"units": {**UNIT, "materials_kg": "g"}})
    action = rig.hear(other, T0)
    assert action is not None and action.kind == "wait"


def test_before_anything_is_released_it_waits_or_explores_and_learns(tmp_path: Path) -> None:
    still = Rig(tmp_path / "still")
    assert set(still.told(20)) == {"wait"} and len(still.learned) == 19
    bold = Rig(tmp_path / "bold", first=1.0)
    assert set(bold.told(60)) == set(ACTIONS)
    assert {one.action for one in bold.learned} == set(range(len(ACTIONS)))
    bold.release(1, wanting("reroute"), counter=1)
    assert set(bold.told(20)) == {"reroute"}, "from now on with the probability that holds for a released version"


def test_the_same_seed_throws_the_same_and_another_one_does_not(tmp_path: Path) -> None:
    told = [Rig(tmp_path / str(k), first=0.5, seed=seed).told(40) for k, seed in enumerate((3, 3, 4))]
    assert told[0] == told[1] != told[2]


def test_a_sample_that_comes_when_its_step_is_over_is_learned_from_and_decides_nothing(rig: Rig) -> None:
    rig.step()
    late = rig.cell.burst(rig.at + STEP)
    assert rig.hear(late, rig.at + 2 * STEP) is None
    assert (len(rig.learned), rig.agent.counts.late) == (1, 1)


def test_a_clock_that_is_ahead_does_not_silence_what_follows(rig: Rig) -> None:
    rig.release(1, wanting("service"), counter=1)
    rig.step()
    assert rig.hear(rig.cell.burst(rig.at + 1_000 * STEP)) is None
    assert rig.told(1) == ["service"] and rig.agent.counts.ahead == 1


def test_the_last_word_is_safetys_whoever_proposes(tmp_path: Path) -> None:
    locked = {"action": "reroute", "metric": "wear", "above": -1.0}  # whenever wear is known
    rig = Rig(tmp_path, explore=0.5, interlocks=[locked])
    rig.release(1, wanting("service"), counter=1)
    told = rig.told(200)
    assert "reroute" not in told and {"disassemble_a", "disassemble_b", "service", "wait"} == set(told)
    assert rig.agent.counts.trips == 0, "what was thrown is nobody's fault"
    report = rig.release(2, wanting("reroute"), counter=2, stage="canary")
    assert [arm.version for arm in report.arms] == [1]
    told = rig.told(60)
    assert "reroute" not in told and rig.agent.counts.trips == 1
    final = rig.models.report("cell", rig.at)
    assert "taken back" in str(final.refused) and {arm.version: arm.trips for arm in final.arms}[2] == 1


def test_versions_in_turns_are_credited_with_what_their_own_decisions_brought(rig: Rig) -> None:
    rig.release(1, wanting("disassemble_b"), counter=1)
    rig.release(2, wanting("service"), counter=2, stage="canary")
    rig.told(41)
    arms = {arm.version: arm for arm in rig.models.report("cell", rig.at).arms}
    assert arms[1].blocks + arms[2].blocks == 20
    assert (arms[1].mean, arms[2].mean) == (1.0, 4.0), "this cell pays the number of what it does"
    assert arms[2].cost == pytest.approx(0.4)
    (pairs,) = rig.models.report("cell", rig.at).pairs
    assert (pairs.pairs, pairs.mean) == (10, 3.0)


def test_an_action_that_was_lost_counts_for_the_version_that_decided_it(rig: Rig) -> None:
    rig.release(1, wanting("disassemble_b"), counter=1)
    for _ in range(11):
        rig.step()
        rig.cell._next = None
    (arm,) = rig.models.report("cell", rig.at).arms
    assert (arm.blocks, arm.mean) == (5, 3.0), "else versions that break the cell would not be blamed for it"


@given(
    st.lists(
        st.tuples(
            st.integers(-3 * STEP, 3 * STEP),
            st.dictionaries(
                st.sampled_from([*METRICS, EARNED, EMITTED, DID, "strange"]),
                st.none() | st.floats(allow_nan=False, allow_infinity=False),
            ),
            st.sampled_from(["a0a0a0a0", "b1b1b1b1"]),
        ),
        max_size=12,
    )
)
def test_whatever_a_cell_says_only_known_actions_go_out_and_only_numbers_are_learned(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, dict[str, float | None], str]]
) -> None:
    rig = Rig(tmp_path_factory.mktemp("any"), first=0.5)
    for n, (later, values, boot) in enumerate(said):
        burst = rig.cell.burst(T0 + n * STEP).model_copy(update={"boot": boot})
        columns = {**burst.columns, **{metric: [value] for metric, value in values.items()}}
        odd = Burst(**{**burst.model_dump(), "columns": columns, "at": [later], "units": {**UNIT, "strange": "m"}})
        action = rig.hear(odd, T0 + n * STEP)
        assert action is None or action.kind in ACTIONS
    for one in rig.learned:
        assert np.isfinite(one.state).all() and np.isfinite(one.after).all()
        assert abs(one.reward) <= 1.5 * MOST_EARNED and 0 <= one.cost <= 1.5 * MOST_EMITTED_KG
        assert one.action in range(len(ACTIONS))


def test_samples_of_one_burst_come_oldest_first_and_are_all_learned_from(rig: Rig) -> None:
    rig.step()
    bursts = [rig.cell.burst(rig.at + k * STEP) for k in (1, 2, 3)]
    together = bursts[0].model_copy(
        update={
            "at": [2 * STEP, 0, STEP],
            "columns": {metric: [bursts[k].columns[metric][0] for k in (2, 0, 1)] for metric in bursts[0].columns},
        }
    )
    action = rig.hear(together, rig.at + 3 * STEP)
    assert action is not None and action.valid_until == rig.at + 4 * STEP
    assert len(rig.learned) == 3 and rig.agent.counts.decisions == 2


def test_a_state_is_scaled_as_the_interface_says() -> None:
    plant = Plant.model_validate(
        {"site": "s", "products": [], "workshops": [{"name": "w", "node": "n", "cells": [{"id": CELL}]}]}
    )
    (device,) = (one for one in plant.devices("n") if one.kind == "cell")
    burst = TinyCell().burst(T0)
    (sample,) = samples(device, burst)
    assert sample.state is not None
    assert sample.state.tolist() == pytest.approx(
        [burst.columns[metric][0] / high for metric, high in zip(METRICS, HIGH, strict=True)], abs=1e-6
    )


def test_settings_that_do_not_fit_the_plant_name_the_cure(tmp_path: Path) -> None:
    plant = load_plant(plant_file(tmp_path))
    with pytest.raises(ConfigError, match=r"no cell 'robot-2'; did you mean 'robot-1'\?"):
        cells_of(plant, NODE, LearningSettings(cells={"robot-2": CellSettings()}))
    two = Plant.model_validate(
        {
            "site": "s",
            "products": [],
            "workshops": [
                {"name": "w", "node": "n", "cells": [{"id": "r1"}, {"id": "r2"}]},
                {"name": "v", "node": "empty"},
            ],
        }
    )
    with pytest.raises(ConfigError, match="give each its own"):
        cells_of(two, "n", LearningSettings())
    assert len(cells_of(two, "n", LearningSettings(cells={"r1": CellSettings(), "r2": CellSettings(model="b")}))) == 2
    with pytest.raises(ConfigError, match="has no cell; leave `learning` out"):
        cells_of(two, "empty", LearningSettings())
    with pytest.raises(ValueError, match="at most 1000000; give smaller widths"):
        LearningSettings(hidden=(4_096, 4_096))
    with pytest.raises(ValueError, match="43 characters"):
        LearningSettings(keys={"cloud": "abc"})


SLIPS = {
    "cannot do 'go'": {"actions": ["disassemble_a", "go"]},
    "cannot do 'halt'": {"safe": "halt", "actions": ["wait"]},
    "no 'wears'; did you mean 'wear'": {"interlocks": [{"action": "reroute", "metric": "wears", "above": 0.9}]},
    "does not hear 'robot-9'; did you mean 'robot-1'": {"stop": [{"metric": "wear", "device": "robot-9", "above": 1}]},
    "says no `state`": {"states": {"work": ["reroute"]}},
}


@pytest.mark.parametrize("why", SLIPS)
def test_limits_that_would_lock_a_cell_for_ever_are_refused_with_the_cure(tmp_path: Path, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Rig(tmp_path, **SLIPS[why])


def test_limits_that_are_given_in_part_let_through_the_rest() -> None:
    limits = CellSettings.model_validate({"limits": {"dwell_s": 60}}).limits
    assert limits.actions == ACTIONS and limits.dwell_s == 60
