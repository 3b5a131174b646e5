"""Numbers, times and states as pages show them."""

from collections.abc import Mapping
from datetime import datetime, tzinfo

from mediqa_node.domain.health import span
from mediqa_node.domain.series import ARRIVED, DeliveryState, ReasonCode, SeriesState
from mediqa_node.domain.worklist import Category, Entry, number, shown

_STATES: Mapping[str, str] = {
    SeriesState.RECEIVING: "receiving",
    SeriesState.READY: "being scored",
    SeriesState.ASSESSED: "scored",
    SeriesState.DELIVERED: "reported",
    SeriesState.CONFIRMED: "reported, confirmed",
    SeriesState.NOT_SCORED: "not scored",
    SeriesState.WITHHELD: "withheld",
    SeriesState.PARKED: "parked",
}


def age(seconds: float) -> str:
    """Return an age in one unit.

    >>> age(41.2), age(1260)
    ('41 s', '21 min')
    """
    return span(seconds)


def clock_time(at: float, zone: tzinfo) -> str:
    """Return a time of day, `13:58:04`."""
    return datetime.fromtimestamp(at, zone).strftime("%H:%M:%S")


def date_time(at: float | None, zone: tzinfo) -> str:
    """Return a date with its time, `2026-11-30 13:58`; a dash for none."""
    return "–" if at is None else datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M")


def iso_in(at: float, zone: tzinfo) -> str:
    """Return a time of the site as machines read it."""
    return datetime.fromtimestamp(at, zone).isoformat(timespec="seconds")


def state(entry: Entry) -> str:
    """Return how far a series is."""
    return _STATES.get(entry.state, str(entry.state).lower())


def what(entry: Entry) -> str:
    """Return modality, region and type in words: `MR brain T1`."""
    kind = {"soft": "soft tissue", "cfp": "", "unknown": "", "t2_star": "T2*"}.get(entry.type, entry.type)
    kind = kind.upper() if kind in ("t1", "t2", "flair", "stir", "pd", "dwi") else kind
    region = "" if entry.region in ("unknown", "retina") else entry.region
    modality = "Fundus" if entry.modality in ("OP", "OPT") and entry.region == "retina" else entry.modality
    side = {"R": "right", "L": "left", "B": "both sides"}.get(entry.laterality, "")
    return " ".join(filter(None, (modality, region, kind, side)))


_MAKERS: Mapping[str, str] = {
    "GE MEDICAL SYSTEMS": "GE",
    "GE HEALTHCARE": "GE",
    "SIEMENS HEALTHINEERS": "Siemens",
    "SIEMENS": "Siemens",
    "PHILIPS MEDICAL SYSTEMS": "Philips",
    "PHILIPS HEALTHCARE": "Philips",
    "CANON MEDICAL SYSTEMS": "Canon",
    "TOSHIBA": "Toshiba",
}


def machine(entry: Entry) -> str:
    """Return maker and model in as few words as tell a scanner from its neighbour: `GE SIGNA Premier`.

    A model that repeats the name of the scanner is left out, and without a model the sender stands in.
    """
    for long, short in _MAKERS.items():
        if entry.model.upper().startswith(f"{long} "):
            model = entry.model[len(long) + 1 :]
            return short if model == entry.scanner else f"{short} {model}"
    return entry.model or entry.sender


def looks(entry: Entry) -> str:
    """Return the predicted range of the parameter next to what was recorded: `71–131 / 265 mAs`."""
    if entry.predicted is None and entry.recorded is None:
        return ""
    recorded = "–" if entry.recorded is None else number(entry.recorded)
    if entry.predicted is None:
        return f"– / {recorded} {entry.unit}".rstrip()
    low, high = entry.predicted
    return f"{number(low)}–{number(high)} / {recorded} {entry.unit}".rstrip()


_UNSENT: Mapping[str, str] = {
    ReasonCode.PULLED: "pulled, not reported",
    ReasonCode.BACK_SCORED: "back-scored, not reported",
}
"""Why a series with a score has no report, if it is not that no destination asks for one."""


def report(entry: Entry) -> str:
    """Return the state of the report: where it is, after how long."""
    if entry.delivery is None:
        without = _UNSENT.get(entry.reason_code or "", "no destination")
        return without if entry.score is not None else ""
    if entry.delivery in ARRIVED:
        took = "" if entry.delivered_in_s is None else f" in {_seconds(entry.delivered_in_s)}"
        kept = ", confirmed" if entry.delivery == DeliveryState.CONFIRMED else ""
        return f"{entry.destination}{took}{kept}"
    return f"{entry.destination} {entry.delivery}"


def _seconds(seconds: float) -> str:
    """Return how long something took; its unit stays on the line of the number."""
    return (f"{seconds:.1f} s" if seconds < 10 else span(seconds)).replace(" ", "\u00a0")


def said(entry: Entry) -> str:
    """Return what a screen reader announces when an entry changes."""
    score = "" if entry.score is None else f", score {shown(entry.score)}"
    verdict = {Category.REPEAT: "repeat?", Category.LOOK: "look"}.get(entry.category, state(entry))
    return f"{entry.scanner}: {what(entry)}, {verdict}{score}. {entry.why}".strip()
