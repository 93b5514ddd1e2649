"""Nothing that was learned can pass the last word: an independent judge looks at whole runs of random policies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.safety import Condition, Interlock, Limits, Past, Scene, Verdict, judge
from messages.clock import SECOND

ACTIONS = ("disassemble_a", "disassemble_b", "service")
LIMITS = Limits(
    actions=ACTIONS,
    states={"idle": ("disassemble_a", "disassemble_b", "service"), "work": ("disassemble_a", "disassemble_b")},
    dwell_s=20,
    changes=3,
    per_s=200,
    stale_s=30,
    interlocks=(
        Interlock(action="disassemble_a", metric="temperature", above=80),
        Interlock(action="service", metric="speed", above=0.5, device="drive"),
    ),
    stop=(Condition(metric="guard", below=0.5),),
)
FINE = {("cell", "temperature"): 20.0, ("drive", "speed"): 0.0, ("cell", "guard"): 1.0}


def scene(now_s: float = 1_000, *, state: str | None = "idle", old_s: float = 0, **values: float) -> Scene:
    known = {**FINE, **{next(key for key in FINE if key[1] == name): value for name, value in values.items()}}
    now = round(now_s * SECOND)
    latest = {key: (now - round(old_s * SECOND), value) for key, value in known.items()}
    return Scene(now=now, device="cell", state=state, state_at=now, latest=latest)


def test_what_is_allowed_goes_out() -> None:
    verdict = judge(LIMITS, Past(), "service", scene())
    assert (verdict.action, verdict.why, verdict.trip) == ("service", "", False)
    assert verdict.past == Past("service", 1_000 * SECOND, (1_000 * SECOND,))


STOPPED = {
    "emergency: guard of cell is 0, below 0.5": ("service", scene(guard=0.0), False),
    "emergency: guard of cell is not known": ("service", scene(guard=math.nan), False),
    "no proposal": (None, scene(), False),
    "overheat is not an action of this machine": ("overheat", scene(), True),
    "the machine's state is not known": ("service", scene(state=None), False),
    "service is not allowed in state work": ("service", scene(state="work"), True),
    "service is not allowed in state down": ("service", scene(state="down"), True),
    "disassemble_a is locked: temperature of cell is 81, above 80": ("disassemble_a", scene(temperature=81), True),
    "disassemble_a is locked: temperature of cell is not known": ("disassemble_a", scene(temperature=math.inf), False),
    "service is locked: speed of drive is 1, above 0.5": ("service", scene(speed=1.0), True),
}


@pytest.mark.parametrize("why", STOPPED)
def test_what_must_not_go_out_becomes_the_safe_action_with_the_reason(why: str) -> None:
    proposed, where, trip = STOPPED[why]
    verdict = judge(LIMITS, Past("service", 0, ()), proposed, where)
    assert (verdict.action, verdict.why, verdict.trip) == ("wait", why, trip)


def test_what_is_stale_is_not_known() -> None:
    assert judge(LIMITS, Past(), "service", scene(old_s=30)).action == "service"
    assert judge(LIMITS, Past(), "service", scene(old_s=31)).action == "wait"
    assert judge(LIMITS, Past(), "service", scene(old_s=-31)).action == "wait", "a clock that is wrong"


def test_a_change_that_comes_too_early_leaves_the_action_in_force_unless_that_is_forbidden_now() -> None:
    past = judge(LIMITS, Past(), "disassemble_a", scene(1_000)).past
    early = judge(LIMITS, past, "disassemble_b", scene(1_019))
    assert (early.action, early.why, early.trip) == ("disassemble_a", "disassemble_a stays for 20 s", False)
    assert judge(LIMITS, past, "disassemble_b", scene(1_019, temperature=99.0)).action == "wait"
    assert judge(LIMITS, past, "disassemble_b", scene(1_020)).action == "disassemble_b"


def test_only_so_many_changes_go_out_in_a_time_but_the_safe_action_always_does() -> None:
    past, sent = Past(), []
    for k in range(6):
        verdict = judge(LIMITS, past, ACTIONS[k % 2], scene(1_000 + 30 * k))
        past = verdict.past
        sent.append(verdict.action)
    assert sent == [
        "disassemble_a",
        "disassemble_b",
        "disassemble_a",
        "disassemble_a",
        "disassemble_a",
        "disassemble_a",
    ]
    assert judge(LIMITS, past, "disassemble_b", scene(1_150)).why == "3 changes within 200 s"
    assert judge(LIMITS, past, "wait", scene(1_150)).action == "wait"
    assert judge(LIMITS, past, "disassemble_b", scene(1_201)).action == "disassemble_b"


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 40), st.integers(20, 300))
@settings(max_examples=100, deadline=None)
def test_no_policy_can_make_anything_pass_that_the_limits_forbid(
    seed: int, changes: int, dwell_s: int, per_s: int
) -> None:
    """Two hundred decisions of a policy that wants anything, in a plant where anything happens."""
    rng = np.random.default_rng(seed)
    limits = LIMITS.model_copy(update={"changes": changes, "dwell_s": float(dwell_s), "per_s": float(per_s)})
    past, now_s = Past(), 1_000.0
    run: list[tuple[float, Scene, Verdict]] = []
    for _ in range(200):
        now_s += float(rng.choice([0.5, 5, 30]))
        state = rng.choice(np.array(["idle", "work", "down", None], object))
        odd = [0.0, 1.0, 79.0, 81.0, math.nan, math.inf, -math.inf]
        values = {name: float(rng.choice(odd)) if rng.random() < 0.3 else FINE[device, name] for device, name in FINE}
        where = scene(now_s, state=state, old_s=float(rng.choice([0, 10, 40], p=[0.8, 0.1, 0.1])), **values)
        proposed = rng.choice(np.array([*ACTIONS, "wait", "overheat", "", None], object))
        verdict = judge(limits, past, proposed, where)
        past = verdict.past
        run.append((now_s, where, verdict))
        assert past.action == verdict.action and len(past.changes) <= changes
    _lawful(run, limits)


def _lawful(run: list[tuple[float, Scene, Verdict]], limits: Limits) -> None:
    """Written anew from the limits' own words, without a look at how they are kept."""
    before, began, times = None, -1e9, list[float]()
    for now_s, where, verdict in run:
        action = verdict.action
        temperature, speed, guard = (where.latest[key][1] for key in FINE)
        fresh = where.now - where.latest["cell", "guard"][0] <= 30 * SECOND
        assert action in (*ACTIONS, "wait")
        if action != "wait":
            assert fresh and math.isfinite(guard) and guard >= 0.5
            assert where.state in ("idle", "work")
            assert action != "service" or (where.state == "idle" and math.isfinite(speed) and speed <= 0.5)
            assert action != "disassemble_a" or (math.isfinite(temperature) and temperature <= 80)
        if action != before:
            if action != "wait":
                assert before is None or now_s - began >= limits.dwell_s
                assert sum(now_s - at < limits.per_s for at in times) < limits.changes
            before, began = action, now_s
            times.append(now_s)


def test_limits_that_cannot_be_meant_are_refused_with_the_cure() -> None:
    for settings_, why in (
        ({"actions": ["go"], "states": {"idle": ["stop"]}}, "stop: not in `actions`"),
        ({"actions": ["go"], "interlocks": [{"action": "wait", "metric": "x", "above": 1}]}, "another safe action"),
        ({"actions": ["go"], "interlocks": [{"action": "go", "metric": "x"}]}, "state above, below or both"),
        ({"actions": ["go"], "stop": [{"metric": "x", "above": math.nan}]}, "finite"),
        ({"actions": ["go"], "dwel_s": 3}, "dwel_s"),
    ):
        with pytest.raises(ValidationError, match=why):
            Limits.model_validate(settings_)
