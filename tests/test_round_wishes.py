"""Rounds do not go on from what was found worse, and an operator has a word on their base and on who takes part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from learning_rig import CLOUD, NET, key_of, settings
from typer.testing import CliRunner

from cloud.site_learning import SiteLearning
from cloud.versions import Draft, Kind, Version
from shoal.models import models

SECOND = 10**6


class Site:
    """A cloud's core, without a bus; two nodes are there, and say nothing."""

    def __init__(self, where: Path) -> None:
        self.data = where / "data"
        self.core = SiteLearning(settings(where, rounds={"deadline_s": 20}), site="s1", data=self.data, key=CLOUD)
        self.rounds, self.registry = self.core.schedule.rounds, self.core.registry
        self.now = SECOND
        for name in ("press", "lathe"):
            self.core.on_presence(name, online=True)
            self.core.on_capability(name, key_of(name).public, self.now)

    def tick(self, seconds: int = 1) -> None:
        self.now += seconds * SECOND
        self.core.on_time(self.now)

    def until_open(self) -> int:
        """The base of the next round."""
        if self.rounds.is_open:
            self.tick(30)
        while not self.rounds.is_open:
            self.tick()
        assert self.rounds.current is not None
        return self.rounds.current.base_version

    def learned(self, number: int) -> Version:
        """As if a round had made it, and the base of the next one."""
        one = self.registry.version("cell", 1)
        theta = np.full(NET.size, number, "<f4")
        draft = Draft(
            model="cell", graph=self.registry.data(one.graph.sha256), parameters=theta.tobytes(), network=NET,
            interface=one.interface, shared=NET.size, origin=f"round {number}",
        )  # fmt: skip
        made = self.registry.add(draft, now=self.now, by="shoal")
        if self.rounds.is_open:
            self.tick(30)
        self.rounds.rebase(theta, version=made.version)
        return made

    def wish(self, kind: Kind, *, version: int | None = None, node: str | None = None) -> int:
        return self.registry.wish("cell", kind, version=version, node=node, by="ada", why="bench")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    assert made.until_open() == 1
    yield made
    made.core.close()


def judged(site: Site, one: Version, stage: str, **metrics: float) -> None:
    site.registry.mark(one, stage, now=site.now, by="shoal", why="test", metrics=metrics)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["refused", "rolled_back"])
def test_rounds_go_on_from_the_newest_version_that_was_not_found_worse(site: Site, stage: str) -> None:
    fine = site.learned(2)
    worse = site.learned(3)
    judged(site, worse, stage, mean_return=1.0)
    assert site.until_open() == fine.version
    assert site.core.data(site.rounds.current.base) == site.registry.data(fine.parameters.sha256)  # type: ignore


def test_what_could_not_be_simulated_was_not_judged_and_is_gone_on_from(site: Site) -> None:
    one = site.learned(2)
    judged(site, one, "refused")
    assert site.until_open() == one.version


def test_an_operator_chooses_the_base_and_it_counts_when_the_open_round_is_closed(site: Site) -> None:
    site.learned(2)
    assert site.until_open() == 2
    wish = site.wish("rebase", version=1)
    site.tick()
    assert site.registry.answered(wish) is None, "a round is open"
    assert site.until_open() == 1
    assert site.registry.answered(wish) == "done"
    assert site.registry.history("cell", 1)[-1][3:] == ("base", "ada", "bench")


def test_a_base_that_was_found_worse_or_is_of_another_network_is_refused(site: Site) -> None:
    judged(site, site.learned(2), "rolled_back")
    face = site.registry.version("cell", 1).interface
    other = site.registry.add(Draft(model="cell", graph=b"graph", interface=face, origin="a.onnx"), now=1, by="ada")
    wishes = [site.wish("rebase", version=number) for number in (2, other.version, 99)]
    site.tick()
    answers = [site.registry.answered(one) or "" for one in wishes]
    assert "was rolled_back, rounds would leave it again" in answers[0]
    assert "another network" in answers[1] and "has no version 99" in answers[2]


def test_an_operator_quarantines_a_node_sees_why_and_lifts_it(site: Site) -> None:
    wishes = [
        site.wish("put_away", node="press"),
        site.wish("put_away", node="nobody"),
        site.wish("lift", node="lathe"),
    ]
    site.tick()
    answers = [site.registry.answered(one) or "" for one in wishes]
    assert answers[0] == "done" and site.rounds.quarantined == ["press"]
    assert "no node 'nobody' is known" in answers[1] and "nothing is held against 'lathe'" in answers[2]
    found = {one["node"]: one for one in json.loads(shown(site, "--json"))}
    assert found.keys() == {"press", "lathe"} and found["press"]["key"] == key_of("press").public
    assert found["press"]["quarantined"] is not None and found["press"]["evidence"][0].endswith("by_hand: bench")
    assert "by_hand: bench" in shown(site) and found["lathe"]["quarantined"] is None
    lift = site.wish("lift", node="press")
    site.tick()
    assert site.registry.answered(lift) == "done" and site.rounds.quarantined == []
    events = [(event.what, event.why) for event in site.registry.history("cell")][-2:]
    assert events == [("put away", "press: bench"), ("lifted", "press: bench")]


def shown(site: Site, *options: str) -> str:
    done = CliRunner().invoke(models, ["nodes", "cell", "--data", str(site.data), *options], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_commands_leave_these_wishes_and_name_what_is_wrong(site: Site) -> None:
    for words, kind in (
        (("lift", "cell", "press"), "lift"),
        (("put-away", "cell", "press"), "put_away"),
        (("rebase", "cell", "1"), "rebase"),
    ):
        arguments = [*words, "--why", "x", "--by", "ada", "--data", str(site.data), "--wait", "0"]
        done = CliRunner().invoke(models, arguments)
        assert done.exit_code == 0, done.output
        assert site.registry.wishes("cell")[-1].kind == kind
    odd = CliRunner().invoke(models, ["lift", "cell", "s1/press", "--why", "x", "--data", str(site.data)])
    assert odd.exit_code and "NODE" in str(odd.exception)


def test_rounds_of_another_model_there_are_none(site: Site) -> None:
    face = site.registry.version("cell", 1).interface
    site.registry.add(Draft(model="detector", graph=b"graph", interface=face, origin="a.onnx"), now=1, by="ada")
    wish = site.registry.wish("detector", "rebase", version=1, node=None, by="ada", why="x")
    site.tick()
    assert site.registry.answered(wish) == "refused: rounds here are of cell, not of detector"
