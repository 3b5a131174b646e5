"""Convert measured values of structured reports to one unit for each kind of quantity, by their UCUM code.

A code that is not in the table converts to nothing: a value in an unknown unit is left out, never misread.
"""

from enum import StrEnum
from itertools import product

_DOSES = {"Gy": 1000.0, "dGy": 100.0, "cGy": 10.0, "mGy": 1.0, "uGy": 1e-3}
_LENGTHS = {"m": 1000.0, "dm": 100.0, "cm": 10.0, "mm": 1.0, "um": 1e-3}


class Quantity(StrEnum):
    """A kind of quantity, by its unit here."""

    CURRENT_MA = "mA"
    TIME_S = "s"
    CHARGE_MAS = "mA.s"
    VOLTAGE_KV = "kV"
    LENGTH_MM = "mm"
    DOSE_MGY = "mGy"
    DOSE_LENGTH_MGY_CM = "mGy.cm"
    RATIO = "1"


UNITS: dict[Quantity, dict[str, float]] = {
    Quantity.CURRENT_MA: {"kA": 1e6, "A": 1000.0, "mA": 1.0, "uA": 1e-3},
    Quantity.TIME_S: {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6},
    Quantity.CHARGE_MAS: {
        "A.s": 1000.0, "mA.s": 1.0, "uA.s": 1e-3, "mA.ms": 1e-3, "A.ms": 1.0, "C": 1000.0, "mC": 1.0, "uC": 1e-3,
        "mA.min": 60.0,
    },
    Quantity.VOLTAGE_KV: {"kV": 1.0, "V": 1e-3, "MV": 1000.0},
    Quantity.LENGTH_MM: _LENGTHS,
    Quantity.DOSE_MGY: _DOSES,
    Quantity.DOSE_LENGTH_MGY_CM: {
        f"{dose}.{length}": _DOSES[dose] * _LENGTHS[length] / _LENGTHS["cm"]
        for dose, length in product(_DOSES, _LENGTHS)
    },
    Quantity.RATIO: {"1": 1.0, "{ratio}": 1.0, "%": 0.01},
}  # fmt: skip
"""How many units of the quantity one of each UCUM code is (case-sensitive, PS3.16 CID 82 and ucum.org)."""

_ALIASES = {
    "sec": "s", "msec": "ms", "seconds": "s", "second": "s", "milliseconds": "ms", "mAs": "mA.s", "uAs": "uA.s",
    "As": "A.s", "kVp": "kV", "mGycm": "mGy.cm", "Gycm": "Gy.cm", "cGycm": "cGy.cm", "dGycm": "dGy.cm", "": "1",
    "ratio": "1", "no units": "1", "{no units}": "1", "{no_units}": "1", "unity": "1", "kv": "kV", "kvp": "kV",
}  # fmt: skip
"""What vendors write in place of a UCUM code."""


def converted(value: float, code: str, quantity: Quantity) -> float | None:
    """Return a value in the unit of its quantity, or None if the unit is unknown or of another quantity.

    >>> converted(500, "ms", Quantity.TIME_S), converted(3.2, "dGy.cm", Quantity.DOSE_LENGTH_MGY_CM)
    (0.5, 320.0)
    >>> converted(100, "mA.s", Quantity.CURRENT_MA) is None
    True
    """
    plain = code.strip().replace("\u00b5", "u").replace("\u03bc", "u").replace("*", ".").replace("\u00b7", ".")
    factor = UNITS[quantity].get(_ALIASES.get(plain, _ALIASES.get(plain.lower(), plain)))
    return None if factor is None else value * factor
