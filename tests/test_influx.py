"""InfluxDB as a store: every row arrives once and as it was, whatever the server, the way to it or the rows do."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import eventually
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from pydantic import SecretStr
from servers import Influx, Proxy, Victoria
from test_stores import EPOCH, SECOND, T0, batch, series

from cloud.ingest import Ingest
from cloud.ledger import Ledger
from cloud.metering import EnergyMeter
from cloud.stores import BatchKey, Influx1Store, Influx2Store, Observation, Query, StoredBatch
from cloud.stores.influx_store import InfluxConnection
from cloud.stores.lines import event, observation
from cloud.stores.posting import Refused, settle
from cloud.stores.seam import StoredRecord
from messages.bus import Received
from messages.contracts import Interrupted, Other, PartIdentified, Rejected, Series
from messages.errors import StoreDown, StoreRefused, UsageError
from messages.plant import load_plant
from messages.quality import GOOD, UNCERTAIN, Why
from messages.routes import BATCH

DAY = 86_400 * SECOND
SLOW = hypothesis(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def at(influx: Influx, tmp_path: Path) -> Influx1Store:
    """A store with a database of its own."""
    database = f"t{uuid.uuid4().hex}"
    influx.query(f'CREATE DATABASE "{database}"')
    return Influx1Store(path=tmp_path / "s.db", url=influx.url, database=database, timeout_s=5)


@pytest.fixture
def proxy(influx: Influx) -> Iterator[Proxy]:
    with Proxy(influx) as running:
        yield running


def by(proxy: Proxy, settings: Influx1Store, **more: Any) -> Influx1Store:
    return settings.model_copy(update={"url": proxy.url, **more})


@contextmanager
def ingesting(settings: Influx1Store) -> Iterator[tuple[InfluxConnection, Ingest]]:
    with settings.open() as store:
        yield store, Ingest(store, Ledger(store.connection, wall_us=1, path=settings.path), now=lambda: T0)


def received(one: StoredBatch) -> Received:
    ids = {"site": one.key.site, "node": one.key.node, "lane": one.batch.lane}
    return Received(BATCH.topic(**ids), ids, one.batch, one.batch.encode())


def many(n: int = 40, rows: int = 500) -> list[StoredBatch]:
    return [
        batch(k, *(series(device=f"d{d}", start=T0 + k * rows * SECOND, values=tuple(map(float, range(k, k + rows))))
                   for d in range(2)))
        for k in range(n)
    ]  # fmt: skip


def assert_whole(store: InfluxConnection, sent: list[StoredBatch]) -> None:
    """Every row, once, with its value; nothing else."""
    wanted = {(one.device, one.t0 + t): v for b in sent for one in b.batch.series
              for t, v in zip(one.at, one.value, strict=True)}  # fmt: skip
    answer = store.query(Query("power_kw"))
    keys = zip((answer.series[k].device for k in answer.which), answer.times.tolist(), strict=True)
    found = list(zip(keys, answer.values.tolist(), strict=True))
    assert len(found) == len(wanted) and dict(found) == wanted
    assert store.count_rows() == len(wanted)
    assert store.quarantined_rows() == 0


# --- what is written is what is read -----------------------------------------------------------------------


@st.composite
def any_rows(draw: st.DrawFn) -> Series:
    n = draw(st.integers(1, 20))
    at = sorted(draw(st.sets(st.integers(-(10**9), 10**12), min_size=n, max_size=n)))
    values = st.floats(allow_nan=False, allow_infinity=False)
    return Series(
        device=draw(st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,31}\Z")),
        metric=draw(st.sampled_from(["time", "select", "value", "power_kw", "from", "event"])),
        unit="x", t0=10**9 + draw(st.integers(0, 2**50)), at=at,
        value=draw(st.lists(values, min_size=n, max_size=n)),
        quality=draw(st.one_of(st.just(GOOD), st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n))),
        raw=draw(st.dictionaries(st.integers(0, n - 1), values, max_size=3)),
    )  # fmt: skip


@given(one=any_rows())
@SLOW
def test_every_bit_of_a_reading_comes_back(
    influx: Influx, tmp_path_factory: pytest.TempPathFactory, one: Series
) -> None:
    database = "bits"
    influx.query(f'CREATE DATABASE "{database}"')
    path = tmp_path_factory.mktemp("bits") / "s.db"
    key = BatchKey("ceramic", f"n{uuid.uuid4().hex[:20]}", EPOCH, "live", 0)
    with Influx1Store(path=path, url=influx.url, database=database, connections=1).open() as store:
        done = store.append([StoredBatch(key, batch(0, one).batch)])
        assert (done.readings, done.quarantined) == (len(one.at), 0), store.quarantined()
        answer = store.query(Query(one.metric, node=key.node))
        assert answer.times.tolist() == [one.t0 + at for at in one.at]
        assert answer.values.tobytes() == (np.array(one.value) + 0.0).tobytes()  # -0.0 is 0.0 there
        quality = [one.quality] * len(one.at) if isinstance(one.quality, int) else one.quality
        assert answer.quality.tolist() == quality
        silent = [bool(grade & Why.MISSING) and k not in one.raw for k, grade in enumerate(quality)]
        raw = [one.raw.get(k, value) for k, value in enumerate(one.value)]
        assert [math.nan if gone else 0.0 for gone in silent] == pytest.approx(answer.raw * 0, nan_ok=True)
        kept = ~np.array(silent)
        assert answer.raw[kept].tolist() == np.array(raw, float)[kept].tolist()


@given(job=st.text(min_size=1, max_size=60), detail=st.text(max_size=60), node=st.text(min_size=1, max_size=20))
@SLOW
def test_any_text_of_a_record_comes_back(influx: Influx, job: str, detail: str, node: str) -> None:
    influx.query('CREATE DATABASE "texts"')
    record = Interrupted.model_construct(kind="interrupted", at=T0, machine="kiln-1", job=job, op=2, started_at=T0 - 9,
                                      energy_kwh=1.5, detail=detail)  # fmt: skip
    with Influx1Store(url=influx.url).http() as http:
        text = event(StoredRecord(7, "ceramic", node, "k", record))
        assert text.count("\n") == 1
        assert http.post("/write?db=texts&precision=n", text.encode()).status == 204, text
    name = "".join("_" if char in "\\\n\r" else char for char in node)
    wanted = name.replace("'", "\\'")
    (found,) = influx.query(f"SELECT * FROM event WHERE node = '{wanted}'", "texts")
    row = dict(zip(found["columns"], found["values"][0], strict=True))
    assert (row["time"], row["site"], row["op"], row["energy_kwh"]) == (T0 * 1000 + 7, "ceramic", 2, 1.5)
    assert row["job"] == job.replace("\n", " ")
    if detail:
        assert row["detail"] == detail.replace("\n", " ")
    influx.query(f"DELETE FROM event WHERE node = '{wanted}'", "texts")


def test_lines_hold_one_type_per_field_for_ever() -> None:
    odd = Other.model_validate({"kind": "welded", "at": T0, "op": "seven", "energy_kwh": 3, "job": 5, "seam": [1]})
    line = event(StoredRecord(12_345, "s", "n", "k", odd))
    assert line == f'event,node=n,site=s kind="welded",energy_kwh=3.0,text="welded" {T0 * 1000 + 345}\n'
    seen = Observation("health", T0, (("site", "s"), ("node", "n")), {"a b": 1, "x": math.nan, "time": 3.0})
    assert observation(seen) == f"health,node=n,site=s a\\ b=1.0 {T0}\n"


def test_building_lines_takes_few_operations_per_reading() -> None:
    """CPU of 4 metrics × 100 samples against that of their values' digits alone; about half of it."""
    from cloud.stores.lines import Writer

    rng = np.random.default_rng(1)
    some = [series(metric=f"m{k}", values=tuple(rng.normal(50, 5, 100).tolist())) for k in range(4)]
    began = time.process_time()
    for _ in range(50):
        writer = Writer()
        for one in some:
            writer.series(("site", "node"), one)
    between = time.process_time()
    for _ in range(50):
        for one in some:
            assert ",".join(map(repr, one.value))
    assert between - began < 2 * (time.process_time() - between)


