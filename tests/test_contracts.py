"""Wire formats: golden files decode for ever, topics and ids agree, and bad bytes are only ever a BadMessage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.contracts import STATE_CODES, Batch, Burst, Other, Series, StoredThrough, Taken
from messages.errors import BadMessage, UsageError
from messages.message import MAX_BYTES
from messages.route import RESERVED_NODES, Route, check_node, topic_id
from messages.routes import ROUTES, STORED

GOLDEN = Path(__file__).parent / "golden"
IDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
ROUTE = st.sampled_from(ROUTES)
JSON_ROUTES = [route for route in ROUTES if route.message.content_type == "application/json"]
BINARY_ROUTES = [route for route in ROUTES if route not in JSON_ROUTES]


@pytest.mark.parametrize("route", BINARY_ROUTES, ids=lambda route: route.name)
def test_the_golden_bytes_of_every_binary_route_decode_and_come_out_the_same(route: Route) -> None:
    payload = (GOLDEN / f"{route.name}.bin").read_bytes()
    assert route.message.decode(payload).encode() == payload


@pytest.mark.parametrize("route", JSON_ROUTES, ids=lambda route: route.name)
def test_the_golden_message_of_every_route_decodes_and_comes_out_the_same(route: Route) -> None:
    payload = (GOLDEN / f"{route.name}.json").read_bytes()
    message = route.message.decode(payload)
    assert _holds(json.loads(payload), json.loads(message.encode())), "what was written then is said today"
    assert route.message.decode(message.encode()) == message


def _holds(golden: object, today: object) -> bool:
    """Whether all of `golden` is in `today`; optional fields that came later may stand beside it."""
    if isinstance(golden, dict) and isinstance(today, dict):
        return all(key in today and _holds(value, today[key]) for key, value in golden.items())
    if isinstance(golden, list) and isinstance(today, list):
        return len(golden) == len(today) and all(_holds(*pair) for pair in zip(golden, today, strict=True))
    return golden == today


@pytest.mark.parametrize("route", JSON_ROUTES, ids=lambda route: route.name)
def test_a_newer_peer_may_say_more(route: Route) -> None:
    document = json.loads((GOLDEN / f"{route.name}.json").read_bytes())
    document["a_field_of_the_future"] = {"x": 1}
    assert route.message.decode(json.dumps(document).encode()) == route.message.decode(
        (GOLDEN / f"{route.name}.json").read_bytes()
    )


@given(ROUTE, st.data())
def test_topic_and_ids_are_inverse(route: Route, data: st.DataObject) -> None:
    ids = {key: data.draw(IDS) for key in route.keys}
    topic = route.topic(**ids)
    assert route.ids(topic) == ids
    assert [other.name for other in ROUTES if other.matches(topic)].count(route.name) == 1
    assert "+" not in topic and "#" not in topic


@given(ROUTE, ROUTE, st.data())
def test_no_topic_belongs_to_two_routes(one: Route, other: Route, data: st.DataObject) -> None:
    topic = one.topic(**{key: data.draw(IDS) for key in one.keys})
    reserved = one.node is None and one.ids(topic)["node"] in RESERVED_NODES
    if one is not other and not reserved:
        assert not other.matches(topic)


@given(ROUTE, st.text(max_size=40))
def test_what_is_no_id_becomes_no_topic(route: Route, text: str) -> None:
    ids = dict.fromkeys(route.keys, "ok") | {route.keys[-1]: text}
    try:
        topic = route.topic(**ids)
    except UsageError as error:
        assert "topic level" in str(error)
    else:
        assert route.ids(topic) == ids


@pytest.mark.parametrize("bad", ["+", "#", "a/b", "", "A", "ü", "a" * 33, "-a", "a\n", "a\x00"])
def test_wildcards_and_the_like_are_refused_in_ids(bad: str) -> None:
    with pytest.raises(UsageError, match="1-32 of a-z"):
        STORED.topic(site="s1", node=bad)
    with pytest.raises(BadMessage):
        STORED.ids(f"shoal/v1/s1/{bad}/down/stored")


def test_reserved_names_are_no_nodes() -> None:
    for name in RESERVED_NODES:
        with pytest.raises(UsageError, match="reserved"):
            check_node(name)


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_derived_topic_ids_are_ids_and_do_not_collide(one: str, other: str) -> None:
    derived = topic_id(one)
    assert STORED.ids(STORED.topic(site="s1", node=derived))["node"] == derived
    assert (topic_id(other) == derived) == (one == other)
    assert topic_id(derived) != derived or derived == one, "what looks derived is derived again"


@given(ROUTE, st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_bad_message(route: Route, payload: bytes) -> None:
    try:
        route.message.decode(payload)
    except BadMessage as error:
        assert str(error)


@given(st.sampled_from(JSON_ROUTES), st.data())
def test_a_golden_message_with_one_wrong_value_is_refused_or_sound(route: Route, data: st.DataObject) -> None:
    document = json.loads((GOLDEN / f"{route.name}.json").read_bytes())
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(st.sampled_from([None, -1, 2**70, "x" * 9999, [], [[]], {"a": "b"}, True, 1e300, "\x00"]))
    try:
        message = route.message.decode(json.dumps(document).encode())
    except BadMessage:
        return
    assert route.message.decode(message.encode()) == message


@pytest.mark.parametrize(
    "payload",
    [
        b'{"boot":"0a1b2c3d","seq":0,"first":0,"t0":0,"at":[0],"columns":{"m":[NaN]},"units":{"m":"x"}}',
        b'{"boot":"0a1b2c3d","seq":0,"first":0,"t0":0,"at":[0],"columns":{"m":[1e999]},"units":{"m":"x"}}',
        b'{"boot":"0a1b2c3d","seq":0,"first":0,"t0":0,"at":[0,1],"columns":{"m":[1]},"units":{"m":"x"}}',
        b'{"boot":"0a1b2c3d","seq":0,"first":0,"t0":0,"at":[0],"columns":{"m":[1]},"units":{}}',
        b'{"boot":"0a1b2c3d","seq":0,"first":0,"t0":0,"at":[0],"columns":{"M+/#":[1]},"units":{"M+/#":"x"}}',
        b'{"boot":"zz","seq":0,"first":0,"t0":0,"at":[],"columns":{},"units":{}}',
        b'{"boot":"0a1b2c3d","seq":-1,"first":0,"t0":0,"at":[],"columns":{},"units":{}}',
        b'{"boot":' * 100_000,
        b" " * (MAX_BYTES + 1),
        b"\xff\xfe",
        b"null",
        b"",
    ],
    ids=["nan", "1e999", "ragged", "no unit", "metric name", "boot", "seq", "nested", "huge", "utf8", "null", "empty"],
)
def test_a_burst_that_breaks_the_contract_says_where(payload: bytes) -> None:
    with pytest.raises(BadMessage, match="Burst"):
        Burst.decode(payload)


def test_times_of_a_series_ascend_and_a_floor_is_not_above_its_batch() -> None:
    good = json.loads((GOLDEN / "batch.json").read_bytes())
    for spoil in (
        lambda d: d["series"][0].update(at=[5, 5]),
        lambda d: d["series"][0].update(raw={"9": 1.0}),
        lambda d: d["series"][0].update(quality=[192]),
        lambda d: d.update(floor=d["seq"] + 1),
    ):
        document = json.loads(json.dumps(good))
        spoil(document)
        with pytest.raises(BadMessage):
            Batch.decode(json.dumps(document).encode())


@pytest.mark.parametrize("ranges", [[[5, 4]], [[1, 3], [3, 4]], [[1, 3], [4, 5]], [[6, 7], [1, 2]]])
def test_ranges_are_ascending_apart_and_not_empty(ranges: list[list[int]]) -> None:
    with pytest.raises(BadMessage, match="ranges"):
        Taken.decode(json.dumps({"boot": "0a1b2c3d", "ranges": ranges}).encode())
    lane = {"through": -1, "ranges": ranges}
    with pytest.raises(BadMessage, match="ranges"):
        StoredThrough.decode(json.dumps({"revision": 1, "epochs": {"0a1b2c3d": {"live": lane}}}).encode())


def test_a_record_of_a_newer_peer_is_kept_whole() -> None:
    batch = Batch.decode((GOLDEN / "batch.json").read_bytes())
    newer = batch.records[-1]
    assert isinstance(newer, Other) and newer.model_dump()["more"] == {"x": [1]}


def test_state_codes_are_stable() -> None:
    assert STATE_CODES == {"off": 0, "preheat": 1, "idle": 2, "work": 3, "setup": 4, "down": 5}


def _batch(*series: Series) -> Batch:
    return Batch(epoch="0123456789abcdef", lane="live", seq=0, floor=0, made_at=1, series=list(series))


def _column(metric: str, at: list[int], t0: int = 1_000_000) -> Series:
    return Series(device="kiln-1", metric=metric, unit="kW", t0=t0, at=at, value=[1.5] * len(at), quality=192)


def test_times_shared_by_the_metrics_of_a_device_are_said_once_and_come_back_whole() -> None:
    a = _column("a", [0, 7, 9])
    b = a.model_copy(update={"metric": "b"})  # the very same list of times
    batch = _batch(a, b, _column("c", [0, 7, 9]), b.model_copy(update={"t0": 5}), a)
    payload = batch.encode()
    assert payload.count(b'"at":[0,7,9]') == 4  # all but b's: only it has list and t0 of the one before it
    assert Batch.decode(payload) == batch
    a, b, *_ = Batch.decode(payload).series
    assert a.at is b.at  # so what is computed of one holds for the other


@pytest.mark.parametrize("place", [0, 1])
def test_a_series_without_times_needs_one_before_it_with_as_many_rows(place: int) -> None:
    message = json.loads(_batch(_column("a", [0, 7]), _column("b", [0, 7, 9])).encode())
    del message["series"][place]["at"]
    with pytest.raises(BadMessage, match="has no times"):
        Batch.decode(json.dumps(message).encode())
