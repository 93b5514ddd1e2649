"""paho's properties with shared tables say and understand what paho's own do."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import itertools, random
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import MQTTException, Properties, VariableByteIntegers
from messages.properties import _own, share_property_tables

VALUES = {
    "PayloadFormatIndicator": 1, "MessageExpiryInterval": 77, "ContentType": "application/json", "ResponseTopic": "a/b",
    "CorrelationData": b"xyz", "SubscriptionIdentifier": 9, "TopicAlias": 3, "UserProperty": ("k", "v" * 200),
}
rng = random.Random(1)
cases = [()] + [tuple(rng.sample(sorted(VALUES), rng.randint(1, 5))) for _ in range(200)]

def packed(names):
    one = Properties(PacketTypes.PUBLISH)
    for name in names:
        setattr(one, name, VALUES[name])
    return one.pack()

def read(data):
    one = Properties(PacketTypes.PUBLISH)
    try:
        _, length = one.unpack(data + b"payload")
    except Exception as error:
        return type(error).__name__, str(error)
    return {k: v for k, v in vars(one).items() if k not in _own}, length, one.packetType, one.isEmpty(), str(one)

wire = [packed(names) for names in cases] + [bytes([4, 200, 1, 2, 3]), bytes([3, 3, 0, 9]), b""]
plain = [read(data) for data in wire]
share_property_tables()
assert [packed(names) for names in cases] == wire[: len(cases)]
for _ in range(2):  # the second time from memory
    assert [read(data) for data in wire] == plain
one, other = Properties(PacketTypes.PUBLISH), Properties(PacketTypes.CONNECT)
one.ContentType = "x"
assert not hasattr(other, "ContentType") and other.packetType == PacketTypes.CONNECT
one.clear()
assert one.isEmpty() and one.json() == {}
try:
    other.ContentType = "x"
except MQTTException:
    print("same")
"""


def test_shared_tables_change_nothing_that_is_said_or_understood() -> None:
    # In a process of its own: here they may be shared already.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("same\n", "")