# --- rows the server will not take -----------------------------------------------------------------------


def test_only_the_rows_that_conflict_go_to_quarantine_with_the_servers_reason(influx: Influx, at: Influx1Store) -> None:
    influx.post(f"/write?db={at.database}&precision=u", f'bad,site=x value="text" {T0}')
    good = [series(device=f"d{k}") for k in range(30)]
    with at.open() as store:
        done = store.append([batch(0, *good[:13], series(metric="bad", raw={1: 7.0}), *good[13:])])
        assert (done.readings, done.quarantined, store.count_rows()) == (90, 3, 90)
        (kept,) = store.quarantined()
        assert (kept.kind, kept.readings) == ("rows", 3)
        assert "field type conflict" in kept.reason and "kiln-1 bad" in kept.reason
        assert Series.decode(kept.payload) == series(metric="bad", raw={1: 7.0})
        assert store.append([batch(0, *good)]).new == (False,)
        assert "bad" not in {info.metric for info in store.series()}  # nothing of it is stored


def test_rows_older_than_the_retention_are_found_with_few_requests(
    at: Influx1Store, proxy: Proxy, influx: Influx
) -> None:
    influx.query(f'ALTER RETENTION POLICY "autogen" ON "{at.database}" DURATION 24h SHARD DURATION 1h')
    now = time.time_ns() // 1000
    old = series(start=now - 30 * DAY, values=tuple(map(float, range(1000))))
    half = series(device="d2", start=now - 30 * DAY, values=(1.0, 2.0, 3.0, 4.0), step=10 * DAY - SECOND)
    new = series(device="d3", start=now - 1000 * SECOND, values=tuple(map(float, range(900))))
    with by(proxy, at).open() as store:
        done = store.append([batch(0, old, half, new)])
        assert (done.readings, done.quarantined) == (901, 1003)
        assert store.count_rows() == 901
        reasons = {one.reason.split(":")[0]: (one.readings, one.reason) for one in store.quarantined()}
        assert {name: n for name, (n, _) in reasons.items()} == {"kiln-1 power_kw": 1000, "d2 power_kw": 3}
        assert all("retention policy" in why for _, why in reasons.values())
        rest = next(one for one in store.quarantined() if one.readings == 3)
        assert Series.decode(rest.payload).value == [1.0, 2.0, 3.0]
    writes = [path for path, *_ in proxy.requests if path.startswith("/write")]
    assert len(writes) <= 2 * math.ceil(math.log2(1904)) + 4


