"""Grafana's part, for tests: the shipped dashboards read, their variables and macros expanded, their queries executed.

    for query in queries(load("plant.json"), {"site": "ceramic"}, span):
        answer = ask(url, query.text)           # [(labels, [(µs, value), …]), …]

Expands what the shipped dashboards use and no more: `$timeFilter`, `$__interval`, `${name:regex}`, `${name}`,
`$name`, and math expressions of two queries. Anything else that looks like a variable is an error.
"""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboards"
DEFAULT_INTERVAL_S = 300
"""What Grafana would choose for a day on a wide panel."""
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Points = list[tuple[int, Any]]


@dataclass(frozen=True)
class Asked:
    """One query as Grafana would send it."""

    panel: str
    ref: str
    text: str


@dataclass(frozen=True)
class Curve:
    """One series of an answer; `rows` are (µs, first field)."""

    metric: str
    labels: Mapping[str, str]
    rows: Points
    whole: list[list[Any]] = field(default_factory=list, compare=False)
    """every column, for tables"""

    @property
    def values(self) -> list[Any]:
        return [value for _, value in self.rows if value is not None]


def load(name: str) -> dict[str, Any]:
    """A shipped dashboard."""
    found: dict[str, Any] = json.loads((DASHBOARDS / name).read_text(encoding="utf-8"))
    return found


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its panels, rows left out."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(panel: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its queries, expressions left out."""
    return [target for target in panel["targets"] if target["datasource"]["type"] == "influxdb"]


def chosen(dashboard: Mapping[str, Any], url: str, **given: str | list[str]) -> dict[str, str | list[str]]:
    """What every variable is set to: `given`, else as the dashboard opens. Variables may use earlier ones."""
    values: dict[str, str | list[str]] = {}
    for variable in dashboard["templating"]["list"]:
        name, current = variable["name"], variable["current"]["value"]
        if current == ["$__all"]:
            current = variable["allValue"] or offered(variable, values, url)
        values[name] = given.get(name, current)
    return values


def offered(variable: Mapping[str, Any], values: Mapping[str, str | list[str]], url: str) -> list[str]:
    """What a query variable offers to choose from."""
    keep = re.compile(variable["regex"].strip("/") or ".*")
    curves = ask(url, expand(variable["query"], values, (0, 0), 60))
    rows = [value if value is not None else key for curve in curves for key, value in curve.rows]
    return sorted({str(row) for row in rows if keep.match(str(row))})


def expand(text: str, values: Mapping[str, str | list[str]], span: tuple[int, int], interval_s: int) -> str:
    """As Grafana's InfluxQL data source expands it; `span` in ms. AssertionError: a variable nobody defines."""
    text = text.replace("$timeFilter", f"time >= {span[0]}ms and time <= {span[1]}ms")
    text = text.replace("$__interval", f"{interval_s}s")

    def one(match: re.Match[str]) -> str:
        name, how = match["braced"] or match["plain"], match["how"]
        assert name in values, f"no variable {name} for {text}"
        value = values[name]
        if how == "regex":
            if isinstance(value, str):
                return value  # "All" as its allValue, or a single choice
            return "(" + "|".join(re.escape(item) for item in value) + ")"
        assert isinstance(value, str), f"{name} has many values and no format in {text}"
        return value

    # A `$` before `/` ends a regular expression of InfluxQL.
    return re.sub(r"\$(?:\{(?P<braced>\w+)(?::(?P<how>\w+))?\}|(?P<plain>[A-Za-z_]\w*))", one, text)


def interval_of(panel: Mapping[str, Any]) -> int:
    """Seconds of `$__interval`: Grafana's choice, but not below the panel's own."""
    least = panel.get("interval", "1s")
    return max(DEFAULT_INTERVAL_S, int(least[:-1]) * _UNITS_S[least[-1]])


def queries(
    dashboard: Mapping[str, Any], values: Mapping[str, str | list[str]], span: tuple[int, int]
) -> Iterator[tuple[dict[str, Any], Asked]]:
    """Every query of every panel, expanded."""
    for panel in panels(dashboard):
        for target in targets(panel):
            text = expand(target["query"], values, span, interval_of(panel))
            yield panel, Asked(panel["title"], target["refId"], text)


def ask(url: str, text: str, db: str = "shoal") -> list[Curve]:
    """Execute InfluxQL; AssertionError carries what InfluxDB says against it."""
    where = f"{url}/query?" + urllib.parse.urlencode({"db": db, "epoch": "u", "q": text})
    with urllib.request.urlopen(where, timeout=30) as response:
        answer = json.load(response)
    curves = []
    for result in answer["results"]:
        assert "error" not in result, f"{result['error']}: {text}"
        for one in result.get("series", []):
            rows = [(row[0], row[1] if len(row) > 1 else None) for row in one["values"]]
            curves.append(Curve(one["name"], one.get("tags", {}), rows, one["values"]))
    assert "error" not in answer, f"{answer}: {text}"
    return curves


def evaluate(expression: str, by_ref: Mapping[str, list[Curve]]) -> Points:
    """A math expression `$A * $B` over two answers without labels: Grafana joins them by time."""
    match = re.fullmatch(r"\$([A-Z]) ([*+]) \$([A-Z])", expression)
    assert match, f"an expression this rig does not know: {expression}"
    left, right = (dict(by_ref[ref][0].rows) for ref in (match[1], match[3]))
    both = [at for at in left if left[at] is not None and right.get(at) is not None]
    return [(at, left[at] * right[at] if match[2] == "*" else left[at] + right[at]) for at in both]
