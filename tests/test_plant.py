"""The plant file: read strictly, checked whole, the same for firmware, nodes and planner."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from messages.errors import ConfigError, UsageError
from messages.plant import load_plant

CERAMIC = Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml"
INSTANCE = Path(__file__).parent.parent / "examples" / "ceramic.json"


def test_the_ceramic_plant_says_what_the_instance_says() -> None:
    plant = load_plant(CERAMIC)
    instance = json.loads(INSTANCE.read_text())
    assert len(plant.machines) == 16 and plant.nodes == ("forming", "drying", "glazing", "firing")
    for stage in instance["stages"]:
        for machine in stage["machines"]:
            workshop, ours = plant.machines[machine["id"]]
            assert workshop.name == stage["name"] and workshop.carrier == stage["carrier"]
            for key in ("work_kw", "idle_kw", "preheat_kw", "preheat_h", "off_kw"):
                assert getattr(ours, key) == machine[key]
            assert list(ours.time_h) == machine["time_h"]
    assert [stage for stage, _ in plant.route("b07")] == ["forming", "drying", "glazing", "firing"]


def test_every_device_belongs_to_one_node_and_knows_the_limits_of_its_metrics() -> None:
    plant = load_plant(CERAMIC)
    devices = plant.devices()
    assert len(devices) == len({device.device for device in devices}) == 24
    assert sum(len(plant.devices(node)) for node in plant.nodes) == 24
    assert all(spec.low < spec.high for device in devices for spec in device.metrics.values())
    assert {metric for device in devices for metric in device.metrics} >= {"power_kw", "water_m3_h", "gas_m3_h"}


def test_toml_and_json_are_the_same_plant(tmp_path: Path) -> None:
    other = tmp_path / "plant.json"
    other.write_text(json.dumps(tomllib.loads(CERAMIC.read_text())))
    assert load_plant(other) == load_plant(CERAMIC)


@pytest.mark.parametrize(
    ("old", "new", "cure"),
    [
        ("work_kw", "wrok_kw", "did you mean 'work_kw'"),
        ('site = "ceramic"', 'site = "Ceramic Works"', "site"),
        ('node = "firing"', 'node = "all"', "reserved"),
        ('id = "firing-2"', 'id = "firing-1"', "twice"),
        ("time_h = [5, 7, 7,", "time_h = [5, 7,", "15 products"),
        ("time_h = [5, 7, 7,", "time_h = [5, 7.001, 7,", "ticks"),
        ("time_h = [5, 7, 7,", "time_h = [-5, 7, 7,", "-5"),
        ("preheat_kw = 203", "preheat_kw = nan", "finite"),
        ('carrier = "gas"', 'carrier = "steam"', "carrier"),
        ('products = ["b01"', 'products = ["b02"', "one name"),
        ("tick_s = 60", "tick_s = 60\ntick_s = 61", "overwrite"),
        ('name = "firing"', 'name = "firingfiringfiringfiringfir"', "26 characters"),
        ('id = "firing-2"', 'id = "meter-firing"', "meters included"),
        ("sample_s = 30", "sample_s = 0.0000001", "0.001"),
        ("sample_s = 30", "sample_s = 301", "burst_s"),
        ("[[workshops]]", "[[workshops]", "line"),
    ],
)
def test_a_mistake_in_a_plant_file_is_named_with_its_place_and_cure(
    tmp_path: Path, old: str, new: str, cure: str
) -> None:
    text = CERAMIC.read_text()
    assert old in text
    path = tmp_path / "plant.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=r"plant\.toml") as caught:
        load_plant(path)
    assert cure in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.toml", "binary.toml"):
        with pytest.raises(ConfigError, match=name):
            load_plant(tmp_path / name)


def test_unknown_names_are_answered_with_what_there_is() -> None:
    plant = load_plant(CERAMIC)
    with pytest.raises(UsageError, match="did you mean 'firing'"):
        plant.devices("fireing")
    with pytest.raises(UsageError, match="no product 'x'"):
        plant.route("x")


CELLS = """site = "s1"
tick_s = 60
{more}
[[workshops]]
name = "robots"
node = "robot-1"
[[workshops.cells]]
id = "robot-cell-1"
step_s = 60
"""


def test_a_plant_of_cells_alone_has_no_products_and_what_nobody_can_make_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plant.toml"
    path.write_text(CELLS.format(more=""))
    assert load_plant(path).products == ()
    path.write_text(CELLS.format(more='products = ["thing"]'))
    with pytest.raises(ConfigError, match=r"'thing': no workshop has machines.*no products"):
        load_plant(path)
