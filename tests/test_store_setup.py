"""Setting a store up: what --init-store makes, what the settings refuse, and the mirror beside the store."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from servers import Influx, Proxy, Victoria
from test_stores import SECOND, batch, series

from cloud.settings import CloudSettings
from cloud.stores import Influx1Store, SqliteStore, VictoriaMirror
from cloud.stores.init import init_store
from messages.errors import ConfigError, UsageError
from messages.settings import describe, load


def shoal(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shoal", *args], capture_output=True, text=True, timeout=60)


def config(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "cloud.toml"
    file.write_text("\n".join(['sites = ["ceramic"]', f'data = "{tmp_path}/data"', *lines]) + "\n")
    return file


# --- --init-store -------------------------------------------------------------------------------------------


def test_init_store_makes_what_is_missing_changes_what_differs_and_says_so(influx: Influx, tmp_path: Path) -> None:
    database = f"i{time.time_ns()}"
    lines = ["[store]", 'kind = "influx1"', f'url = "{influx.url}"', f'database = "{database}"']
    done = shoal("cloud", "--init-store", "--config", str(config(tmp_path, *lines, "retention_days = 90")))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"database {database}: made",
        "retention policy autogen: was 0s, is now 90 days",
        f"file {tmp_path}/data/shoal.db: made",
    ]
    again = shoal("cloud", "--init-store", "--config", str(config(tmp_path, *lines, "retention_days = 90")))
    assert again.stdout.splitlines() == [
        f"database {database}: is there",
        "retention policy autogen: keeps 90 days",
        f"file {tmp_path}/data/shoal.db: is there",
    ]
    for days, kept in [(1.0, "24h0m0s"), (0.0, "0s"), (400.0, "9600h0m0s")]:
        settings = Influx1Store(url=influx.url, database=database, retention_days=days, path=tmp_path / "x.db")
        assert any("is now" in line for line in init_store(settings))
        (policies,) = influx.query(f'SHOW RETENTION POLICIES ON "{database}"')
        assert [row[1] for row in policies["values"]] == [kept]


def test_init_store_says_what_is_wrong_in_one_line(influx: Influx, tmp_path: Path) -> None:
    away = config(tmp_path, "[store]", 'kind = "influx1"', 'url = "http://127.0.0.1:9"')
    done = shoal("cloud", "--init-store", "--config", str(away))
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:9 is not reachable" in done.stderr and len(done.stderr.splitlines()) == 1
    short = Influx1Store(url=influx.url, database="short", retention_days=0.01, path=tmp_path / "x.db")
    with pytest.raises(ConfigError, match="an hour or more"):
        list(init_store(short))
    done = shoal("cloud", "--init-store", "--config", str(config(tmp_path, "[store]", 'kind = "influx9"')))
    assert done.returncode == 2 and "influx1" in done.stderr


def test_init_store_of_the_embedded_store_makes_its_file(tmp_path: Path) -> None:
    file = tmp_path / "shoal.db"
    assert list(init_store(SqliteStore(path=file))) == [f"file {file}: made"]
    assert list(init_store(SqliteStore(path=file))) == [f"file {file}: is there"]


# --- settings -----------------------------------------------------------------------------------------------


def test_a_store_without_kind_is_the_embedded_one_and_variables_reach_every_kind(tmp_path: Path) -> None:
    file = config(tmp_path, "[store]", "retention_days = 3")
    assert load(CloudSettings, file, {}).store == SqliteStore(retention_days=3)
    environ = {"SHOAL_CLOUD_STORE__KIND": "influx1", "SHOAL_CLOUD_STORE__PASSWORD": "s3cret"}
    settings = load(CloudSettings, file, environ)
    assert isinstance(settings.store, Influx1Store) and settings.store.retention_days == 3
    said = describe(settings)
    assert "s3cret" not in said + repr(settings) and 'kind = "influx1"' in said


@pytest.mark.parametrize(
    ("lines", "cure"),
    [
        (["[store]", 'kind = "victoria"'], "[[mirrors]]"),
        (["[store]", 'kind = "influx1"', 'url = "http://me:pw@host:8086"'], "keys of their own"),
        (["[store]", 'kind = "influx1"', 'url = "host:8086"'], "http://host:port"),
        (["[store]", 'kind = "influx1"', 'url = "http://host:99999"'], "http://host:port"),
        (["[store]", 'kind = "influx1"', 'databse = "x"'], "did you mean database"),
        (["[[mirrors]]", 'kind = "sqlite"'], "victoria"),
    ],
)
def test_a_store_that_cannot_be_meant_is_refused_with_the_cure(tmp_path: Path, lines: list[str], cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(CloudSettings, config(tmp_path, *lines), {})
    assert cure in str(caught.value) and "pw@" not in str(caught.value)


# --- the mirror -----------------------------------------------------------------------------------------------


def rows(victoria: Victoria, name: str) -> list[tuple[int, float]]:
    return [row for one in victoria.series(name) for row in zip(one["timestamps"], one["values"], strict=True)]


async def test_a_mirror_gets_what_is_stored_and_drops_rather_than_doubles(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000 * 1000 - 3600 * SECOND
    faults: list[dict[str, Any]] = [{"answer": (500, "no", {})}, {"read": 10}, {"after": True, "answer": (500, "", {})}]
    with Victoria(tmp_path / "vm") as victoria, Proxy(victoria) as proxy:
        with VictoriaMirror(url=proxy.url).open() as mirror:
            mirror.offer([batch(0, series(start=now, raw={0: 9.0}))])
            await eventually(lambda: mirror.sent == 3)
            for k, fault in enumerate(faults, 1):
                proxy.fault(**fault)
                mirror.offer([batch(k, series(start=now + k * 60 * SECOND))])
                await eventually(lambda k=k: mirror.dropped == 3 * k)  # type: ignore[misc]
            mirror.offer([batch(9, series(start=now + 600 * SECOND))])
            await eventually(lambda: mirror.sent == 6)
        times = [at for at, _ in rows(victoria, "power_kw_value")]
        assert len(times) == len(set(times)) == 9  # two dropped bodies never came, one came and was not confirmed
        assert rows(victoria, "power_kw_quality")[0][1] == 192
        assert rows(victoria, "power_kw_raw") == [(now // 1000, 9.0)]


async def test_a_mirror_that_is_down_waits_within_its_bound_and_holds_nobody_up(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000 * 1000 - 3600 * SECOND
    victoria = Victoria(tmp_path / "vm")
    with VictoriaMirror(url=victoria.url, queue_readings=1000).open() as mirror:
        began = time.monotonic()
        for k in range(500):
            mirror.offer([batch(k, series(start=now + k * 5 * SECOND))])
        assert time.monotonic() - began < 20  # if each waited, many times that
        assert mirror.dropped == 501  # 333 batches of three fit
        with victoria:
            await eventually(lambda: mirror.sent == 1500 - mirror.dropped)
            assert len(rows(victoria, "power_kw_value")) == mirror.sent
    began = time.monotonic()
    with VictoriaMirror(url=victoria.url).open() as mirror:
        mirror.offer([batch(0, series())])
    assert time.monotonic() - began < 20  # a stop does not wait for it


def test_no_store_may_be_one_that_loses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[\[mirrors\]\]"):
        CloudSettings(sites=("ceramic",), store=VictoriaMirror())  # type: ignore[arg-type]