@given(st.sets(st.integers(0, 199), max_size=12), st.booleans(), st.integers(20, 400))
def test_halving_finds_exactly_the_bad_rows(bad: set[int], counts: bool, most: int) -> None:
    """A server that takes at most `most` rows at once, and says how many it dropped, or does not."""
    from cloud.stores.http import Reply

    stored: set[str] = set()
    posts = 0

    def post(body: bytes) -> Reply:
        nonlocal posts
        posts += 1
        lines = body.decode().splitlines()
        if len(lines) > most:
            return Reply(413, "too large")
        wrong = [line for line in lines if int(line) in bad]
        stored.update(set(lines) - set(wrong))
        return Reply(400, "partial write: odd" + f" dropped={len(wrong)}" * counts) if wrong else Reply(204, "")

    refused = settle(post, b"".join(b"%d\n" % n for n in range(200)))
    assert {n for first, end, _ in refused for n in range(first, end)} == bad
    assert stored == {str(n) for n in range(200)} - {str(n) for n in bad}
    assert posts <= 1 + 2 * 200 // most * 2 + 2 * 8 * max(1, len(bad))


def test_what_is_not_about_rows_puts_no_row_aside() -> None:
    from cloud.stores.http import Reply

    for status, text in [
        (400, "database is required"), (400, "bad gateway thing"), (302, ""), (422, ""),
        (422, "<h1>422 Unprocessable Entity</h1>"), (422, '{"code":"invalid","message":"who are you?"}'),
    ]:  # fmt: skip
        for body in (b"1\n", b"1\n2\n"):
            with pytest.raises(StoreRefused, match="is this the server"):
                settle(lambda _, r=Reply(status, text): r, body)
    text = '{"code":"unprocessable entity","message":"odd"}'
    assert settle(lambda _: Reply(422, text), b"1\n") == [Refused(0, 1, "odd")]


