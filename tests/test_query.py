"""`shoal query` answers people with tables and programs with csv and json, and misuse with the cure."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cloud.ingest import Ingest
from cloud.ledger import Ledger
from cloud.stores import SqliteStore
from messages.bus import Received
from messages.contracts import Batch, Finished, PartIdentified, Rejected, Series
from messages.errors import UsageError
from messages.quality import GOOD, UNCERTAIN, Why
from messages.routes import BATCH
from shoal.query import Agg, Format, duration_s, iso, moment, query

SECOND = 1_000_000
T0 = 1_700_000_400 * SECOND  # 2023-11-14T22:20:00Z
EPOCH = "0123456789abcdef"


def hand_over(ingest: Ingest, seq: int, *, start: int = T0, rows: int = 120, **more: Any) -> None:
    series = [
        Series(
            device=device, metric=metric, unit=unit, t0=start, at=[k * 10 * SECOND for k in range(rows)],
            value=[float(k) for k in range(rows)], quality=quality,
        )
        for device, metric, unit, quality in (
            ("firing-1", "power_kw", "kW", GOOD),
            ("firing-2", "power_kw", "kW", UNCERTAIN | Why.SPIKE),
            ("firing-1", "temp_degc", "degC", GOOD),
        )
    ]  # fmt: skip
    batch = Batch(epoch=EPOCH, lane="live", seq=seq, floor=0, made_at=start, series=series, **more)
    ids = {"site": "ceramic", "node": "firing", "lane": "live"}
    ingest.take([Received(BATCH.topic(**ids), ids, batch, batch.encode())])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "store.db"
    with SqliteStore(path=path).open() as store:
        ingest = Ingest(store, Ledger(store.connection, wall_us=1, path=path), now=lambda: T0)
        records = [
            Finished(at=T0 + SECOND, machine="firing-1", job="b01", op=3, started_at=T0, energy_kwh=12.5),
            PartIdentified(at=T0 + 2 * SECOND, machine="firing-1", job="PO/4711, \"x\""),
            Rejected(at=T0, device="firing-1", metric="power_kw", reason="duplicate", readings=5),
        ]  # fmt: skip
        hand_over(ingest, 0, records=records)
        ingest.put_aside("shoal/v1/ceramic/firing/up/batch/live", b"\xff[/bold]", "not JSON [red]")
    return path


def asked(capsys: pytest.CaptureFixture[str], what: str, **options: Any) -> str:
    query(what, **options)
    return capsys.readouterr().out


def test_windows_of_one_device_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = asked(capsys, "power_kw", device="firing-2", every="10m", output=Format.JSON, store=path)
    assert json.loads(text) == [
        {
            "time": time, "site": "ceramic", "node": "firing", "device": "firing-2", "metric": "power_kw",
            "value": value, "unit": "kW", "quality": "uncertain", "reasons": "spike", "count": 60,
        }
        for time, value in (("2023-11-14T22:20:00Z", 29.5), ("2023-11-14T22:30:00Z", 89.5))
    ]  # fmt: skip


def test_csv_holds_every_reading_of_the_asked_time(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = asked(
        capsys, "power_kw", node="firing", since="2023-11-14T22:21Z", until="2023-11-14T22:22:00", output=Format.CSV,
        store=path,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["device"], row["time"], row["value"]) for row in rows] == [
        (device, f"2023-11-14T22:21:{k * 10:02}Z", str(6.0 + k))
        for device in ("firing-1", "firing-2")
        for k in range(6)
    ]


def test_a_table_shows_the_newest_rows_and_says_how_many_there_are(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query("temp_degc", store=path, limit=3)
    out, err = capsys.readouterr()
    assert [line.split()[5] for line in out.splitlines()[1:]] == ["117", "118", "119"]
    assert "the newest 3 of 120 rows" in err


@pytest.mark.parametrize(("agg", "value"), [(Agg.MIN, 0), (Agg.MAX, 119), (Agg.SUM, 7140), (Agg.COUNT, 120)])
def test_every_aggregate(path: Path, capsys: pytest.CaptureFixture[str], agg: Agg, value: float) -> None:
    (row,) = json.loads(asked(capsys, "temp_degc", every="1d", agg=agg, output=Format.JSON, store=path))
    assert row["value"] == value


def test_records_by_kind_and_by_time(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = json.loads(asked(capsys, "records", kind=["finished"], output=Format.JSON, store=path))
    assert row == {
        "time": "2023-11-14T22:20:01Z", "site": "ceramic", "node": "firing", "kind": "finished", "machine": "firing-1",
        "job": "b01", "op": 3, "started_at": iso(T0), "energy_kwh": 12.5, "key": f"{EPOCH}/live/0/0",
    }  # fmt: skip
    text = asked(capsys, "records", since="2023-11-14T22:20:02Z", output=Format.CSV, store=path)
    assert [row["job"] for row in csv.DictReader(io.StringIO(text))] == ['PO/4711, "x"']
    table = asked(capsys, "records", store=path)
    assert all(word in table for word in ("finished", "part", "rejected", "duplicate"))
    assert asked(capsys, "records", node="glazing", output=Format.JSON, store=path).split() == ["[", "]"]


def test_series_quarantine_and_status(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(json.loads(asked(capsys, "series", output=Format.JSON, store=path))) == 3
    (bad,) = json.loads(asked(capsys, "quarantine", output=Format.JSON, store=path))
    assert (bad["kind"], bad["reason"], bad["payload"]) == ("message", "not JSON [red]", "�[/bold]")
    assert "[/bold]" in asked(capsys, "quarantine", store=path)  # what came over the bus is never markup
    status = {row["name"]: row["value"] for row in json.loads(asked(capsys, "status", output=Format.JSON, store=path))}
    assert (status["rows"], status["ingest readings"], status["ingest bad messages"]) == (360, 360, 1)
    assert status["readings rejected (duplicate)"] == 5
    assert status["quarantine_dropped"] == 0
    assert status[f"stored of ceramic/firing/{EPOCH}/live"] == "through 0"


@pytest.mark.parametrize(
    ("what", "options", "cure"),
    [
        ("power_kv", {}, "did you mean power_kw"),
        ("record", {}, "did you mean records"),
        ("power_kw", {"device": "fring-1"}, "did you mean firing-1"),
        ("power_kw", {"node": "glazing"}, "known: firing"),
        ("power_kw", {"every": "10 parsecs"}, "as in 10m"),
        ("power_kw", {"every": "0m"}, "as in 10m"),
        ("power_kw", {"since": "yesterday"}, "2026-05-01T06:00Z"),
        ("power_kw", {"kind": ["finished"]}, "shoal query records"),
        ("records", {"every": "1h"}, "for metrics"),
        ("power_kw", {"config": Path("cloud.toml")}, "not both"),
    ],
)
def test_misuse_names_the_cure(path: Path, what: str, options: dict[str, Any], cure: str) -> None:
    with pytest.raises(UsageError, match=cure):
        query(what, store=path, **options)


def test_no_store_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store at"):
        query("power_kw", store=tmp_path / "none.db")


def test_the_command_line_finds_the_store_by_the_clouds_settings_and_exits_honestly(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text(f'sites = ["ceramic"]\ndata = "{path.parent}"\n[store]\nkind = "sqlite"\npath = "{path.name}"\n')

    def shoal(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "shoal", "query", *words], capture_output=True, text=True, timeout=60,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip

    good = shoal("power_kw", "--every", "1d", "--agg", "max", "--format", "json", "--config", str(config))
    assert (good.returncode, [row["value"] for row in json.loads(good.stdout)]) == (0, [119.0, 119.0])
    bad = shoal("power_kv", "--config", str(config))
    assert bad.returncode == 2
    assert "did you mean power_kw" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_query_works_while_the_cloud_is_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store.db"
    with SqliteStore(path=path).open() as store:
        ingest = Ingest(store, Ledger(store.connection, wall_us=1, path=path), now=lambda: T0)
        hand_over(ingest, 0)
        enough = threading.Event()

        def write() -> None:
            seq = 1
            while not enough.is_set():
                hand_over(ingest, seq, start=T0 + seq * 3600 * SECOND)
                seq += 1

        def count() -> int:
            text = asked(capsys, "temp_degc", every="10000d", agg=Agg.COUNT, output=Format.JSON, store=path)
            return int(json.loads(text)[0]["value"])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            counts = [count()]
            while len(counts) < 20 or (counts[-1] == counts[0] and writer.is_alive()):
                counts.append(count())
        finally:
            enough.set()
            writer.join()
    assert all(count % 120 == 0 for count in counts)  # whole batches only
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_lengths_and_moments() -> None:
    assert [duration_s(text, "--every") for text in ("30s", "1.5h", "2 d")] == [30.0, 5400.0, 172_800.0]
    assert moment("2h", T0, "--since") == T0 - 7200 * SECOND
    assert moment("now", T0, "--since") == T0
    assert moment("2023-11-14T23:20:00+01:00", 0, "--since") == T0
    assert (iso(T0), iso(T0 + 1), iso(T0 + 5000)) == (
        "2023-11-14T22:20:00Z", "2023-11-14T22:20:00.000001Z", "2023-11-14T22:20:00.005Z",
    )  # fmt: skip


def test_reversed_times_and_unknown_kinds_are_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="exchange them"):
        asked(capsys, "records", since="1h", until="2h", store=path)
    query("records", kind=["finishd"], output=Format.JSON, store=path)
    assert "did you mean finished" in capsys.readouterr().err
    assert len(json.loads(asked(capsys, "series", limit=1, output=Format.JSON, store=path))) == 1
