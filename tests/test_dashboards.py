"""The shipped Grafana dashboards: well formed, and every query answered by a real InfluxDB in the declared unit."""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import eventually
from dashboard_rig import DASHBOARDS, Curve, ask, chosen, evaluate, expand, load, offered, panels, queries, targets
from servers import Influx

import cloud.service as cloud
import edge.service as edge
import firmware_sim.service as machines
from cloud.settings import CloudSettings, PlannerSettings
from cloud.stores import Influx1Store
from edge.settings import EdgeSettings
from firmware_sim.settings import Breakdown, SimSettings
from messages.broker import Broker
from messages.carbon import GAS_KG_PER_KWH, day_of_carbon, intensity_at
from messages.clock import SECOND, ClockService
from messages.connect import BrokerSettings
from messages.contracts import STATE_CODES
from messages.errors import UsageError
from messages.observe import observe
from messages.plant import Plant, load_plant
from messages.quality import Why
from messages.routes import SIGNAL
from shoal.demo import FAULTS, empty_influx

ROOT = Path(__file__).resolve().parent.parent
HOUR = 3600 * SECOND
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
        assert panel["datasource"] == ours, panel["title"]
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


# --- against a real InfluxDB ----------------------------------------------------------------------------------

START = 1_790_000_000_000_000 // HOUR * HOUR
HOURS = 4
PLANT = """
site = "s1"
sample_s = 30
burst_s = 60
transport_s = 60
products = ["p1", "p2", "p3"]
[[workshops]]
name = "forming"
node = "forming"
base_kw = 12
water_m3_h = 1.5
machines = [
  {id = "forming-1", work_kw = 80, idle_kw = 11, preheat_kw = 33, preheat_h = 0.25, time_h = [0.5, 0.5, 0.75]},
  {id = "forming-2", work_kw = 45, idle_kw = 10, preheat_kw = 28, preheat_h = 0.25, time_h = [0.75, 0.5, 0.5]},
]
[[workshops]]
name = "firing"
node = "firing"
carrier = "gas"
work_degc = 1220
base_kw = 25
machines = [
  {id = "firing-1", work_kw = 330, idle_kw = 95, preheat_kw = 203, preheat_h = 0.5, time_h = [0.5, 0.75, 0.5]},
  {id = "firing-2", work_kw = 310, idle_kw = 98, preheat_kw = 208, preheat_h = 0.5, time_h = [0.5, 0.75, 0.75]},
]
"""
EVERY_REASON = sum(Why)
LAST = START + HOURS * HOUR
MISFORTUNE = f"""
event,site=s1,node=forming kind="gap",device="forming-1",readings=12i,text="gap forming-1" {LAST - 60 * SECOND}
event,site=s1,node=forming kind="rejected",device="forming-1",readings=2i,reason="x",text="x" {LAST - 60 * SECOND + 1}
temperature_degc,site=s1,node=forming,device=forming-1 value=41,raw=900,quality={EVERY_REASON}i {LAST - 60 * SECOND}
state,site=s1,node=forming,device=forming-1 value=3,quality=192i {LAST - SECOND}
state,site=s1,node=firing,device=firing-1 value=5,quality=192i {LAST - SECOND}
"""
"""What a good run of four hours need not have: the panels for it are asked all the same."""