def test_a_body_too_large_at_a_single_row_is_the_servers_limit_and_no_bad_row() -> None:
    from cloud.stores.http import Reply

    posts: list[bytes] = []

    def post(body: bytes) -> Reply:
        posts.append(body)
        return Reply(413, "<html>Request Entity Too Large</html>")

    with pytest.raises(StoreRefused, match="raise the largest body"):
        settle(post, b"1\n2\n3\n4\n")
    assert posts[-1] == b"1\n"


@pytest.mark.parametrize("kind", [Influx1Store, Influx2Store])
async def test_a_200_from_whoever_answers_there_stores_nothing_and_frees_nothing(
    influx: Influx, proxy: Proxy, tmp_path: Path, kind: type[Influx1Store | Influx2Store]
) -> None:
    with kind(path=tmp_path / "s.db", url=proxy.url).open() as store:
        for status in (200, 201, 202):
            proxy.fault(answer=(status, "<html>Please sign in</html>", {}))
            with pytest.raises(StoreRefused, match="correct url and kind"):
                await store.push([batch(0, series())])
        proxy.fault(answer=(200, "", {}))
        with pytest.raises(StoreRefused):
            store.append([batch(0, series())])
        assert (store.series(), store.quarantined()) == ([], [])
        assert store.connection.execute("SELECT count(*) FROM batch").fetchone() == (0,)


def test_victoria_metrics_is_refused_as_the_first_kind_though_it_speaks_its_protocol(tmp_path: Path) -> None:
    """It says 204, and X-Influxdb-Version, before anything is on its disk."""
    with Victoria(tmp_path / "vm") as victoria, Influx1Store(path=tmp_path / "s.db", url=victoria.url).open() as store:
        with pytest.raises(StoreRefused, match="X-Influxdb-Build: correct url and kind"):
            store.append([batch(0, series())])
        assert store.series() == []


