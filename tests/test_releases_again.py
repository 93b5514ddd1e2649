"""A node that refused what the fleet runs is told again, by and by: most reasons pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_releases import DAY, Plant

from cloud.rollout import AGAIN_MOST_S, AGAIN_S
from messages.clock import SECOND

NODE = "s1/dry"
HOUR = 3_600 * SECOND


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "models.db")
    made.now = 1_000 * DAY
    made.fleet_of(1)
    yield made
    made.registry.close()


def told(plant: Plant, node: str = NODE) -> int:
    """How often."""
    return len(plant.counters[node])


def waits(plant: Plant, for_us: int) -> int:
    """Time goes by, a quarter of an hour at a time; how often the node is told in it."""
    before, until = told(plant), plant.now + for_us
    while plant.now < until:
        plant.now += HOUR // 4
        plant.hear(plant.releases.on_time(plant.now))
    return told(plant) - before


def test_who_refused_is_told_again_after_an_hour_with_a_higher_counter_and_then_no_more_if_it_runs(
    plant: Plant,
) -> None:
    plant.report(NODE, refused="gave way to newer releases; release it again", running=None)
    assert waits(plant, HOUR - HOUR // 4) == 0
    assert waits(plant, HOUR // 2) == 1
    first, again = plant.counters[NODE][-2:]
    assert again > first and plant.running()[NODE] == (1, "fleet")
    plant.report(NODE)
    assert waits(plant, 3 * DAY) == 0
    plant.report(NODE, refused="files of what ran are broken", running=None)
    assert waits(plant, 5 * HOUR // 4) == 1


def test_each_refusal_doubles_the_wait_up_to_a_day(plant: Plant) -> None:
    gaps = []
    for _ in range(9):
        plant.report(NODE, refused="its artefacts did not come in time", running=None)
        since = plant.now
        while waits(plant, HOUR // 4) == 0:
            pass
        gaps.append((plant.now - since) // HOUR)
    assert gaps == [1, 2, 4, 8, 16, 24, 24, 24, 24]
    assert (AGAIN_S, AGAIN_MOST_S) == (3_600, 86_400)


def test_the_same_refusal_said_again_and_silence_move_nothing(plant: Plant) -> None:
    plant.report(NODE, refused="broken", running=None)
    for _ in range(3):
        assert waits(plant, HOUR // 4) == 0
        plant.report(NODE, refused="broken", running=None)
    assert waits(plant, HOUR // 4) == 1
    assert waits(plant, DAY) == 0  # it did not answer that one yet: it is retained, and found when the node is back


def test_a_refusal_that_only_one_report_says_is_remembered(plant: Plant) -> None:
    """A node on which nothing ran yet does not know a counter: what it says next answers nothing."""
    plant.report(NODE, refused="gave way to newer releases; release it again", running=None)
    plant.report(NODE, running=None, counter=0)
    assert waits(plant, 2 * HOUR) == 1


def test_only_who_refused_is_told_and_only_what_it_was_told_last_counts(plant: Plant) -> None:
    others = {node: told(plant, node) for node in plant.bus if node != NODE}
    plant.report(NODE, refused="too old", counter=1)
    assert waits(plant, DAY) == 0
    plant.report(NODE, refused="broken", running=None)
    assert waits(plant, 2 * HOUR) == 1
    assert {node: told(plant, node) for node in others} == others


def test_a_refused_trial_is_ended_and_its_version_not_told_again(plant: Plant) -> None:
    plant.add(2)
    plant.tick()
    canary = plant.canaries()[0]
    plant.report(canary, refused="parameters are not finite")
    plant.report(canary)
    before = told(plant, canary)
    waits(plant, 3 * DAY)
    assert plant.running()[canary] == (1, "fleet") and told(plant, canary) == before


def test_a_pinned_node_that_refused_is_told_again_and_another_version_begins_anew(plant: Plant) -> None:
    plant.registry.wish("cell", "pin", version=1, node=NODE, by="ann", why="for now")
    plant.hear(plant.releases.on_time(plant.now))
    for _ in range(4):
        plant.report(NODE, refused="broken", running=None)
        while waits(plant, HOUR // 4) == 0:
            pass
    number = plant.add(2)
    plant.registry.wish("cell", "pin", version=number, node=NODE, by="ann", why="another")
    plant.hear(plant.releases.on_time(plant.now))
    plant.report(NODE, refused="broken", running=None)
    assert waits(plant, 5 * HOUR // 4) == 1


def test_a_clock_that_is_set_back_and_a_restart_only_make_it_come_early_or_after_an_hour(plant: Plant) -> None:
    plant.report(NODE, refused="broken", running=None)
    plant.now -= 10 * DAY
    plant.hear(plant.releases.on_time(plant.now))
    assert told(plant) == 2
    plant.now += 11 * DAY
    plant.report(NODE, refused="broken", running=None)
    plant.crash()
    plant.report(NODE, refused="broken", running=None)  # retained: it comes again
    assert waits(plant, 2 * HOUR) == 1
