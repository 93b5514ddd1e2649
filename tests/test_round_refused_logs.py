"""Rounds that a node refuses are all counted, and said ever more seldom, with the reason: whoever floods the topic of
rounds fills no disk with lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agent_rig import asked, vector
from structlog.testing import capture_logs
from test_agent_lockstep import Floor, floor

from messages.broker import Broker
from messages.signing import SigningKey

FLOOD = 40
DOUBLINGS = [1, 2, 4, 8, 16, 32]


@pytest.fixture
async def one(tmp_path: Path, broker: Broker) -> AsyncIterator[Floor]:
    async with floor(tmp_path, broker) as made:
        yield made


def refused(said: list[Any]) -> list[Any]:
    return [line for line in said if line["event"] == "edge.round_refused"]


async def test_of_rounds_that_nobody_we_know_signed_the_first_and_every_doubling_is_said(one: Floor) -> None:
    stranger = SigningKey.generate()
    with capture_logs() as said:
        for number in range(1, FLOOD + 1):
            await one.teacher.say(asked(number, vector(1), now=one.now), key=stranger)
        await one.counted("rounds_refused", FLOOD)
    assert [line["refused"] for line in refused(said)] == DOUBLINGS
    assert all("not signed by 'cloud'" in line["why"] and line["log_level"] == "warning" for line in refused(said))


async def test_the_same_holds_for_signed_rounds_that_this_node_cannot_take_part_in(one: Floor) -> None:
    with capture_logs() as said:
        for number in range(1, FLOOD + 1):
            envelope = asked(number, vector(1), now=one.now)
            other = envelope.body.model_copy(update={"codec": "float64"})
            await one.teacher.say(envelope.model_copy(update={"body": other}))
        await one.counted("rounds_refused", FLOOD)
    assert [line["refused"] for line in refused(said)] == DOUBLINGS
    assert [line["round"] for line in refused(said)] == DOUBLINGS
    assert all("its codec 'float64' is not known here" in line["why"] for line in refused(said))


async def test_one_round_that_is_said_again_and_again_is_said_to_be_refused_as_seldom(one: Floor) -> None:
    """As a cloud does after every connect, or whoever recorded it."""
    await one.teacher.say(asked(7, vector(1), now=one.now))
    older = asked(6, vector(1), now=one.now)
    with capture_logs() as said:
        for _ in range(FLOOD):
            await one.teacher.say(older)
        await one.counted("rounds_refused", FLOOD)
    assert [line["refused"] for line in refused(said)] == DOUBLINGS
    assert all(line["round"] == 6 and "is not newer than one before" in line["why"] for line in refused(said))
