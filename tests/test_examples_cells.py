"""The example of a plant that learns is whole: every file loads, and every node finds its cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.settings import CloudSettings
from edge.settings import EdgeSettings
from firmware_sim.settings import SimSettings
from messages.plant import load_plant
from messages.settings import load

CELLS = Path(__file__).parent.parent / "examples" / "cells"


def test_every_file_of_the_example_loads_and_each_node_has_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CELLS)
    plant = load_plant(Path("plant.toml"))
    cloud = load(CloudSettings, Path("cloud.toml"))
    assert cloud.learning and cloud.learns_at(cloud.learning) == plant.site and not plant.products
    for number in (1, 2):
        node = load(EdgeSettings, Path(f"robot-{number}.toml"))
        assert node.learning and node.site == plant.site
        assert f"cell-{number}" in {device.device for device in plant.devices(node.node)}
    assert load(SimSettings, Path("sim.toml")).plant
