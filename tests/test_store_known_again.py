"""A store's file says where its series are: settings that look elsewhere would hide what was stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.service import know_again
from cloud.settings import CloudSettings
from cloud.stores import Influx1Store, SqliteStore
from messages.errors import UsageError


def settings(data: Path, store: SqliteStore | Influx1Store) -> CloudSettings:
    return CloudSettings(sites=("ceramic",), data=data, store=store)


def test_another_kind_of_store_on_the_same_file_is_refused(tmp_path: Path) -> None:
    first, other = settings(tmp_path, SqliteStore()), settings(tmp_path, Influx1Store(url="http://127.0.0.1:1"))
    with first.store_file.open() as store:
        know_again(store, first)
        know_again(store, first)  # the same again is nothing
    with other.store_file.open() as store:
        with pytest.raises(UsageError, match=r"kind 'sqlite', the settings say 'influx1'.* `path` of its own"):
            know_again(store, other)
        know_again(store, first)  # and what was refused changed nothing


def test_another_address_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = (settings(tmp_path, Influx1Store(url=f"http://{host}:1")) for host in ("127.0.0.1", "localhost"))
    with here.store_file.open() as store:
        know_again(store, here)
        assert "store_moved" not in capsys.readouterr().out
        know_again(store, there)
        assert "store_moved" in capsys.readouterr().out
        know_again(store, there)
        assert "store_moved" not in capsys.readouterr().out
