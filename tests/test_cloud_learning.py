"""The learning service over a real bus: nodes learn together, versions are made of it, and come to the nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from conftest import eventually
from learning_rig import Heard, Node, cloud, key_of, running, settings

from cloud.registry import FILE, Registry
from cloud.saying import Out
from cloud.versions import Draft, Version
from messages.broker import Broker
from messages.bus import Bus, Received
from messages.contracts import Presence
from messages.learning import Update, UpdateHead
from messages.routes import PRESENCE, UPDATE
from messages.signing import SigningKey
from messages.updates import signed


def versions(where: Path) -> list[tuple[int, str]]:
    registry = Registry(where / FILE)
    found = [(one.version, one.origin) for one in registry.versions("cell")]
    registry.close()
    return found


async def test_three_nodes_learn_in_rounds_and_every_round_makes_a_version(broker: Broker, tmp_path: Path) -> None:
    nodes = [Node(broker, name) for name in ("dry", "humid", "worn")]
    heard = Heard(broker)
    async with running(cloud(broker, tmp_path, settings(tmp_path)), heard, *nodes):
        await eventually(lambda: len(heard.closed) >= 3)
    for number, done in enumerate(heard.closed[:3], 1):
        assert done.round == number and done.closed and done.closed.version == number + 1
        assert set(done.closed.taken) == {"dry", "humid", "worn"} and not done.closed.refused
    found = dict(versions(tmp_path))
    assert found[1] == "seed 1" and [found[k] for k in (2, 3, 4)] == ["round 1", "round 2", "round 3"]


async def test_a_poisoned_node_is_refused_with_its_reason_and_then_quarantined(broker: Broker, tmp_path: Path) -> None:
    def nan(delta: np.ndarray) -> np.ndarray:
        return np.full_like(delta, np.nan)

    nodes = [Node(broker, "dry"), Node(broker, "humid"), Node(broker, "worn", spoil=nan)]
    heard = Heard(broker)
    wanted = settings(tmp_path, rounds={"gate": {"strikes": 2}})
    async with running(cloud(broker, tmp_path, wanted), heard, *nodes):
        await eventually(lambda: any(one.closed and one.closed.quarantined for one in heard.closed))
        await eventually(lambda: len(heard.closed) >= 4)
    first, second, third = (one.closed for one in heard.closed[:3])
    assert first and second and third
    assert first.refused["worn"].startswith("not_finite") and not first.quarantined
    assert set(first.taken) == {"dry", "humid"} and second.quarantined == ["worn"]
    assert set(third.taken) == {"dry", "humid"}


async def test_bytes_that_are_no_update_are_said_with_the_round(broker: Broker, tmp_path: Path) -> None:
    nodes = [Node(broker, "dry"), Node(broker, "humid")]
    heard = Heard(broker)
    sick = Bus(broker.host, broker.port, client_id="sick", session_expiry_s=0)
    wanted = settings(tmp_path, keys={"sick": key_of("sick").public}, rounds={"deadline_s": 2})
    async with running(cloud(broker, tmp_path, wanted), heard, sick):
        await sick.wait_connected(20)
        # It is there, so the round waits for it, and ends with its deadline.
        await sick.publish(PRESENCE, Presence(online=True, session="0" * 8, at=1), site="s1", node="sick")
        async with running(*nodes):
            await eventually(lambda: any(one.body.closed is None for one in heard.rounds))
            number = str(heard.rounds[-1].body.round)
            await sick.publish(UPDATE, payload=b"\xff" * 100, site="s1", node="sick", round=number)
            done = await eventually(lambda: heard.closed)
    closed = done[0].closed
    assert closed and closed.refused["sick"].startswith("undecodable") and not closed.quarantined


async def test_a_key_that_changes_is_refused_and_nothing_signed_with_it_counts(broker: Broker, tmp_path: Path) -> None:
    heard = Heard(broker)
    async with running(cloud(broker, tmp_path, settings(tmp_path)), heard):
        async with running(Node(broker, "dry"), Node(broker, "humid"), Node(broker, "worn")):
            await eventually(lambda: heard.closed)
        # The same name, another machine: it cannot sign as the one that was known first.
        seen = len(heard.closed)
        async with running(
            Node(broker, "dry"), Node(broker, "humid"), Node(broker, "worn", key=SigningKey.from_seed(b"x" * 32))
        ):
            await eventually(lambda: len(heard.closed) >= seen + 2)
    assert set(heard.closed[0].closed.taken) == {"dry", "humid", "worn"}  # type: ignore[union-attr]
    last = heard.closed[-1].closed
    assert last and "worn" not in last.taken
    assert last.late == [], "nobody waits for what cannot be signed"


async def test_only_nodes_of_the_settings_take_part_unless_it_is_said_otherwise(broker: Broker, tmp_path: Path) -> None:
    names = ("dry", "humid")
    wanted = settings(tmp_path, enrol="settings", keys={name: key_of(name).public for name in names})
    heard = Heard(broker)
    async with running(cloud(broker, tmp_path, wanted), heard, *(Node(broker, one) for one in (*names, "stranger"))):
        await eventually(lambda: len(heard.closed) >= 2)
    for done in heard.closed:
        assert done.closed and set(done.closed.taken) == set(names) and not done.closed.refused


async def test_a_candidate_goes_through_simulation_and_canaries_and_a_bad_one_is_rolled_back(
    broker: Broker, tmp_path: Path
) -> None:
    """Version 2 is as good as version 1, version 3 is not, whatever the simulation thinks of it."""
    wanted = settings(tmp_path, pause_s=3600.0, releases={"canaries": 1, "test": {"margin": 0.2}})
    nodes = [Node(broker, name, worth=lambda version: 0.5 if version == 3 else 1.0) for name in ("dry", "humid")]
    heard = Heard(broker)
    with closing(Registry(tmp_path / FILE)) as registry:
        async with running(cloud(broker, tmp_path, wanted), heard, *nodes):
            await eventually(lambda: all(node.runs == 2 for node in nodes), what="version 2 on the fleet")
            before = registry.version("cell", 2)
            assert before.parameters
            worse = registry.data(before.parameters.sha256)[::-1]
            facts = before.model_dump(include={"model", "network", "interface", "shared"})
            draft = Draft(**facts, graph=registry.data(before.graph.sha256), parameters=worse, origin="by hand")
            registry.add(draft, now=1, by="test")
            await eventually(lambda: registry.version("cell", 3).stage == "rolled_back", what="version 3 rolled back")
            last = await eventually(lambda: [one for one in heard.releases if one[1].body.instead_of == 3])
        events = [(one.version, one.what) for one in registry.history("cell")]
    assert last[0][1].body.version == 2
    assert [what for version, what in events if version == 2][:3] == ["candidate", "validated", "canary"]
    assert (2, "fleet") in events and [what for version, what in events if version == 3] == [
        *("candidate", "validated", "canary", "rolled_back"),
    ]
    stages = [(node, one.body.version, one.body.stage) for node, one in heard.releases]
    assert len({node for node, version, stage in stages if (version, stage) == (3, "canary")}) == 1, "one canary alone"


async def test_what_is_worse_in_simulation_reaches_no_node_unless_an_operator_has_canaries_judge_it(
    broker: Broker, tmp_path: Path
) -> None:
    def simulate(version: Version) -> Mapping[str, float]:
        return {"mean_return": 1.0 if version.version == 1 else 0.1}

    wanted = settings(tmp_path, pause_s=3600.0, releases={"canaries": 1, "test": {"margin": 0.2}})
    nodes = [Node(broker, name) for name in ("dry", "humid")]
    heard = Heard(broker)
    with closing(Registry(tmp_path / FILE)) as registry:
        async with running(cloud(broker, tmp_path, wanted, simulate=simulate), heard, *nodes):
            await eventually(lambda: "refused" in [one.stage for one in registry.versions("cell")])
            assert {one.body.version for _, one in heard.releases} == {1}
            number = registry.wish("cell", "canary", version=2, node=None, by="ann", why="trust me")
            assert await eventually(lambda: registry.answered(number)) == "done"
            await eventually(lambda: all(node.runs == 2 for node in nodes), what="version 2 on the fleet")
        said = [(one.what, one.by, one.why) for one in registry.history("cell", 2)]
    assert ("validated", "ann", "without simulation: trust me") in said


async def test_judging_updates_and_closing_a_round_leave_the_loop_to_others(broker: Broker, tmp_path: Path) -> None:
    """Telemetry is taken in on the same loop: it must turn while signatures are checked and sums are made."""
    names = [f"node-{k}" for k in range(60)]
    keys = {name: key_of(name) for name in names}
    wanted = settings(tmp_path, keys={name: key.public for name, key in keys.items()}, rounds={"quorum": 60})
    learning, heard = cloud(broker, tmp_path, wanted), Heard(broker)
    speaker = Bus(broker.host, broker.port, client_id="speaker", session_expiry_s=0)
    async with running(learning, heard, speaker):
        await speaker.wait_connected(20)
        for name in names:
            await speaker.publish(PRESENCE, Presence(online=True, session="0" * 8, at=1), site="s1", node=name)
        asked = (await eventually(lambda: heard.rounds))[0].body
        head = UpdateHead(
            model="cell", round=1, base=asked.base.sha256, at=asked.opened_at, codec=asked.codec, samples=9
        )
        rng = np.random.default_rng(1)
        rows = (rng.normal(size=asked.shared) + 0.1 * rng.normal(size=(len(names), asked.shared))).astype(np.float32)
        sent = {name: signed(head, row, keys[name], name=name) for name, row in zip(names, rows, strict=True)}
        batch = [
            Received("", {"site": "s1", "node": name, "round": "1"}, update, update.data)
            for name, update in sent.items()
        ]
        turns, meanwhile, judge = 0, [], learning._core.on_updates

        def judged(came: Sequence[tuple[str, int, Update]], now: int) -> list[Out]:
            began = turns
            found = judge(came, now)
            meanwhile.append(turns - began)
            return found

        learning._core.on_updates = judged  # type: ignore[method-assign]
        done = asyncio.create_task(learning._on_updates(batch))
        while not done.done():
            await asyncio.sleep(0)
            turns += 1
        await eventually(lambda: heard.closed)
    closed = heard.closed[0].closed
    assert closed and len(closed.taken) == 60
    assert meanwhile[0] > 10, "the loop stood still while updates were judged and the round closed"
