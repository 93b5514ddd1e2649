"""Units that sensors report, brought to the unit of the plant file: `value * factor + offset`.

    conversion("W", "kW")        # (0.001, 0.0)
    conversion("degF", "degC")   # (0.5555…, -17.7777…)
    conversion("kW", "degC")     # None: no way from one to the other

A unit is known by its exact spelling, or by one of a few usual other spellings (`°C`, `m³/h`, `KWH`).
"""

from __future__ import annotations

from functools import lru_cache

# Per quantity: unit → (factor, offset) to the first unit of the quantity.
_QUANTITIES: tuple[dict[str, tuple[float, float]], ...] = (
    {"kW": (1.0, 0.0), "W": (1e-3, 0.0), "MW": (1e3, 0.0), "hp": (0.745699872, 0.0)},
    {
        "kWh": (1.0, 0.0),
        "Wh": (1e-3, 0.0),
        "MWh": (1e3, 0.0),
        "J": (1 / 3.6e6, 0.0),
        "kJ": (1 / 3600, 0.0),
        "MJ": (1 / 3.6, 0.0),
        "GJ": (1e3 / 3.6, 0.0),
    },
    {"degC": (1.0, 0.0), "K": (1.0, -273.15), "degF": (5 / 9, -160 / 9)},
    {"m3/h": (1.0, 0.0), "l/s": (3.6, 0.0), "l/min": (0.06, 0.0), "l/h": (1e-3, 0.0), "m3/s": (3600.0, 0.0)},
    {"m3": (1.0, 0.0), "l": (1e-3, 0.0), "dm3": (1e-3, 0.0)},
    {"bar": (1.0, 0.0), "mbar": (1e-3, 0.0), "Pa": (1e-5, 0.0), "kPa": (1e-2, 0.0), "MPa": (10.0, 0.0)},
    {"A": (1.0, 0.0), "mA": (1e-3, 0.0), "kA": (1e3, 0.0)},
    {"V": (1.0, 0.0), "mV": (1e-3, 0.0), "kV": (1e3, 0.0)},
    {"mm/s": (1.0, 0.0), "m/s": (1e3, 0.0), "cm/s": (10.0, 0.0)},
    {"kg": (1.0, 0.0), "g": (1e-3, 0.0), "t": (1e3, 0.0)},
    {"s": (1.0, 0.0), "ms": (1e-3, 0.0), "min": (60.0, 0.0), "h": (3600.0, 0.0)},
    {"%": (1.0, 0.0), "1": (100.0, 0.0)},
)
_SPELLINGS = {
    "°C": "degC",
    "C": "degC",
    "°F": "degF",
    "F": "degF",
    "m³/h": "m3/h",
    "m³/s": "m3/s",
    "m³": "m3",
    "L": "l",
    "L/s": "l/s",
    "L/min": "l/min",
    "l/m": "l/min",
    "kw": "kW",
    "KW": "kW",
    "w": "W",
    "kwh": "kWh",
    "KWh": "kWh",
    "KWH": "kWh",
    "wh": "Wh",
}


@lru_cache(maxsize=4096)
def conversion(given: str, wanted: str) -> tuple[float, float] | None:
    """(factor, offset) from unit `given` to unit `wanted`; (1, 0) when alike, None when there is no way.

    >>> conversion("MW", "kW"), conversion("code", "code"), conversion("kW", "bar")
    ((1000.0, 0.0), (1.0, 0.0), None)
    """
    if given == wanted:
        return 1.0, 0.0
    given, wanted = _SPELLINGS.get(given, given), _SPELLINGS.get(wanted, wanted)
    if given == wanted:
        return 1.0, 0.0
    for units in _QUANTITIES:
        if given in units and wanted in units:
            (factor, offset), (back, shift) = units[given], units[wanted]
            return factor / back, (offset - shift) / back
    return None
