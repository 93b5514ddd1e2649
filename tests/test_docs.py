"""What the documents say is what the product does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cloud.scheduling import Dispatch
from messages.instances import load_problem, problem_text
from messages.routes import ROUTES
from shoal.schedule_options import MEASURES
from shoal.topics import documents, schema_name, written

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GUIDES = [ROOT / "README.md", DOCS / "guides" / "getting-started.md"]


def asyncapi() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    return loaded


def test_generated_documents_are_current() -> None:
    stale = [
        name
        for name, text in documents().items()
        if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != text
    ]
    left_over = {path.name for path in (DOCS / "schemas").glob("*.json")} - {Path(name).name for name in documents()}
    assert not stale and not left_over, "run: make docs"


def test_writing_documents_removes_the_schema_of_a_contract_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "Gone.json").write_text("{}")
    assert tmp_path / "schemas" / "Gone.json" in written(tmp_path)
    assert not (tmp_path / "schemas" / "Gone.json").exists()
    assert written(tmp_path) == []


def test_every_schema_is_a_valid_schema_and_every_route_has_one() -> None:
    for route in ROUTES:
        schema = json.loads((DOCS / "schemas" / f"{schema_name(route.message)}.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schema_of_a_problem_accepts_what_is_read_and_refuses_a_misspelt_word() -> None:
    schema = json.loads((DOCS / "schemas" / "Problem.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    read = 0
    for path in sorted((ROOT / "examples").glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        check.validate(json.loads(problem_text(load_problem(path))))
        if "jobs" in document:  # else it is a flow shop by stages
            check.validate(document)
            read += 1
            assert not check.is_valid({**document, "machnies": []})
            assert not check.is_valid({**document, "jobs": [{**document["jobs"][0], "release": -1}]})
    assert read > 0


def test_the_schema_of_a_plan_accepts_what_solvers_return() -> None:
    schema = json.loads((DOCS / "schemas" / "Plan.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    plan = Dispatch().solve(load_problem(ROOT / "examples" / "ceramic.json")).plans[0]
    jsonschema.Draft202012Validator(schema).validate(json.loads(plan.encode()))


def test_golden_messages_match_their_schemas() -> None:
    schemas = {schema_name(route.message): route.message for route in ROUTES}
    checked = 0
    for path in sorted((ROOT / "tests" / "golden").rglob("*.json")):
        name = next((name for name in schemas if name.lower() == re.sub(r"[^a-z0-9]", "", path.stem.lower())), None)
        if name is None:
            continue
        schema = json.loads((DOCS / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text(encoding="utf-8")))
        checked += 1
    assert checked > 0


def test_asyncapi_says_what_the_routes_say_and_every_reference_resolves() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert list(document["channels"]) == [route.name for route in ROUTES]
    for route in ROUTES:
        channel = document["channels"][route.name]
        assert channel["address"] == "/".join(route.levels)
        assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"]))
        binding = document["operations"][f"send_{route.name}"]["bindings"]["mqtt"]
        assert (binding["qos"], binding["retain"]) == (route.qos, route.retained)
    for target in references(document):
        if target.startswith("#/"):
            place: Any = document
            for part in target[2:].split("/"):
                place = place[part]
        else:
            assert (DOCS / target).is_file(), target


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def snippets() -> list[Any]:
    found = []
    for path in GUIDES:
        text = path.read_text(encoding="utf-8")
        for number, match in enumerate(re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M), 1):
            found.append(pytest.param(match[1], id=f"{path.name}-{number}"))
    return found


@pytest.mark.parametrize("code", snippets())
def test_every_python_snippet_runs(code: str, tmp_path: Path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(code, encoding="utf-8")
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_link_inside_the_project_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_every_make_target_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)\b", " ".join(re.findall(r"`[^`]+`|^    .*$", path.read_text(), re.M))))
    assert named <= targets


def test_the_first_page_names_every_measure_plans_are_made_for() -> None:
    page = (ROOT / "README.md").read_text()
    assert [name for name in MEASURES if f"`{name}`" not in page] == []
    assert "not yet optimised" not in page
