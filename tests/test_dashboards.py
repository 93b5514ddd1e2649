"""The shipped Grafana dashboards: well formed, and every query answered by a real InfluxDB in the declared unit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard_rig import DASHBOARDS, expand, load, panels, targets

from messages.plant import Plant, load_plant
from messages.quality import Why

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("plant.json", "pipeline.json")
UNITS = {"kW": "kwatt", "kWh": "kwatth", "degC": "celsius", "m3": "m3", "m3/h": "suffix: m³/h", "code": "none"}
"""Unit of a metric in the plant → unit of a Grafana panel."""
FIELD_UNITS = {
    "age_p50_s": "s", "age_p99_s": "s", "late_s": "s", "outbox_bytes": "bytes", "inbox_bytes": "bytes",
    "disk_bytes": "bytes", "energy_planned_kwh": "kwatth", "energy_metered_kwh": "kwatth", "readings": "suffix: /s",
}  # fmt: skip
"""Unit of the fields of health and progress, where a panel shows them as they are; readings by derivative."""


@pytest.fixture(params=NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def plant() -> Plant:
    return load_plant(ROOT / "firmware_sim" / "plants" / "ceramic.toml")


def test_a_dashboard_has_what_grafana_asks_for(dashboard: dict[str, Any]) -> None:
    for key in ("uid", "title", "schemaVersion", "panels", "templating", "time", "annotations", "refresh"):
        assert dashboard[key], key
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(dashboard):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs and len(set(refs)) == len(refs), panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None, panel["title"]
    other = {"shoal-plant": "shoal-pipeline", "shoal-pipeline": "shoal-plant"}[dashboard["uid"]]
    assert [link["url"] for link in dashboard["links"]] == [f"/d/{other}"]


def test_panels_fill_the_grid_without_overlap(dashboard: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} covers {taken[cell]}"
            taken[cell] = panel["title"]


def test_every_query_goes_to_the_provisioned_data_source(dashboard: dict[str, Any]) -> None:
    provisioned = yaml.safe_load((DASHBOARDS.parent / "provisioning/datasources/shoal.yaml").read_text())["datasources"]
    assert [(one["type"], one["jsonData"]["version"]) for one in provisioned] == [("influxdb", "InfluxQL")]
    ours = {"type": "influxdb", "uid": provisioned[0]["uid"]}
    for panel in panels(dashboard):
        mixed = any(target["datasource"]["type"] == "__expr__" for target in panel["targets"])
        assert panel["datasource"] == ({"type": "datasource", "uid": "-- Mixed --"} if mixed else ours), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] in (ours, {"type": "__expr__", "uid": "__expr__"}), panel["title"]
    asked = [*dashboard["templating"]["list"], *dashboard["annotations"]["list"]]
    assert all(one["datasource"] == ours for one in asked if one.get("query") and one.get("type") != "textbox")


def test_every_variable_a_query_names_is_defined_and_every_variable_is_used(dashboard: dict[str, Any]) -> None:
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    text = "\n".join(query for query in _all_queries(dashboard))
    for query in _all_queries(dashboard):
        assert "$" not in re.sub(r"\$/", "/", expand(query, dict.fromkeys(names, "x"), (0, 1), 60)), query
    assert all(re.search(rf"\$(\{{{name}|{name}\b)", text) for name in names)


def test_every_panel_query_keeps_to_the_time_shown_and_to_chosen_sites_or_nodes(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        for target in targets(panel):
            assert "$timeFilter" in target["query"], panel["title"]
            assert '"site" =~' in target["query"], panel["title"]


def test_a_panel_declares_the_unit_that_its_metric_has_in_the_plant(dashboard: dict[str, Any]) -> None:
    specs = {metric: spec for device in plant().devices() for metric, spec in device.metrics.items()}
    checked = 0
    for panel in panels(dashboard):
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in targets(panel):
            if target.get("hide") or "raw" in target["query"] or "${metric" in target["query"]:
                continue
            metric = re.search(r'FROM "(\w+)"', target["query"])
            if metric is None or metric[1] == "event" or "count(" in target["query"] or panel["type"] == "table":
                continue
            if metric[1] in specs:
                expected = UNITS[specs[metric[1]].unit]
                if "gas_kg_per_m3" in target["query"]:
                    expected = "masskg"  # m³ times kg/m³
            elif metric[1] == "signal":
                expected = "suffix: kg/kWh"
            else:
                field = re.search(r'\("(\w+)"\)', target["query"])
                assert field, target["query"]
                rises = "non_negative_difference" in target["query"]
                expected = "none" if rises else FIELD_UNITS.get(field[1], "none")
            assert unit == expected, f"{panel['title']}: {unit}, but {metric[1]} is in {expected}"
            checked += 1
    assert checked >= 12


def test_reasons_and_grades_are_asked_by_the_bits_that_cleaning_sets() -> None:
    panel = next(panel for panel in panels(load("pipeline.json")) if panel["title"].startswith("Reasons"))
    asked = {target["alias"]: int(re.search(r"& (\d+)\)", target["query"])[1]) for target in targets(panel)}  # type: ignore[index]
    assert asked == {why.name.lower(): int(why) for why in Why if why.name}


def test_the_state_timeline_names_every_state_of_the_contract() -> None:
    from messages.contracts import STATE_CODES

    panel = next(panel for panel in panels(load("plant.json")) if panel["type"] == "state-timeline")
    named = {int(code): one["text"] for code, one in panel["fieldConfig"]["defaults"]["mappings"][0]["options"].items()}
    assert {code: text.replace("-", "") for code, text in named.items()} == {v: k for k, v in STATE_CODES.items()}


def _all_queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["query"]
    for panel in panels(dashboard):
        yield from (target["query"] for target in targets(panel))
        yield panel["title"]
