"""Foreign payloads become readings in our units, or say why not; whatever the bytes, nothing is raised."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.cleaning import Cleaner
from edge.decoding import Decoded, Decoder
from edge.foreign import bursts_of
from edge.mapping import Mapping
from edge.payload import EARLIEST_US, LATEST_US, Stamp, Unreadable, find, parse_number, parse_path
from messages.contracts import MAX_SAMPLES, Burst
from messages.errors import ConfigError
from messages.plant import load_plant
from messages.route import topic_id
from messages.settings import load

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples" / "mappings").glob("*.toml"))
PLANT = ROOT / "firmware_sim" / "plants" / "ceramic.toml"
NOW = 1_768_467_600_000_000
"""2026-01-15 09:00 UTC"""
SECOND = 1_000_000

METRICS = {
    "power_kw": {"unit": "kW", "low": 0, "high": 100},
    "temperature_degc": {"unit": "degC", "low": -20, "high": 60},
    "on": {"unit": "code", "low": 0, "high": 1, "code": True},
}
POWER = {"path": "p", "metric": "power_kw", "unit": "W"}
TEMPERATURE = {"path": "t", "metric": "temperature_degc", "unit": "degC"}


def decoder(*values: dict[str, Any], topic: str = "x", **rule: Any) -> Decoder:
    """Of one map to the device `d`, which has the metrics above; so has `e`."""
    if "{" not in topic:
        rule.setdefault("device", "d")
    mapping = Mapping.model_validate(
        {
            "device": [{"device": name, "metrics": METRICS} for name in ("d", "e")],
            "map": [{"topic": topic, "value": values or (POWER,), **rule}],
        }
    )
    return Decoder(mapping, mapping.declared("n"))


def decode(one: Decoder, payload: object, topic: str = "x", **more: Any) -> Decoded:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return one.decode(topic, data, arrived_us=NOW, **more)


def cells(decoded: Decoded) -> dict[tuple[str, str], list[tuple[float, float | None]]]:
    """Device, metric → (seconds after NOW, value)."""
    return {
        (one.device, metric): [((at - NOW) / SECOND, value) for at, value in zip(one.at, column, strict=True)]
        for one in decoded.samples
        for metric, column in one.columns.items()
    }


def unnumbered(device: str, readings: int) -> tuple[int, int]:
    return 0, 0


def value(one: Decoder, payload: object) -> float | None:
    decoded = decode(one, payload)
    assert not decoded.problems
    [[(_, found)]] = cells(decoded).values()
    return found


# --- the examples -------------------------------------------------------------------------------------

TABLE = {
    "plain": {
        ("kiln-1-shell", "temperature_degc"): [23.5, 65.5],
        ("kiln2", "gas_m3_h"): [15.0],
    },
    "shelly": {
        ("dryer-fan", "power_kw"): [0.41235],
        ("dryer-fan", "energy_kwh"): [1234567 / 60_000],
        ("dryer-fan", "on"): [1],
        ("press-2", "power_kw"): [0.8127],
        ("press-2", "energy_kwh"): [8.123456],
        ("press-2", "box_degc"): [39.2],
    },
    "tasmota": {
        ("kiln-1-plug", "power_kw"): [1.234, 1.24],
        ("kiln-1-plug", "energy_kwh"): [514.153, 514.256],
        ("kiln-1-plug", "voltage_v"): [234, 233],
        ("glaze-room", "temperature_degc"): [22.5],
        ("glaze-room", "humidity_pct"): [44.2],
        ("pump-1", "power_kw"): [0.52],
        ("pump-2", "power_kw"): [0.005],
    },
    "vendor": {
        ("mill-1-drive", "vibration_mm_s"): [2.1, None, 2.4],
        ("mill-1-drive", "bearing_degc"): [55.0],
        ("compressor-1", "pressure_bar"): [7.025, 7.031],
        ("compressor-1", "power_kw"): [31.2, 31.4],
        ("spray-dryer", "inlet_degc"): [312.4],
        ("spray-dryer", "running"): [1],
    },
    "zigbee2mqtt": {
        ("drying-air", "temperature_degc"): [22.75, 22.79],
        ("drying-air", "humidity_pct"): [55.43],
        ("glazing-plug", "power_kw"): [0.092],
        ("glazing-plug", "energy_kwh"): [12.05],
        ("glazing-plug", "on"): [1],
    },
}
TIMES = {  # seconds after NOW; what is not here has its time of arrival
    ("tasmota", "kiln-1-plug", "power_kw"): [0, 300],
    ("tasmota", "pump-1", "power_kw"): [181 * 86_400 - 3600],  # in summer the same wall clock is an hour earlier
    ("shelly", "press-2", "energy_kwh"): [-179.98],
    ("vendor", "mill-1-drive", "vibration_mm_s"): [0, 0.5, 1],
    ("vendor", "mill-1-drive", "bearing_degc"): [1],
    ("vendor", "compressor-1", "power_kw"): [0.512, 1.512],
    ("zigbee2mqtt", "drying-air", "temperature_degc"): [0, 41],
    ("zigbee2mqtt", "glazing-plug", "power_kw"): [5.25],
    ("plain", "kiln2", "gas_m3_h"): [0],
}


def sample_lines(name: str) -> list[tuple[str, bytes]]:
    """Topic and payload: these topics have blanks only before a brace or a digit that begins the payload."""
    lines = (ROOT / "examples" / "mappings" / f"{name}.txt").read_text().splitlines()
    found = [re.fullmatch(r"(\S+(?: 2)?) (.*)", line) for line in lines if not line.startswith("#")]
    return [(one[1], one[2].encode()) for one in found if one]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_the_examples_send_becomes_these_readings_in_our_units_at_these_times(path: Path) -> None:
    mapping = load(Mapping, path, {})
    plant = load_plant(PLANT)
    one = Decoder(mapping, plant.devices("firing") + mapping.devices(plant, "firing"))
    found: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
    for topic, payload in sample_lines(path.stem):
        decoded = one.decode(topic, payload, arrived_us=NOW)
        assert not decoded.problems
        for key, column in cells(decoded).items():
            found.setdefault(key, []).extend(column)
    assert found.keys() == TABLE[path.stem].keys()
    for key, wanted in TABLE[path.stem].items():
        assert [cell for _, cell in found[key]] == [None if one is None else pytest.approx(one) for one in wanted], key
        if (times := TIMES.get((path.stem, *key))) is not None:
            assert [at for at, _ in found[key]] == pytest.approx(times), key
    assert not one.silent(after=1), "every path of the example is in its messages"


def test_every_example_has_its_messages_and_its_outcome() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(TABLE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_rows_cleaning_makes_of_the_examples_are_good_but_for_what_the_sensor_left_out(path: Path) -> None:
    mapping = load(Mapping, path, {})
    one, cleaner = Decoder(mapping, mapping.declared("n")), Cleaner(mapping.declared("n"))
    samples = [
        sample
        for n, (topic, payload) in enumerate(sample_lines(path.stem))
        for sample in one.decode(topic, payload, arrived_us=NOW + n * 60 * SECOND).samples
    ]
    cleaned = cleaner.clean([*bursts_of(samples, unnumbered)], NOW + 200 * 86_400 * SECOND)
    doubtful = [series.metric for series in cleaned.series if series.quality != 192]
    assert doubtful == (["vibration_mm_s"] if path.stem == "vendor" else [])
    assert [one.reason for one in cleaned.rejected] == []


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "payload", "wanted"),
    [
        ({}, 1001, 1.001),
        ({}, "1001", 1.001),
        ({}, " 1,5 kW ", None),
        ({"decimal": ","}, " 1,5 kW ", 1.5),
        ({}, "−5e2", -0.5),
        ({}, "2 MW", 2000),
        ({}, True, 0.001),
        ({"unit": "kW", "words": {"True": 7}}, True, 7),
        ({"unit": "kW", "words": {"ON": 3, "Aus": 0}}, "on", 3),
        ({"unit": "kW", "words": {"ON": 3, "Aus": 0}}, "AUS", 0),
        ({"scale": 0.1, "offset": -40}, 900, 0.05),
        ({"unit": "kW"}, 0.1, 0.1),
        ({"unit": "kW"}, [1], None),
        ({}, {"value": 3}, None),
        ({}, "on", None),
        ({}, "", None),
        ({}, "5 bar", None),
        ({}, 10**400, None),
        ({"scale": 1e300}, 1e300, None),
    ],
)
def test_a_value_is_read_as_the_rule_says_or_named_as_it_stands(
    rule: dict[str, Any], payload: object, wanted: float | None
) -> None:
    decoded = decode(decoder({**POWER, **rule}), {"p": payload})
    if wanted is None:
        [problem] = decoded.problems
        assert (problem.device, problem.reason, problem.readings) == ("d", "unreadable", 1)
        assert problem.why.startswith("p: ") and not decoded.samples
    else:
        assert not decoded.problems
        [[(at, found)]] = cells(decoded).values()
        assert at == 0 and found == (pytest.approx(wanted) if "offset" in rule else wanted)


@pytest.mark.parametrize(
    "payload", [b'{"p": null}', b'{"p": NaN}', b'{"p": -Infinity}', b'{"p": -127}', b'{"p": "N/A"}']
)
def test_what_says_that_the_sensor_gave_none_is_a_missing_cell(payload: bytes) -> None:
    assert value(decoder({**POWER, "missing": ["n/a", -127]}), payload) is None


def test_what_a_message_leaves_out_is_no_reading_unless_it_is_required() -> None:
    assert cells(decode(decoder(POWER, TEMPERATURE), {"t": 20})) == {("d", "temperature_degc"): [(0, 20)]}
    required = decoder({**POWER, "required": True}, TEMPERATURE)
    assert cells(decode(required, {"t": 20})) == {("d", "power_kw"): [(0, None)], ("d", "temperature_degc"): [(0, 20)]}
    nothing = decode(decoder(POWER), {"q": 1})
    assert (nothing.samples, nothing.problems, nothing.skipped) == ([], [], "none of the mapped values is in it")


def test_a_bad_value_does_not_spoil_the_others_of_its_message() -> None:
    decoded = decode(decoder(POWER, TEMPERATURE), {"p": "broken", "t": 20})
    assert cells(decoded) == {("d", "temperature_degc"): [(0, 20)]}
    assert [problem.reason for problem in decoded.problems] == ["unreadable"]


def test_the_unit_a_payload_states_goes_before_the_files() -> None:
    stated = decoder({**TEMPERATURE, "unit_path": "u"})
    assert value(stated, {"t": 68, "u": "F"}) == pytest.approx(20)
    assert value(stated, {"t": 20, "u": "°C"}) == 20
    assert value(stated, {"t": 20}) == value(stated, {"t": 20, "u": None}) == 20
    assert value(stated, {"t": "293.15 K", "u": "F"}) == pytest.approx(20), "what stands nearest counts"
    for wrong in ({"t": 20, "u": "bar"}, {"t": 20, "u": 7}):
        assert [problem.reason for problem in decode(stated, wrong).problems] == ["unreadable"]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (4 * 1024 * 1024 + 1), "bytes"),
    ],
)
def test_bytes_that_are_no_json_are_one_malformed_message(payload: bytes, why: str) -> None:
    [problem] = decode(decoder(), payload).problems
    assert (problem.device, problem.reason, problem.readings) == ("d", "malformed", 0) and why in problem.why


def test_a_byte_order_mark_is_no_part_of_the_payload() -> None:
    assert value(decoder(), b'\xef\xbb\xbf{"p": 1}') == 0.001
    assert value(decoder({**POWER, "path": None}, payload="text"), b"\xef\xbb\xbf1") == 0.001


def test_text_that_is_no_utf8_is_one_malformed_message() -> None:
    [problem] = decode(decoder({**POWER, "path": None}, payload="text"), b"\xff5").problems
    assert (problem.reason, problem.why) == ("malformed", "not UTF-8 at byte 0")


def test_stored_and_removed_messages_are_no_readings_unless_stored_ones_are_wanted() -> None:
    assert "stored" in decode(decoder(), {"p": 1}, retained=True).skipped
    assert "removed" in decode(decoder(), b"").skipped
    assert cells(decode(decoder(retained=True), {"p": 1}, retained=True)) == {("d", "power_kw"): [(0, 0.001)]}


# --- arrays -------------------------------------------------------------------------------------------

EACH = {**POWER, "path": "v[*]", "unit": "kW"}
AT_EACH = {"path": "ts[*]", "format": "unix_s"}
S = NOW / SECOND


def test_an_array_becomes_a_column_and_an_unreadable_element_a_missing_cell() -> None:
    decoded = decode(decoder(EACH, time=AT_EACH), {"ts": [S, S + 1, S + 2], "v": [1, "x", 3]})
    assert cells(decoded) == {("d", "power_kw"): [(0, 1), (1, None), (2, 3)]}
    [problem] = decoded.problems
    assert (problem.reason, problem.readings) == ("unreadable", 0), "its cell is counted already, as missing"
    assert "1 of 3 become missing: 'x'" in problem.why


def test_rows_give_the_same_column_and_a_row_without_the_value_a_missing_cell() -> None:
    rows = decoder({**EACH, "path": "[*].p"}, time={"path": "[*].t", "format": "unix_s"})
    assert cells(decode(rows, [{"t": S, "p": 1}, {"t": S + 1}])) == {("d", "power_kw"): [(0, 1), (1, None)]}


def test_samples_at_a_stated_distance_begin_at_the_time_of_the_message() -> None:
    stepped = decoder(EACH, TEMPERATURE, time={"path": "t0", "format": "unix_ms", "step_s": 0.01})
    decoded = decode(stepped, {"t0": S * 1000, "v": [1, 2, 3], "t": 20})
    assert cells(decoded) == {
        ("d", "power_kw"): [(0, 1), (0.01, 2), (0.02, 3)],
        ("d", "temperature_degc"): [(0.02, 20)],
    }


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"ts": [S], "v": [1, 2]}, "1 times for 2 values"),
        ({"ts": [], "v": [1]}, "0 times for 1 values"),
        ({"v": [1, 2]}, "ts[*] is absent"),
        ({"ts": [S, None], "v": [1, 2]}, "None is no unix_s time"),
        ({"ts": [S, 5], "v": [1, 2]}, "before 2000"),
    ],
)
def test_times_that_do_not_fit_their_values_are_refused_with_all_of_them(body: dict[str, Any], why: str) -> None:
    decoded = decode(decoder(EACH, time=AT_EACH), body)
    [problem] = decoded.problems
    assert (problem.reason, problem.readings, decoded.samples) == ("clock", len(body["v"]), [])
    assert why in problem.why


def test_an_array_beyond_the_bound_is_refused_and_counted() -> None:
    decoded = decode(decoder(EACH, time=AT_EACH), {"ts": [], "v": [1] * (MAX_SAMPLES + 1)})
    [problem] = decoded.problems
    assert (problem.reason, problem.readings) == ("malformed", MAX_SAMPLES + 1)


# --- times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "said", "seconds"),
    [
        (Stamp("iso"), "2026-01-15T09:00:00Z", 0),
        (Stamp("iso"), "2026-01-15T10:00:00.250+01:00", 0.25),
        (Stamp("iso", "Europe/Berlin"), "2026-01-15T10:00:00", 0),
        (Stamp("iso", "Europe/Berlin"), "2026-01-15T10:00:00Z", 3600),
        (Stamp("unix_s"), S + 0.125, 0.125),
        (Stamp("unix_s"), f"{S}", 0),
        (Stamp("unix_ms"), NOW // 1000, 0),
        (Stamp("unix_us"), NOW, 0),
        (Stamp("%Y.%m.%d %H:%M:%S", "UTC"), "2026.01.15 09:00:01", 1),
        (Stamp("%d.%m.%y %H:%M:%S %z"), "15.01.26 10:00:01 +0100", 1),
    ],
)
def test_a_time_is_read_as_its_format_says(stamp: Stamp, said: object, seconds: float) -> None:
    stamp.check()
    assert stamp.micros(said, NOW) - NOW == seconds * SECOND


@pytest.mark.parametrize(
    ("stamp", "said", "cure"),
    [
        (Stamp("iso"), "2026-01-15T10:00:00", "does not say its zone"),
        (Stamp("iso"), "2026-01-15", "says a day, not a time"),
        (Stamp("iso"), NOW, "unix_s or unix_ms?"),
        (Stamp("iso", "UTC"), "1970-01-01T00:00:12", "its clock is not set"),
        (Stamp("unix_s"), NOW, "is the format 'unix_s' right?"),
        (Stamp("unix_s"), 1.61, "its clock is not set"),
        (Stamp("unix_s"), "soon", "no unix_s time"),
        (Stamp("unix_s"), True, "no unix_s time"),
        (Stamp("unix_s"), float("inf"), "no unix_s time"),
        (Stamp("unix_s"), 10**400, "no unix_s time"),
        (Stamp("iso", "Europe/Berlin"), "0001-01-01T00:00:00", "lies before 2000"),
    ],
)
def test_a_time_that_cannot_be_meant_is_refused_with_the_cure(stamp: Stamp, said: object, cure: str) -> None:
    with pytest.raises(Unreadable, match=re.escape(cure)):
        stamp.micros(said, NOW)


def test_an_hour_that_the_wall_clock_shows_twice_is_told_apart_by_the_arrival() -> None:
    stamp = Stamp("iso", "Europe/Berlin")
    first = 1_792_888_200_000_000  # 2026-10-25 02:30 in summer time; an hour later it is 02:30 again
    for truth in (first, first + 3600 * SECOND):
        assert stamp.micros("2026-10-25T02:30:00", truth + 2 * SECOND) == truth


def test_a_message_without_its_time_is_refused_unless_the_arrival_may_stand_for_it() -> None:
    rule = {"path": "ts", "format": "unix_s"}
    for body in ({"p": 1}, {"p": 1, "ts": None}):
        [problem] = decode(decoder(time=rule), body).problems
        assert (problem.reason, problem.readings) == ("clock", 1) and "arrival_if_absent" in problem.why
        lenient = decoder(time={**rule, "arrival_if_absent": True})
        assert cells(decode(lenient, body)) == {("d", "power_kw"): [(0, 0.001)]}


# --- whose message it is ---------------------------------------------------------------------------------


def test_without_a_table_the_id_is_derived_from_the_topic_and_strangers_are_refused_by_name() -> None:
    one = decoder(topic="tele/{device}/SENSOR")
    assert cells(decode(one, {"p": 1}, "tele/d/SENSOR")) == {("d", "power_kw"): [(0, 0.001)]}
    [problem] = decode(one, {"p": 1, "t": 2}, "tele/Tasmota_1/SENSOR").problems
    assert (problem.device, problem.reason, problem.readings) == (topic_id("Tasmota_1"), "unknown_device", 1)
    assert "'Tasmota_1' is our" in problem.why and "declare it under [[device]]" in problem.why
    assert decode(one, {"q": 1}, "tele/Tasmota_1/SENSOR").skipped
    assert decode(one, {"p": 1}, "tele/d/STATE").skipped == "no [[map]] is for this topic"


def test_a_derived_device_without_the_metric_is_refused_not_ignored() -> None:
    mapping = Mapping.model_validate(
        {
            "device": [
                {"device": "d", "metrics": {"power_kw": METRICS["power_kw"]}},
                {"device": "e", "metrics": {"power_kw": {"unit": "bar", "low": 0, "high": 1}}},
                {"device": "f", "metrics": {"on": METRICS["on"]}},
            ],
            "map": [{"topic": "{device}/p", "value": [POWER]}],
        }
    )
    one = Decoder(mapping, mapping.declared("n"))
    assert decode(one, {"p": 1}, "d/p").samples
    assert [problem.reason for problem in decode(one, {"p": 1}, "e/p").problems] == ["unit"]
    assert [problem.reason for problem in decode(one, {"p": 1}, "f/p").problems] == ["unknown_metric"]


def test_a_table_of_devices_subscribes_to_their_topics_alone_and_several_levels_make_one_name() -> None:
    rule = {"topic": "shellies/{device}/relay/{channel}/power", "value": [{**POWER, "path": None}], "payload": "text"}
    mapping = Mapping.model_validate(
        {
            "device": [{"device": name, "metrics": METRICS} for name in ("d", "e")],
            "map": [{**rule, "devices": {"shelly4pro-06/0": "d", "shelly4pro-06/1": "e"}}],
        }
    )
    topics = ("shellies/shelly4pro-06/relay/0/power", "shellies/shelly4pro-06/relay/1/power")
    assert mapping.filters(timed=False) == topics and mapping.filters(timed=True) == ()
    assert mapping.access() == [f"topic read {topic}" for topic in topics]
    one = Decoder(mapping, mapping.declared("n"))
    assert [*cells(decode(one, b"5", topics[1]))] == [("e", "power_kw")]
    assert decode(one, b"5", "shellies/shelly4pro-06/relay/2/power").skipped


def test_one_message_may_speak_of_several_devices() -> None:
    one = decoder({**POWER, "device": "d"}, {**POWER, "path": "list[id=b 2].p", "device": "e"}, device=None)
    decoded = decode(one, {"p": 1, "list": [{"id": "a", "p": 5}, {"id": "b 2", "p": 6}]})
    assert cells(decoded) == {("d", "power_kw"): [(0, 0.001)], ("e", "power_kw"): [(0, 0.006)]}


def test_a_path_that_is_in_no_message_is_told_once() -> None:
    one = decoder(POWER, {**TEMPERATURE, "path": "temprature"})
    for _ in range(99):
        decode(one, {"p": 1})
    assert one.silent() == []
    decode(one, {"p": 1})
    assert one.silent() == [("x", "temprature")] and one.silent() == []


def test_topics_from_which_nothing_has_come_are_named() -> None:
    one = decoder(topic="tele/{device}/SENSOR")
    assert one.unheard() == ["tele/+/SENSOR"]
    decode(one, {"p": 1}, "tele/d/SENSOR")
    assert one.unheard() == []
    assert decoder(topic="x").unheard() == ["x"]


# --- paths and numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a.b", 1),
        ('"x.y"', 2),
        ("switch:0.total power", 3),
        ("rows[1].v", 5),
        ("rows[id=two].v", 5),
        ('rows[id="two"].v', 5),
        ("rows[*].v", [4, 5]),
    ],
)
def test_a_path_finds_what_stands_there(path: str, wanted: object) -> None:
    rows = [{"id": "one", "v": 4}, {"id": "two", "v": 5}]
    body = {"a": {"b": 1}, "x.y": 2, "switch:0": {"total power": 3}, "rows": rows}
    assert find(parse_path(path), body) == wanted


@pytest.mark.parametrize("path", ["", "a.", "a..b", ".a", "a[", "a[x]", "a[*].b[*]", "a b]", 'a"b"', "[0]x", "a[=1]"])
def test_a_path_that_breaks_off_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse_path(path)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4))
def test_every_key_can_be_named_in_quotes(keys: list[str]) -> None:
    body: object = 7
    for key in reversed(keys):
        body = {key: body}
    quoted = ['"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in keys]
    assert find(parse_path(".".join(quoted)), body) == 7


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(".,"), st.sampled_from(["", " ", "kWh", " °C"])
)
def test_every_number_is_read_back_from_its_text(number: float, decimal: str, unit: str) -> None:
    assert parse_number(repr(number).replace(".", decimal) + unit, decimal) == (number, unit.strip())


CLEANED = Mapping.model_validate(
    {"device": [{"device": "d", "metrics": METRICS}], "map": [{"topic": "x", "device": "d", "value": [POWER]}]}
).declared("n")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["p", "t", "v", "ts", "u"]) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)
KINDS = [
    decoder(POWER, {**TEMPERATURE, "unit_path": "u"}, time={"path": "ts", "format": "unix_s"}),
    decoder(POWER, TEMPERATURE, time={"path": "ts", "zone": "Europe/Berlin", "arrival_if_absent": True}),
    decoder({**EACH, "unit_path": "u"}, TEMPERATURE, time=AT_EACH),
    decoder({**EACH, "path": "[*].p"}, time={"path": "ts", "format": "unix_ms", "step_s": 86_400}),
    decoder({**POWER, "path": None}, payload="text", topic="{device}"),
]


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["x", "d", "Ä"]),
    st.binary(max_size=60) | JSON.map(lambda j: json.dumps(j).encode()),
)
@example(KINDS[3], "x", json.dumps([{"p": 1}] * 3).encode())
@example(KINDS[2], "x", b'{"v": [], "ts": [], "t": 1}')
def test_whatever_comes_nothing_is_raised_and_every_cell_fits_a_burst(one: Decoder, topic: str, payload: bytes) -> None:
    decoded = one.decode(topic, payload, arrived_us=NOW)
    assert bool(decoded.skipped) == (not decoded.samples and not decoded.problems)
    for sample in decoded.samples:
        assert sample.at and all(EARLIEST_US <= at <= LATEST_US + 10_000 * 86_400 * SECOND for at in sample.at)
    bursts = [*bursts_of(decoded.samples, unnumbered)]
    assert sum(burst.readings for _, burst in bursts) == sum(sample.readings for sample in decoded.samples)
    assert [Burst.decode(burst.encode()) for _, burst in bursts] == [burst for _, burst in bursts], (
        "read after a restart"
    )
    cleaned = Cleaner(CLEANED).clean(bursts, NOW)
    refused = sum(one.readings for one in cleaned.rejected)
    assert cleaned.rows + refused == sum(burst.readings for _, burst in bursts)


# --- bursts ----------------------------------------------------------------------------------------------


def test_messages_of_one_device_become_one_burst_per_set_of_metrics_and_devices_take_turns() -> None:
    one = decoder(POWER, TEMPERATURE, topic="{device}", time={"path": "ts", "format": "unix_s"})
    messages = [("d", {"p": 1}), ("e", {"p": 2}), ("d", {"t": 3}), ("d", {"p": 4}), ("e", {"p": 5})]
    samples = [
        sample
        for n, (device, body) in enumerate(messages)
        for sample in decode(one, {**body, "ts": S + n}, device).samples
    ]
    bursts = [*bursts_of(samples, unnumbered)]
    assert [(device, burst.at, burst.columns) for device, burst in bursts] == [
        ("d", [0, 3 * SECOND], {"power_kw": [0.001, 0.004]}),
        ("e", [0, 3 * SECOND], {"power_kw": [0.002, 0.005]}),
        ("d", [0], {"temperature_degc": [3.0]}),
    ]


def test_a_burst_never_exceeds_the_samples_a_burst_may_have() -> None:
    one = decoder(EACH, time={"path": "t0", "format": "unix_s", "step_s": 1})
    samples = [decode(one, {"t0": S + n * 7000, "v": [1] * 7000}).samples[0] for n in range(3)]
    assert [len(burst.at) for _, burst in bursts_of(samples, unnumbered)] == [7000, 7000, 7000]


# --- the file ---------------------------------------------------------------------------------------------

HEAD = """
[[device]]
device = "d"
metrics = { power_kw = { unit = "kW", low = 0, high = 9 } }
"""
METRIC = 'metric = "power_kw", unit = "W"'


@pytest.mark.parametrize(
    ("rule", "value", "cure"),
    [
        ('topic = "x"', 'path = "p"', "give `device`, or name a level"),
        ('topic = "x/#"; device = "d"', 'path = "p"', "no + or #"),
        ('topic = "x{y}"', 'path = "p"', "stands for a whole level"),
        ('topic = "{y}/{y}"', 'path = "p"', "two levels have one name"),
        ('topic = "shoal/v1/s/n/raw/d"; device = "d"', 'path = "p"', "not foreign"),
        ('topic = "{a}"; device = "d"', 'path = "p"', "leave `device` out"),
        ('topic = "x"; device = "d"; devices = { a = "d" }', 'path = "p"', "has no use"),
        ('topic = "{a}/{b}"; devices = { a = "d" }', 'path = "p"', "one level each for a/b"),
        ('topic = "x"; device = "d"', 'pth = "p"', "did you mean path?"),
        ('topic = "x"; device = "d"', 'path = "p["', "breaks off at '['"),
        ('topic = "x"; device = "d"', "required = true", 'give payload = "text"'),
        ('topic = "x"; device = "d"; payload = "text"', 'path = "p"', "without path, no time"),
        ('topic = "x"; device = "d"', 'path = "p[*]"', "give time with [*], or with step_s"),
        ('topic = "x"; device = "d"; time = { path = "t[*]" }', 'path = "p"', "but no value is"),
        ('topic = "x"; device = "d"; time = { path = "t[*]", step_s = 1 }', 'path = "p[*]"', "give one of the two"),
        ('topic = "x"; device = "d"; time = { path = "t", zone = "Berln" }', 'path = "p"', "'Berln' is not known"),
        ('topic = "x"; device = "d"; time = { path = "t", format = "unix" }', 'path = "p"', "use iso, unix_s"),
        ('topic = "x"; device = "d"; time = { path = "t", format = "%H:%M" }', 'path = "p"', "does not say day"),
        ('topic = "x"; device = "d"', 'path = "p", scale = 0', "every value would become 0"),
        ('topic = "x"; device = "d"', 'path = "p", words = { on = 1, ON = 2 }', "differ only in case"),
        ('topic = "x"; device = "d"', f'path = "p", {METRIC} }}, {{ path = "q"', "become one metric"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused_with_the_cure(tmp_path: Path, rule: str, value: str, cure: str) -> None:
    lines = "\n".join(rule.split("; "))
    (tmp_path / "mapping.toml").write_text(f"{HEAD}[[map]]\n{lines}\nvalue = [{{ {value}, {METRIC} }}]\n")
    with pytest.raises(ConfigError, match=re.escape(cure)):
        load(Mapping, tmp_path / "mapping.toml", {})


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (HEAD, "map: required"),
        (HEAD + "[[maps]]", "did you mean map?"),
        (HEAD + HEAD, "'d' is declared twice"),
        (HEAD.replace('device = "d"', 'devices = ["d", "e", "d"]'), "'d' is declared twice"),
        (HEAD.replace('device = "d"', ""), "give `device`, or `devices` for several alike"),
        (HEAD.replace("low = 0", "low = 9"), "low must be below high"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_the_cure(tmp_path: Path, text: str, cure: str) -> None:
    rule = "" if "map" in cure else f'[[map]]\ntopic = "x"\ndevice = "d"\nvalue = [{{ path = "p", {METRIC} }}]'
    (tmp_path / "mapping.toml").write_text(text + rule)
    with pytest.raises(ConfigError, match=re.escape(cure)):
        load(Mapping, tmp_path / "mapping.toml", {})


@pytest.mark.parametrize(
    ("one", "other", "twice"),
    [
        ({"topic": "a/{x}"}, {"topic": "a/b", "device": "d"}, True),
        ({"topic": "a/{x}"}, {"topic": "{x}/b"}, True),
        ({"topic": "a/{x}", "devices": {"b": "d"}}, {"topic": "a/{y}", "devices": {"b": "d"}}, True),
        ({"topic": "a/{x}", "devices": {"b": "d"}}, {"topic": "a/{y}", "devices": {"c": "d"}}, False),
        ({"topic": "a/{x}"}, {"topic": "a/{x}/b"}, False),
    ],
)
def test_a_topic_may_be_mapped_once(one: dict[str, Any], other: dict[str, Any], twice: bool) -> None:
    rules = [{"value": [POWER], **rule} for rule in (one, other)]
    if twice:
        with pytest.raises(ValueError, match="mapped twice"):
            Mapping.model_validate({"map": rules})
    else:
        assert len(Mapping.model_validate({"map": rules}).filters(timed=False)) == 2


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"device": "kiln"}, "'kiln' is no device of this node"),
        ({"value": [{**POWER, "metric": "powr_kw"}]}, "did you mean 'power_kw'?"),
        ({"value": [{**POWER, "unit": "bar"}]}, "no way from 'bar' to 'kW'"),
        ({"device": None, "topic": "{a}", "value": [{**POWER, "metric": "powr_kw"}]}, "has a metric 'powr_kw'"),
        ({"device": None, "topic": "{a}", "value": [{**POWER, "unit": "bar"}]}, "takes 'bar' for 'power_kw'"),
    ],
)
def test_a_map_that_does_not_fit_the_devices_is_refused_with_the_cure(change: dict[str, Any], cure: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(cure)):
        decoder(**{"device": "d", **change}) if "value" not in change else decoder(*change.pop("value"), **change)


def test_a_declared_device_that_the_plant_has_already_or_whose_workshop_it_lacks_is_refused() -> None:
    plant = load_plant(PLANT)
    for device, cure in (
        ({"device": "firing-1", "metrics": METRICS}, "'firing-1' is in the plant file"),
        ({"device": "plug", "workshop": "fireing", "metrics": METRICS}, "did you mean 'firing'?"),
    ):
        mapping = Mapping.model_validate({"device": [device], "map": [{"topic": "x", "device": "d", "value": [POWER]}]})
        with pytest.raises(ConfigError, match=re.escape(cure)):
            mapping.devices(plant, "firing")


def test_the_guides_files_are_read_and_its_first_one_does_what_it_says() -> None:
    guide = (ROOT / "docs" / "guides" / "mapping.md").read_text()
    first, second = (
        Mapping.model_validate(tomllib.loads(one)) for one in re.findall(r"```toml\n(.*?)```", guide, re.S)
    )
    assert second.filters(timed=True) == ("acme/SN-004711/burst",)
    one = Decoder(first, first.declared("n"))
    payload = b'{"Time":"2026-01-15T10:00:00","ENERGY":{"Power":1234,"Total":5.5}}'
    found = cells(one.decode("tele/tasmota_5A9AE8/SENSOR", payload, arrived_us=NOW))
    assert found == {("kiln-1-plug", "power_kw"): [(0, 1.234)], ("kiln-1-plug", "energy_kwh"): [(0, 5.5)]}
