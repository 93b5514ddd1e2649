"""Trials with nodes that are retired, away, or whose clocks are wrong: nobody waits for what will not come."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_releases import DAY, KEY, NODES, Plant, tried

from cloud.releases import Releases


class Clocks(Plant):
    """Every node has a clock of its own."""

    off: dict[str, int]
    """node → µs it is ahead"""

    def report(self, node: str, **facts: object) -> None:
        super().report(node, **({"at": self.now + 10**6 + self.off.get(node, 0)} | facts))

    def watch(self, *nodes: str) -> str:
        """Until it is decided on version 2."""
        for _ in range(200):
            for node in nodes:
                if self.registry.version("cell", 2).stage == "canary":
                    self.blocks(node, 0.0)
        return self.registry.version("cell", 2).stage


@pytest.fixture
def plant(tmp_path: Path) -> Clocks:
    made = Clocks(tmp_path / "models.db")
    made.now, made.off = 1_000 * DAY, {}
    return made


def test_a_node_whose_clock_was_ahead_and_is_set_right_is_heard_at_once(plant: Clocks) -> None:
    canary, _ = tried(plant)
    plant.off[canary] = 100 * DAY
    plant.report(canary)
    del plant.off[canary]
    plant.blocks(canary, 0.0, trips=1)
    assert plant.registry.version("cell", 2).stage == "rolled_back"


@pytest.mark.parametrize("crashes", [False, True])
def test_what_was_said_before_and_comes_again_says_nothing(plant: Clocks, crashes: bool) -> None:
    canary, _ = tried(plant)
    old = plant.now
    plant.report(canary)
    if crashes:
        plant.crash()
    plant.report(canary, seq=old, refused="an old one", counter=plant.counters[canary][-1])
    assert plant.registry.version("cell", 2).stage == "canary"


def test_a_canary_whose_clock_begins_in_1970_is_not_taken_for_silent(plant: Clocks) -> None:
    canaries = tried(plant)
    plant.off[canaries[0]] = -plant.now + DAY
    assert plant.watch(*canaries) == "fleet"


def test_a_retired_canary_is_not_waited_for(plant: Clocks) -> None:
    gone, stays = tried(plant)
    plant.bus.pop(gone)
    plant.hear(plant.releases.forget(gone, plant.now))
    assert plant.watch(stays) == "fleet"


def test_a_trial_whose_last_canary_is_retired_ends_and_the_next_begins(plant: Clocks) -> None:
    for canary in tried(plant):
        plant.bus.pop(canary)
        plant.hear(plant.releases.forget(canary, plant.now))
    assert plant.registry.version("cell", 2).stage == "inconclusive"
    plant.crash()
    for node in plant.bus:
        plant.report(node)
    plant.add(3)
    plant.tick()
    assert plant.registry.version("cell", 3).stage == "canary"


def test_who_is_away_is_no_canary(plant: Clocks) -> None:
    plant.fleet_of(1)
    there = {NODES[2]}
    plant.releases = Releases(plant.registry, "cell", plant.settings, key=KEY, there=there.__contains__)
    for node in NODES:
        plant.report(node)
    plant.add(2)
    plant.tick()
    assert plant.canaries() == [NODES[2]]