# --- a server that is away -----------------------------------------------------------------------------------

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"answer": (500, '{"error":"engine"}', {})},
    "503": {"answer": (503, "later", {"Retry-After": "0"})},
    "429": {"answer": (429, "too many", {})},
    "done, but 500 is said": {"answer": (500, "timeout", {}), "after": True},
    "reset in the body": {"read": 1000},
    "reset before the answer": {"read": 10**9},
    "slow": {"delay_s": 0.3},
    "too slow": {"delay_s": 1.0},
    "401": {"answer": (401, '{"error":"authorization failed"}', {})},
    "404": {"answer": (404, '{"error":"database not found: x"}', {})},
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_whatever_breaks_every_row_is_stored_once(
    at: Influx1Store, proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.ingest.RETRY_S", (0.01, 0.05))
    sent = many(12)
    with ingesting(by(proxy, at, timeout_s=0.6 if fault == "too slow" else 30)) as (store, ingest):
        proxy.fault(**FAULTS[fault], times=3, on="/write")
        for k in range(0, len(sent), 4):
            await ingest.on_batches([received(one) for one in sent[k : k + 4]])
        assert all(one.times <= 0 for one in proxy.faults)
        assert (ingest.waits > 0) == (fault != "slow")
        assert ingest.counts.batches == len(sent)
        assert_whole(store, sent)


async def test_a_killed_server_loses_nothing_that_was_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.ingest.RETRY_S", (0.02, 0.1))
    sent = many(90, rows=200)  # more than are stored between two looks
    with Influx(tmp_path / "influx") as influx:
        influx.query('CREATE DATABASE "shoal"')
        with ingesting(Influx1Store(path=tmp_path / "s.db", url=influx.url, timeout_s=2)) as (store, ingest):

            async def hand_over() -> None:
                for one in sent:
                    await ingest.on_batches([received(one)])
                    await asyncio.sleep(0.002)

            task = asyncio.create_task(hand_over())
            for k in (5, 15, 25):
                await eventually(lambda k=k: ingest.counts.batches >= k)  # type: ignore[misc]
                influx.kill()
                waits = ingest.waits
                await eventually(lambda w=waits: ingest.waits > w)  # type: ignore[misc]
                influx.start()
            await task
            assert_whole(store, sent)


async def test_while_the_server_hangs_everything_else_goes_on_and_a_stop_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Influx(tmp_path / "influx") as influx:
        influx.query('CREATE DATABASE "shoal"')
        with ingesting(Influx1Store(path=tmp_path / "s.db", url=influx.url, timeout_s=60)) as (store, ingest):
            influx.hang()
            task = asyncio.create_task(ingest.on_batches([received(one) for one in many(4)]))
            began = time.monotonic()
            for _ in range(100):
                await asyncio.sleep(0.005)
            assert time.monotonic() - began < 30 and not task.done()  # it would wait for a minute
            assert (store.records(), ingest.counts.batches) == ([], 0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            began = time.monotonic()
        assert time.monotonic() - began < 30  # closing ends the writes under way
        influx.go_on()


async def test_a_large_push_to_a_server_that_hangs_fails_once_not_body_by_body(at: Influx1Store, proxy: Proxy) -> None:
    with by(proxy, at, timeout_s=0.4, connections=2).open() as store:
        proxy.fault(delay_s=2.0, times=99, on="/write")
        with pytest.raises(StoreDown, match=r"no answer within 0.4 s"):
            await store.push(many(40, rows=1000))  # sixteen bodies
        assert sum(path.startswith("/write") for path, *_ in proxy.requests) <= 2


async def test_a_server_that_asks_for_time_is_given_it(at: Influx1Store, proxy: Proxy) -> None:
    with by(proxy, at).open() as store:
        proxy.fault(answer=(429, "slow down", {"Retry-After": "7"}))
        with pytest.raises(StoreDown) as caught:
            await store.push([batch(0, series())])
        assert caught.value.again_in_s == 7
    with ingesting(by(proxy, at)) as (_, ingest):
        proxy.fault(answer=(503, "slow down", {"Retry-After": "1"}))
        began = time.monotonic()
        await ingest.on_batches([received(batch(0, series()))])
        assert time.monotonic() - began >= 1.0


async def test_a_crash_between_points_and_file_means_again_and_again_means_once(at: Influx1Store) -> None:
    sent = many(3)
    messages = [received(one) for one in sent]
    with ingesting(at) as (_, ingest):
        ingest._ledger.write = lambda changes: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            await ingest.on_batches(messages)
    with ingesting(at) as (store, ingest):
        assert (ingest.counts.batches, store.series(), store.count_rows()) == (0, [], 0)
        await ingest.on_batches(messages)
        assert (ingest.counts.batches, ingest.counts.repeats) == (3, 0)
        assert_whole(store, sent)
        await ingest.on_batches(messages)
        assert ingest.counts.repeats == 3


async def test_a_batch_that_is_stored_is_not_pushed_again_though_its_digest_is_forgotten(
    at: Influx1Store, proxy: Proxy
) -> None:
    """A fork beyond the ledger's memory must not overwrite points: the file knows the key."""
    with by(proxy, at).open() as store:
        store.append([batch(0, series(values=(1.0, 2.0)))])
        before = len(proxy.requests)
        other = [batch(0, series(values=(8.0, 9.0)))]
        assert store.append(other, await store.push(other)).new == (False,)
        assert len(proxy.requests) == before
        assert store.query(Query("power_kw")).values.tolist() == [1.0, 2.0]


def test_an_answer_that_breaks_off_is_no_short_answer(at: Influx1Store, proxy: Proxy) -> None:
    with by(proxy, at).open() as store:
        store.append([batch(0, series(values=tuple(map(float, range(2000)))))])
        whole = len(store.query(Query("power_kw")))
        assert whole == 2000
        for cut in (0, 10, 300, 3000):
            proxy.faults.clear()
            proxy.fault(cut=cut, on="/query", times=9)
            with pytest.raises(StoreDown):
                store.query(Query("power_kw"))


def test_an_answer_is_bounded_and_says_what_to_ask_instead(at: Influx1Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.stores.influx_query.MAX_ROWS", 100)
    with at.open() as store:
        store.append([batch(0, series(values=tuple(map(float, range(101)))))])
        with pytest.raises(UsageError, match="101 readings, an answer has at most 100"):
            store.query(Query("power_kw"))
        with pytest.raises(UsageError, match="more than 100 rows"):
            store.query(Query("power_kw", every_s=1.0))
        assert len(store.query(Query("power_kw", every_s=2.0))) <= 52
        assert (store.count_rows(), [len(times) for _, times in store.times()]) == (101, [101])


def test_a_missing_database_and_a_wrong_password_name_the_cure(at: Influx1Store, tmp_path: Path) -> None:
    with at.model_copy(update={"database": "nowhere"}).open() as store:
        with pytest.raises(StoreRefused, match="shoal cloud --init-store"):
            store.append([batch(0, series())])
        assert store.count_rows() == 0  # the dictionary is empty: nothing is asked
    influx = Influx(tmp_path / "influx")
    influx.auth = True
    with influx:
        influx.query("CREATE USER admin WITH PASSWORD 'right' WITH ALL PRIVILEGES")
        for word, works in (("wrong", False), ("right", True)):
            settings = Influx1Store(path=tmp_path / "a.db", url=influx.url, user="admin", password=SecretStr(word))
            with settings.open() as store:
                if works:
                    from cloud.stores.init import init_store

                    store.close()
                    assert "database shoal: made" in list(init_store(settings))
                else:
                    with pytest.raises(StoreRefused, match="user and password") as caught:
                        store.append([batch(0, series())])
                    assert "wrong" not in str(caught.value)


def test_the_planner_goes_on_with_the_energy_it_knew_while_the_store_is_down(at: Influx1Store, proxy: Proxy) -> None:
    plant = load_plant(Path(__file__).parents[1] / "firmware_sim" / "plants" / "ceramic.toml")
    now = [0.0]
    with by(proxy, at).open() as store:
        meter = EnergyMeter(store, plant, monotonic=lambda: now[0])
        store.append([batch(0, series(device="firing-1", metric="energy_kwh", unit="kWh", values=(10.0, 14.0)))])
        assert meter.kwh() == 4.0
        store.append([batch(1, series(device="firing-1", metric="energy_kwh", unit="kWh", start=T0 + 9 * SECOND))])
        proxy.fault(answer=(503, "", {}), on="/query", times=1)
        before = len(proxy.requests)
        assert [meter.kwh() for _ in range(3)] == [4.0] * 3
        assert len(proxy.requests) == before + 1  # it is not asked at every look
        now[0] = 60.0
        assert meter.kwh() == 3.0 - 10.0


# --- what dashboards see ------------------------------------------------------------------------------------


async def test_records_and_observations_reach_dashboards_once_and_wait_for_a_server_that_is_down(
    at: Influx1Store, proxy: Proxy, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.stores.influx_store.PAUSE_S", 0.02)
    settings = by(proxy, at)
    part = PartIdentified(at=T0, machine="kiln-1", job='b "7", x=\\')
    lost = Rejected(at=T0, device="d1", reason="no value", readings=5)
    health = Observation("health", T0, (("site", "ceramic"), ("node", "firing")), {"bursts": 7.0})
    carbon = [Observation("signal", T0 + k * SECOND, (("site", "ceramic"), ("name", "carbon")), {"value": 200.0 + k})
              for k in range(3)]  # fmt: skip
    proxy.fault(answer=(500, "no", {}), times=2, on="/write")

    def rows(measurement: str) -> list[dict[str, Any]]:
        found = influx.query(f"SELECT * FROM {measurement}", at.database)
        return [dict(zip(one["columns"], row, strict=True)) for one in found for row in one["values"]]

    with settings.open() as store:
        store.append([batch(0, records=(part, lost, part))])
        store.observe([health, *carbon])
        task = asyncio.create_task(store.run())
        await eventually(lambda: len(rows("event")) == 3 and len(rows("signal")) == 3 and rows("health"))
        await eventually(lambda: store.kept("influx events") == "3")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.keep("influx events", "0")  # as if it had been killed before it could note that
    with settings.open() as store:
        task = asyncio.create_task(store.run())
        await eventually(lambda: store.kept("influx events") == "3")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    events = rows("event")
    assert [(one["kind"], one["device"], one["job"], one["readings"]) for one in events] == [
        ("part", "kiln-1", part.job, None), ("rejected", "d1", None, 5), ("part", "kiln-1", part.job, None),
    ]  # fmt: skip
    assert [one["time"] for one in events] == [T0 * 1000 + 1, T0 * 1000 + 2, T0 * 1000 + 3]
    assert events[1]["text"] == "rejected 5 readings at d1 (no value)"
    assert [(one["name"], one["value"]) for one in rows("signal")] == [
        ("carbon", 200.0),
        ("carbon", 201.0),
        ("carbon", 202.0),
    ]
    assert rows("health")[0]["bursts"] == 7.0


# --- InfluxDB 2 and 3 -------------------------------------------------------------------------------------------
# No such server is packaged here. Writing is tested against VictoriaMetrics, which takes /api/v2/write as they do;
# retention, DBRP mapping and queries with a token are not tested against InfluxDB 2 itself.


def test_the_second_kind_writes_by_its_client_with_token_bucket_and_precision(tmp_path: Path) -> None:
    with Victoria(tmp_path / "vm") as victoria, Proxy(victoria) as proxy:
        settings = Influx2Store(
            path=tmp_path / "s.db", url=proxy.url, org="plant 1", bucket="b", token=SecretStr("t0k")
        )
        assert "t0k" not in repr(settings)
        with settings.open() as store:
            now = time.time_ns() // 1_000_000 * 1000
            done = store.append([batch(0, series(start=now - 3600 * SECOND, values=(1.5, 2.5), raw={1: 9.0}))])
            assert (done.readings, done.quarantined) == (2, 0)
            ((path, _, headers),) = proxy.requests
            assert path.startswith("/api/v2/write?") and "org=plant+1" in path.replace("%20", "+")
            assert "bucket=b" in path and "precision=us" in path
            assert headers["Authorization"] == "Token t0k"
            (found,) = victoria.series("power_kw_value")
            labels = {"__name__": "power_kw_value", "site": "ceramic", "node": "firing", "device": "kiln-1"}
            assert found["metric"] == labels
            assert found["values"] == [1.5, 2.5]
            assert found["timestamps"] == [now // 1000 - 3_600_000, now // 1000 - 3_599_000]


def test_the_second_kind_tells_a_server_that_is_away_from_rows_that_are_bad(tmp_path: Path) -> None:
    with Victoria(tmp_path / "vm") as victoria, Proxy(victoria) as proxy:
        settings = Influx2Store(path=tmp_path / "s.db", url=proxy.url, timeout_s=3)
        with settings.open() as store:
            for fault, error in [
                ({"answer": (429, "{}", {"Retry-After": "3"})}, StoreDown), ({"answer": (503, "{}", {})}, StoreDown),
                ({"read": 0}, StoreDown), ({"delay_s": 5.0}, StoreDown), ({"answer": (401, "{}", {})}, StoreRefused),
                ({"answer": (404, '{"code":"not found","message":"bucket \\"b\\" not found"}', {})}, StoreRefused),
            ]:  # fmt: skip
                before = len(proxy.requests)
                proxy.fault(**fault)  # type: ignore[arg-type]
                with pytest.raises(error) as caught:
                    store.append([batch(0, series())])
                assert len(proxy.requests) == before + 1  # its own retries are off
                assert caught.value.again_in_s == (3 if 429 in fault.get("answer", ()) else 0)  # type: ignore[operator]
            odd = {"code": "unprocessable entity", "message": "partial write: field type conflict dropped=3"}
            proxy.fault(answer=(422, json.dumps(odd), {}))
            done = store.append([batch(0, series(), series(device="d2"))])
            assert (done.readings, done.quarantined) == (
                6,
                0,
            )  # of six rows three are bad, says it, and takes each half
            proxy.fault(answer=(422, json.dumps(odd), {}), times=2)
            done = store.append([batch(1, series(start=T0 + 60 * SECOND))])
            assert (done.readings, done.quarantined) == (0, 3)
            assert "field type conflict" in store.quarantined()[0].reason
        with settings.model_copy(update={"url": "http://127.0.0.1:9"}).open() as store, pytest.raises(StoreDown):
            store.append([batch(2, series(quality=UNCERTAIN))])
