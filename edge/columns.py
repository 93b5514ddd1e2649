"""One value of a foreign payload, made ready for one device: what stands there as a number in the metric's unit. Pure.

column = Column.of(rule, "kiln-1-plug", "kW")        # the rule says W
column.value(1234), column.value("1,2 kW"), column.value("unavailable")      # 1.234, 1.2, None
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge.mapping import ValueRule
from edge.payload import ABSENT, Step, Unreadable, find, parse_number, shown
from edge.units import conversion


@dataclass(slots=True)
class Column:
    """(number × scale + offset) in the rule's unit, converted, is number × gain + bias."""

    rule: ValueRule
    device: str
    metric: str
    unit: str
    steps: tuple[Step, ...]
    unit_steps: tuple[Step, ...]
    many: bool
    gain: float
    bias: float
    words: dict[str, float]
    missing: frozenset[str]
    missing_numbers: frozenset[float]
    found: int = 0
    """messages in which it was there"""

    @classmethod
    def of(cls, rule: ValueRule, device: str, unit: str) -> Column | None:
        """None when there is no way from the rule's unit to `unit`."""
        change = conversion(rule.unit, unit)
        if change is None:
            return None
        return cls(
            rule=rule,
            device=device,
            metric=rule.metric,
            unit=unit,
            steps=rule.steps,
            unit_steps=rule.unit_steps,
            many=rule.many,
            gain=rule.scale * change[0],
            bias=rule.offset * change[0] + change[1],
            words={word.casefold(): number for word, number in rule.words.items()},
            missing=frozenset(one.strip().casefold() for one in rule.missing if isinstance(one, str)),
            missing_numbers=frozenset(float(one) for one in rule.missing if not isinstance(one, str)),
        )

    def value(self, given: object, stated: str = "") -> float | None:
        """In the metric's unit; None when the sensor gave none. `stated`: the unit, by the payload itself."""
        if given is None:
            return None
        if isinstance(given, str):
            word = given.strip().casefold()
            if word in self.missing:
                return None
            if word in self.words:
                number = self.words[word]
            else:
                number, unit = parse_number(given, self.rule.decimal)
                stated = unit or stated
        elif isinstance(given, bool):
            number = self.words.get("true" if given else "false", float(given))
        elif isinstance(given, int | float):
            try:
                number = float(given)
            except OverflowError:
                raise Unreadable(f"{shown(given)} is too large") from None
            if not math.isfinite(number):
                return None
        else:
            kind = (
                "an array: name an element, [0] or [*]" if isinstance(given, list) else "an object: name a field in it"
            )
            raise Unreadable(f"it is {kind}")
        if number in self.missing_numbers:
            return None
        gain, bias = self._from(stated) if stated and stated != self.rule.unit else (self.gain, self.bias)
        number = change(number, gain, bias)
        if not math.isfinite(number):
            raise Unreadable(f"{shown(given)} is too large")
        return number

    def stated_unit(self, body: object) -> str:
        """The unit the payload says it is in; empty where it does not."""
        if not self.unit_steps:
            return ""
        stated = find(self.unit_steps, body)
        if stated is ABSENT or stated is None:
            return ""
        if not isinstance(stated, str):
            raise Unreadable(f"{self.rule.unit_path}: {shown(stated)} is no unit")
        return stated.strip()

    def _from(self, unit: str) -> tuple[float, float]:
        way = conversion(unit, self.unit)
        if way is None:
            raise Unreadable(f"no way from {shown(unit)} to {self.unit!r}")
        return self.rule.scale * way[0], self.rule.offset * way[0] + way[1]


def change(number: float, gain: float, bias: float) -> float:
    """number × gain + bias; divided where that is exact, so that 1001 W is 1.001 kW and not 1.0010000000000001.

    >>> change(1001, 0.001, 0)
    1.001
    """
    parts = round(1 / gain) if 1e-12 < abs(gain) < 1 else 0
    return (number / parts if parts and gain == 1 / parts else number * gain) + bias
