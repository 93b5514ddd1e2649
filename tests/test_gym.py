"""The cell as a Gymnasium environment: anyone's agent can be run on it, and carbon is a cost it cannot earn with."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.cell import DAY, Cell, cell_of
from firmware_sim.gym import CellEnv
from messages import cells

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "simulator.md"


@pytest.mark.parametrize("multiplier", [0.0, 0.5])
def test_the_environment_is_sound_by_gymnasiums_own_checker(multiplier: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(spec|render).*")  # made directly, and it has no picture
        check_env(CellEnv(cell_of(3, 1.0), days=1, seed=4, multiplier=multiplier))


def test_an_episode_is_the_very_cell_told_the_same() -> None:
    env, spec = CellEnv(cell_of(2, 0.6), days=2, seed=9), cell_of(2, 0.6)
    state, info = env.reset()
    cell = Cell(spec, np.random.default_rng(9), days=2)
    assert info == {"cost": 0.0, "limit_kg": spec.limit_kg, "emitted_kg": 0.0}
    emitted = 0.0
    for k in range(2 * DAY):
        assert state == pytest.approx(np.array(cell.values()) / np.array(cells.HIGH), abs=1e-6)
        state, reward, over, cut_off, info = env.step(k * 7 % 5)
        money, carbon_kg = cell.step(k * 7 % 5)
        emitted = carbon_kg if k % DAY == 0 else emitted + carbon_kg
        assert (reward, info["cost"]) == (money, carbon_kg) and info["emitted_kg"] == pytest.approx(emitted)
        assert not over and cut_off == (k == 2 * DAY - 1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_the_first_episode_is_the_seeds_and_later_ones_differ_in_the_same_way() -> None:
    def episodes() -> list[bytes]:
        env = CellEnv(days=1, seed=3)
        return [env.reset()[0].tobytes() for _ in range(3)]

    assert episodes() == episodes() and len(set(episodes())) == 3
    env = CellEnv(days=1, seed=3)
    assert env.reset(seed=7)[0].tobytes() == CellEnv(days=1, seed=7).reset()[0].tobytes()


@given(st.integers(0, 20), st.floats(0, 100), st.lists(st.integers(0, 4), min_size=1, max_size=DAY))
def test_a_multiplier_only_ever_takes_away(number: int, multiplier: float, actions: list[int]) -> None:
    spec = cell_of(number, 1.0)
    free, bound = CellEnv(spec, seed=number), CellEnv(spec, seed=number, multiplier=multiplier)
    free.reset(), bound.reset()
    for action in actions:
        (_, money, *_, info), (_, reward, *_) = free.step(action), bound.step(action)
        assert info["cost"] > 0
        assert reward == pytest.approx(money - multiplier * info["cost"])


def test_many_of_them_run_side_by_side() -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda n=n: CellEnv(cell_of(n, 1.0), seed=n) for n in range(3)])
    envs.reset(seed=1)
    for _ in range(DAY):
        states, rewards, _, cut_off, infos = envs.step(envs.action_space.sample())
    assert states.shape == (3, 12) and np.isfinite(rewards).all() and cut_off.all() and infos["cost"].shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [({"days": 0}, "one day at least"), ({"multiplier": -1.0}, "give 0 or more"), ({"multiplier": np.nan}, "0 or")],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, float], cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        CellEnv(**arguments)  # type: ignore[arg-type]
    env = CellEnv()
    env.reset()
    with pytest.raises(ValueError, match="there are 0 to 4"):
        env.step(5)


def test_nothing_else_needs_gymnasium() -> None:
    code = "import sys, firmware_sim.service; sys.exit('gymnasium' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_lines_of_the_guide_run() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    lines = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert "CellEnv" in lines
    space: dict[str, Any] = {}
    exec(lines, space)
    assert np.isfinite(space["money"]) and space["carbon_kg"] > 0
