"""How a series was acquired, next to how its scanner and protocol usually acquire."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

FEWEST = 5
"""Earlier series of the same scanner and protocol from which a parameter has a usual value."""
_USUAL_SHARE = 0.6
"""A setting is usual if so many of the earlier series have it."""
_TOLERANCE = 0.02
"""Numbers that differ by less are the same setting."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an acquisition.

    Attributes:
        key: in the covariates of a `Technique`.
        is_setting: chosen by the protocol, so that one value is usual; False for one that follows the patient.
    """

    key: str
    title: str
    unit: str
    is_setting: bool = True


PARAMETERS: Mapping[str, tuple[Parameter, ...]] = {
    "CT": (
        Parameter("kvp_kv", "tube voltage", "kV"),
        Parameter("mas", "tube charge", "mAs", is_setting=False),
        Parameter("pitch", "pitch", ""),
        Parameter("slice_thickness_mm", "slice thickness", "mm"),
        Parameter("kernel", "kernel", ""),
    ),
    "MR": (
        Parameter("tesla", "field strength", "T"),
        Parameter("repetition_time_ms", "TR", "ms"),
        Parameter("echo_time_ms", "TE", "ms"),
        Parameter("inversion_time_ms", "TI", "ms"),
        Parameter("flip_angle_deg", "flip angle", "°"),
        Parameter("slice_thickness_mm", "slice thickness", "mm"),
        Parameter("coil", "coil", ""),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A parameter with its usual value.

    Attributes:
        usual: in words; "" where nothing is usual or there are too few series.
        differs: it is a setting, and another value is usual.
    """

    parameter: Parameter
    value: str
    usual: str
    n: int
    differs: bool


def check(modality: str, present: Mapping[str, object], earlier: Sequence[Mapping[str, object]]) -> list[Checked]:
    """Return the parameters that a header states, each with what is usual.

    Args:
        present, earlier: covariates of the series and of earlier ones of the same scanner and protocol, with `mas` and
            `tesla` among them.
    """
    found = []
    for parameter in PARAMETERS.get(modality, ()):
        value = present.get(parameter.key)
        if value is None or value == "":
            continue
        values = [one for row in earlier if (one := row.get(parameter.key)) not in (None, "")]
        usual, differs = _usual(parameter, value, values)
        found.append(Checked(parameter=parameter, value=_text(value), usual=usual, n=len(values), differs=differs))
    return found


def _usual(parameter: Parameter, value: object, values: list[object]) -> tuple[str, bool]:
    if len(values) < FEWEST:
        return "", False
    if not parameter.is_setting:
        numbers = [float(one) for one in values if isinstance(one, int | float)]
        return (f"{_text(median(numbers))} (median)" if numbers else ""), False
    common, n = Counter(_text(one) for one in values).most_common(1)[0]
    if n < _USUAL_SHARE * len(values):
        return f"{len({_text(one) for one in values})} different", False
    chosen = next(one for one in values if _text(one) == common)
    return common, not _same(value, chosen)


def _same(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= _TOLERANCE * max(abs(one), abs(other))
    return str(one) == str(other)


def _text(value: object) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
