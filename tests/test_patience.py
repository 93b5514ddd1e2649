"""Readings wait to share a commit while more comes by the clock, and not when devices wait for us."""

from __future__ import annotations

import pytest

from edge.patience import ENOUGH, Patience

BURST = 2_300


def commits(commit_s: float, arrivals: list[float], size: int = 200) -> list[float]:
    """When a node commits that takes in these bursts, by the rules of the disk and of patience; times in s."""
    patience, made, last = Patience(commit_s), [], -1e9
    queue = sorted(arrivals)
    now = 0.0
    while queue:
        now = max(now, queue[0])
        came = [at for at in queue if at <= now]
        patience.came(len(came), now)
        waiting = patience.begin(size * len(came), now)
        while now < last + commit_s and not waiting.over(size * sum(at <= now for at in queue), now):
            now += patience.pause_s
        queue = queue[len(came) :]  # what came meanwhile is the next list
        made.append(now)
        last = now
    return made


@pytest.mark.parametrize("commit_s", [0.5, 1.0])
def test_bursts_that_come_by_the_clock_share_a_commit_per_interval(commit_s: float) -> None:
    made = commits(commit_s, [n / 10 for n in range(600)])
    assert len(made) <= 1.1 * 60 / commit_s + 5


def test_machines_that_all_speak_at_the_full_second_do_too() -> None:
    made = commits(5.0, [second + n / 1000 for second in range(120) for n in range(10)])
    assert len(made) <= 120 / 5 * 2 + 10, "they wait for the next second"


@pytest.mark.parametrize("commit_s", [0.05, 1.0, 5.0])
@pytest.mark.parametrize(("credit", "size"), [(4, ENOUGH // 4), (40, BURST), (40, 200), (20, 200)])
def test_devices_that_wait_for_us_are_not_slowed_down_to_the_interval(commit_s: float, credit: int, size: int) -> None:
    patience, now, last = Patience(commit_s), 0.0, -1e9
    begun_last_quarter, rounds = 0.0, 400
    for n in range(rounds):
        if n == rounds * 3 // 4:
            begun_last_quarter = now
        now += 0.001  # they send all they may as soon as they hear from us
        patience.came(credit, now)
        waiting = patience.begin(size * credit, now)
        while now < last + commit_s and not waiting.over(size * credit, now):
            now += patience.pause_s
        last = now
    per_round = (now - begun_last_quarter) / (rounds / 4)
    assert per_round < (0.005 if size * credit >= ENOUGH else 0.15 * commit_s + 0.025)


def test_the_first_burst_after_a_silence_waits_for_nobody() -> None:
    assert commits(1.0, [0.0, 100.0, 200.0]) == [0.0, 100.0, 200.0]
