"""What a node says of its models is signed by the key it shows, and numbered so that nothing old passes for new."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import pytest
from agent_rig import NODE, T0, wanting
from conftest import eventually
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from test_agent_lockstep import floor

from edge.files import Files
from edge.reporting import BLOCK, NUMBERS, first_number
from messages.broker import Broker
from messages.errors import BadMessage, StoreDown
from messages.learning import ModelReport
from messages.signing import public_key, verify


@given(st.lists(st.tuples(st.integers(0, 2**52), st.integers(0, 10**6)), max_size=10))
def test_numbers_rise_over_restarts_whatever_the_clock_says(starts: list[tuple[int, int]]) -> None:
    """Of each start: its clock, and how many reports it made."""
    with tempfile.TemporaryDirectory() as folder:
        last = -1
        for now, reports in starts:
            first = first_number(Files(Path(folder)), now)
            assert first > last
            last = first + reports


def test_a_file_of_numbers_that_was_lost_is_made_up_for_by_the_clock(tmp_path: Path) -> None:
    files = Files(tmp_path)
    first = first_number(files, T0)
    (tmp_path / NUMBERS).write_bytes(b"\x00\x00")
    assert first_number(files, T0 + 1) > first
    (tmp_path / NUMBERS).unlink()
    assert first_number(files, T0 + 2) > first + 1


def test_on_a_full_disk_a_node_begins_by_its_clock_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    assert first_number(files, T0) == T0

    def full(name: str, data: bytes) -> None:
        raise StoreDown(f"{name}: {os.strerror(28)}; make room on that disk")

    monkeypatch.setattr(files, "put", full)
    with capture_logs() as said:
        assert first_number(files, 5) == T0 + BLOCK
    assert [line["event"] for line in said] == ["edge.learning_not_kept"]


async def test_every_report_is_signed_by_the_key_the_node_shows_and_none_has_a_number_again(
    tmp_path: Path, broker: Broker
) -> None:
    said: list[bytes] = []
    for start in range(2):
        async with floor(tmp_path, broker, explore=0.0, report_s=0.001) as one:
            await eventually(lambda one=one: one.teacher.capability is not None)  # type: ignore[misc]
            await one.teacher.release(start + 1, wanting("reroute"), counter=start + 1)
            for _ in range(3):
                await one.step(1)
            await eventually(lambda one=one: one.teacher.reports[-1].arms != [])  # type: ignore[misc]
            said += [payload for payload in one.teacher.signed if payload not in said]  # one is retained
            key = one.teacher.capability.public_key  # type: ignore[union-attr]
    assert len(said) > 6
    keys = {NODE: public_key(str(key))}
    assert {verify(payload, keys) for payload in said} == {NODE}
    with pytest.raises(BadMessage, match="the bytes were changed"):
        verify(said[-1].replace(b'"counter":2', b'"counter":3'), keys)
    numbers = [ModelReport.decode(payload).seq for payload in said]
    assert all(before < after for before, after in itertools.pairwise(numbers))