async def test_every_query_answers_with_data_in_the_unit_its_panel_declares(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.observer.ROUND_S", 0.2)
    with Influx(tmp_path / "influx") as influx:
        influx.query("CREATE DATABASE shoal")
        await run_plant(tmp_path, broker, influx)
        assert influx.post("/write?db=shoal&precision=u", MISFORTUNE.strip()) == 204
        answers = {name: answers_of(name, influx.url) for name in NAMES}
    found = {key: curves for answer in answers.values() for key, curves in answer.items()}
    silent = [key for key, curves in found.items() if not any(curve.values for curve in curves)]
    assert not silent, "these queries found nothing"

    for name in NAMES:  # Grafana leaves out a row of which any cell is empty
        for panel in panels(load(name)):
            if panel["type"] == "table":
                assert all(None not in row for curve in found[panel["title"], "A"] for row in curve.whole), panel[
                    "title"
                ]

    def hourly(title: str, ref: str = "A") -> dict[str, dict[int, float]]:
        return {curve.labels.get("device", ""): dict(curve.rows) for curve in found[title, ref]}

    def mean_of(title: str, device: str, hour: int) -> float:
        curve = next(curve for curve in found[title, "A"] if curve.labels["device"] == device)
        return statistics.fmean(value for at, value in curve.rows if value is not None and hour <= at < hour + HOUR)

    hour = START + HOUR  # one in which machines work
    energy = hourly("Electric energy per hour, by workshop")
    assert set(energy) == {"meter-forming", "meter-firing"}
    for device, rows in energy.items():  # kWh in an hour are the hour's mean kW
        assert rows[hour] == pytest.approx(mean_of("Electric power by workshop", device, hour), rel=0.03)
    for device, rows in hourly("Energy by machine").items():
        assert rows[hour] == pytest.approx(mean_of("Power by machine", device, hour), rel=0.05, abs=3)
    gas = hourly("Gas per hour of the clock")["meter-firing"][hour]  # m³ in an hour are the hour's mean m³/h
    assert gas == pytest.approx(mean_of("Gas flow", "meter-firing", hour), rel=0.05) and gas > 1
    title = "CO₂e per hour, estimated"
    assert dict(found[title, "D"][0].rows)[hour] == pytest.approx(gas * 10 * GAS_KG_PER_KWH)
    whole = sum(rows[hour] for rows in energy.values())
    grid = intensity_at(day_of_carbon(START), hour)
    assert dict(found["Electric energy", "A"][0].rows)[hour] == pytest.approx(whole)
    for ref in "ABD":
        assert found["CO₂e, estimated", ref] == found[title, ref]
    electric = dict(evaluate("$A * $B", {ref: found[title, ref] for ref in "AB"}))
    assert electric[hour] == pytest.approx(whole * grid, rel=0.01)
    assert sum(curve.values[0] for curve in found["Operations finished", "A"]) == 6
    assert found["Batches finished", "A"][0].values == found["Batches finished", "B"][0].values == [3]
    shares = [value for curve in found["Not good, by metric", "A"] for value in curve.values]
    assert len(shares) == 9 and all(0 <= value < 100 for value in shares)
    assert found["Readings lost, counted", "A"][0].values == [12]


def test_the_demo_takes_an_empty_database_and_refuses_one_with_readings_in_it(tmp_path: Path) -> None:
    with Influx(tmp_path / "influx") as influx:
        store = empty_influx(influx.url, "shoal demo")
        assert store.database == "shoal demo"
        assert influx.post("/write?db=shoal%20demo", "power_kw value=1") == 204
        with pytest.raises(UsageError, match="is not empty: name another with --database"):
            empty_influx(influx.url, "shoal demo")
    with pytest.raises(UsageError, match="not reachable"):
        empty_influx(influx.url, "shoal")
    with pytest.raises(UsageError, match="http://host:port"):
        empty_influx("influx", "shoal")


def answers_of(name: str, url: str) -> dict[tuple[str, str], list[Curve]]:
    """Every query of a dashboard as it opens, variables and annotations too; (panel, ref) → answer."""
    shown = load(name)
    values, span = chosen(shown, url), (START // 1000, LAST // 1000)
    for variable in shown["templating"]["list"]:
        if variable["type"] == "query":
            assert offered(variable, values, url), f"nothing to choose for {variable['name']}"
    for annotation in shown["annotations"]["list"]:
        assert ask(url, expand(annotation["query"], values, span, 60)), annotation["name"]
    found = {(asked.panel, asked.ref): ask(url, asked.text) for _, asked in queries(shown, values, span)}
    for panel in panels(shown):
        for target in panel["targets"]:
            if target["datasource"]["type"] == "__expr__":
                assert evaluate(target["expression"], {ref: found[panel["title"], ref] for ref in "AB"})
    return found


async def run_plant(directory: Path, broker: Broker, influx: Influx) -> None:
    """Machines, two nodes and the cloud, in one process and lock step, until all is made and stored."""
    file = directory / "plant.toml"
    file.write_text(PLANT)
    nodes = load_plant(file).nodes
    at = BrokerSettings(port=broker.port)
    async with ClockService(start=START) as clock:
        address = f"{clock.host}:{clock.port}"
        sim = SimSettings(
            plant=file, broker=at, clock=address, start=START, seed=3,
            faults=FAULTS,
            scenario=(Breakdown(workshop="firing", at_h=1.2, repair_h=0.25),),
        )  # fmt: skip
        edges = [
            EdgeSettings(site="s1", node=node, plant=file, local=at, data=directory / node, clock=address, health_s=0.1)
            for node in nodes
        ]
        whole = CloudSettings(
            sites=("s1",), broker=at, plant=file, data=directory / "cloud", clock=address,
            store=Influx1Store(url=influx.url), planner=PlannerSettings(budget_s=1.0),
        )  # fmt: skip
        tasks = [asyncio.create_task(one) for one in (cloud.run(whole), machines.run(sim), *map(edge.run, edges))]
        try:
            await clock.gather({"sim", "cloud", *nodes}, timeout_s=100)
            async with observe(broker.host, broker.port) as watcher:
                await watcher.publish(SIGNAL, day_of_carbon(START), site="s1", signal="carbon")
                for minute in range(1, HOURS * 60):
                    await clock.step(to=START + minute * 60 * SECOND)
            await eventually(lambda: told(influx, "progress", 'last("jobs_done")') == 3)
            await eventually(lambda: told(influx, "event", 'count("job")', "WHERE \"kind\" = 'finished'") == 6)
            for task in tasks:
                assert not task.done() or task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def told(influx: Influx, measurement: str, what: str, where: str = "") -> float:
    rows = influx.query(f'SELECT {what} FROM "{measurement}" {where}')
    return float(rows[0]["values"][0][1]) if rows else -1.0
