"""A node that said once what it runs is told the first version of that model, whenever there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_rig import CLOUD, key_of, settings

from cloud.early_reports import MODELS, EarlyReports
from cloud.saying import Out
from cloud.site_learning import SiteLearning
from cloud.validation import Outcome
from cloud.versions import Draft
from messages.clock import SECOND
from messages.contracts import Envelope
from messages.learning import Feature, Interface, ModelReport, Release
from messages.routes import MODEL
from messages.signing import sign

T0 = 1_000 * SECOND
FACE = Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"])


@pytest.fixture
def core(tmp_path: Path) -> Iterator[SiteLearning]:
    with closing(SiteLearning(settings(tmp_path), site="s1", data=tmp_path, key=CLOUD)) as made:
        for node in ("north", "south"):
            made.on_capability(node, key_of(node).public, T0)
        yield made


def report(model: str = "cell", at: int = T0, running: int | None = None) -> ModelReport:
    return ModelReport(model=model, at=at, session="0" * 8, running=running, seq=at)


def said(node: str, one: ModelReport) -> tuple[str, ModelReport, bytes]:
    """As it comes from the bus, signed."""
    payload = sign(one, key_of(node), name=node)
    return node, ModelReport.decode(payload), payload


def told(outs: list[Out]) -> set[tuple[str, str, int]]:
    """Node, model, version."""
    found = set()
    for out in outs:
        if out.route is MODEL and out.payload is not None:
            body = Envelope[Release].decode(out.payload).body
            found.add((out.ids["node"], body.model, body.version))
    return found


def on_time(core: SiteLearning, now: int) -> list[Out]:
    """A tick, and what the simulation has to say in it."""
    found = core.on_time(now)
    for model, question in list(core.questions()):
        found += core.on_validated(model, question, Outcome({"mean_return": 1.0}, {}), now)
    return found


def imported(core: SiteLearning, model: str = "detector") -> None:
    core.registry.add(Draft(model=model, graph=b"graph", interface=FACE, origin="a file"), now=T0, by="ann")


def test_who_reported_before_the_first_version_is_told_it(core: SiteLearning) -> None:
    assert core.on_reports([said("north", report()), said("south", report())], T0) == []
    assert told(on_time(core, T0 + SECOND) + on_time(core, T0 + 2 * SECOND)) == {
        ("north", "cell", 1),
        ("south", "cell", 1),
    }


def test_the_same_holds_for_a_model_that_is_imported_a_day_later_and_the_newest_word_counts(core: SiteLearning) -> None:
    core.on_reports([said("north", report("detector")), said("north", report("detector", T0 + SECOND, running=7))], T0)
    on_time(core, T0 + SECOND)
    imported(core)
    now = T0 + 86_400 * SECOND
    outs = on_time(core, now) + on_time(core, now + SECOND)
    assert told(outs) == {("north", "detector", 1)}
    (body,) = [Envelope[Release].decode(out.payload).body for out in outs if out.route is MODEL and out.payload]
    assert body.instead_of == 7


def test_what_came_early_does_not_undo_what_the_node_said_since(core: SiteLearning) -> None:
    core.on_reports([said("north", report("detector", T0, running=7))], T0)
    imported(core)
    core.on_reports([said("north", report("detector", T0 + SECOND, running=None))], T0 + SECOND)
    outs = on_time(core, T0 + 2 * SECOND) + on_time(core, T0 + 3 * SECOND)
    (body,) = [Envelope[Release].decode(out.payload).body for out in outs if out.route is MODEL and out.payload]
    assert body.instead_of is None


def test_a_node_that_retired_is_told_nothing(core: SiteLearning) -> None:
    core.on_reports([said("north", report("detector")), said("south", report("detector"))], T0)
    core.on_retired("north", T0)
    imported(core)
    assert told(on_time(core, T0 + SECOND) + on_time(core, T0 + 2 * SECOND)) == {("south", "detector", 1)}


NAMES = st.sampled_from(["a", "b", "c", "d"])


@given(st.lists(st.tuples(st.sampled_from(["keep", "take", "forget"]), NAMES, NAMES), max_size=40))
def test_it_keeps_the_newest_of_each_until_it_is_taken_within_its_bounds(
    steps: list[tuple[str, str, str]],
) -> None:
    """Against plain lists, with bounds so small that they are met; the key of `d` is known from step 20 on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloud.early_reports.MODELS", 2)
        patch.setattr("cloud.early_reports.MOST", 5)
        early, plain = EarlyReports(), list[tuple[str, str, int]]()
        for now, (what, node, model) in enumerate(steps):
            if what == "keep":
                early.keep(node, report(model, now), b"", now)
                mine = [one for one in plain if one[0] == node]
                known = [one for one in mine if one[1] == model]
                if known:
                    plain[plain.index(known[0])] = (node, model, now)
                    continue
                if len(mine) == 2:
                    plain.remove(mine[0])
                if len(plain) < 5:
                    plain.append((node, model, now))
            elif what == "take":
                keys = "abc" if now < 20 else "abcd"
                found = {(name, one.report.model, one.at) for name, one in early.take(model, keys)}
                gone = [one for one in plain if one[1] == model and one[0] in keys]
                assert found == set(gone)
                plain = [one for one in plain if one not in gone]
                assert early.unknown("abc", now) == (["d"] if any(one[0] == "d" for one in plain) else [])
            else:
                early.forget(node)
                plain = [one for one in plain if one[0] != node]


def test_a_node_that_names_ever_new_models_takes_no_room_from_others() -> None:
    early = EarlyReports()
    for number in range(20_000):
        early.keep("hostile", report(f"m{number}"), b"", T0)
    early.keep("north", report("cell"), b"", T0)
    keys = {"hostile", "north"}
    assert [node for node, _ in early.take("cell", keys)] == ["north"]
    assert sum(len(early.take(f"m{number}", keys)) for number in range(20_000)) == MODELS
