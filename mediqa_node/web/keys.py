"""The keys of every page: one table for the scripts, the tooltips and the sheet that `?` opens."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """One key and what it does.

    Attributes:
        key: as `KeyboardEvent.key` names it, letters in lower case.
        act: name of the act in the scripts.
        words: for the sheet; "" where another key of the table speaks for this one too.
        shown: how people read it, if not as its own name.
    """

    key: str
    act: str
    words: str
    shown: str = ""

    @property
    def cap(self) -> str:
        """The key as people read it."""
        if self.shown:
            return self.shown
        names = {"ArrowLeft": "←", "ArrowRight": "→", "Backspace": "⌫"}
        return names.get(self.key, self.key.upper() if len(self.key) == 1 else self.key)


EVERYWHERE = (Key("?", "keys", "this sheet"), Key("Escape", "close", "close what is open"))
_ANSWERS = (
    Key("r", "repeated", "answer: repeated"),
    Key("g", "kept", "answer: good enough, kept"),
    Key("n", "wrong_alarm", "answer: wrong alarm"),
    Key("u", "undo", "undo the answer"),
)
WORKLIST = (
    Key("j", "next", "next series"),
    Key("k", "previous", "previous series"),
    Key("Enter", "open", "open the series"),
    *_ANSWERS,
    Key("p", "pause", "pause or resume new series"),
    Key("/", "search", "search"),
)
SERIES = (
    *_ANSWERS,
    Key("1", "window1", "first window"),
    Key("2", "window2", "second window"),
    Key("3", "window3", "third window"),
    Key("4", "window4", "fourth window"),
    Key("0", "window0", "window of the file"),
    Key("o", "overlay", "patch map on or off"),
    Key("ArrowLeft", "step_previous", "previous slice"),
    Key("ArrowRight", "step_next", "next slice"),
    Key("f", "enlarge", "one slice, or all seven"),
    Key("[", "series_previous", "newer series of the list"),
    Key("]", "series_next", "older series of the list"),
)
TRENDS = (
    Key("j", "next", "next chart of the list"),
    Key("k", "previous", "previous chart of the list"),
    Key("Enter", "open", "open the chart, or the series of the point"),
    Key("ArrowLeft", "step_previous", "previous point"),
    Key("ArrowRight", "step_next", "next point"),
    Key("m", "mark_next", "next point that breaks a rule"),
    Key("0", "whole", "whole period"),
    Key("a", "ewma", "moving average (EWMA) on or off"),
    Key("s", "image", "save the picture as PNG"),
)
READING = (
    Key("0", "rate", "rate the current criterion", shown="0 … 9"),
    *(Key(str(digit), "rate", "") for digit in range(1, 10)),
    Key("Tab", "criterion_next", "next criterion"),
    Key("c", "comment", "comment"),
    Key("Enter", "confirm", "confirm, and on to the next case"),
    Key("Backspace", "undo", "take the last rating back"),
    Key("x", "cannot", "cannot be rated, on to the next case"),
    Key("ArrowLeft", "step_previous", "previous slice"),
    Key("ArrowRight", "step_next", "next slice"),
    Key("f", "enlarge", "one slice, or all"),
    Key("w", "window_next", "next window; drag on an image for any other"),
    Key("e", "example", "next example next to the case, or none"),
)
PAGES: Mapping[str, tuple[Key, ...]] = {"worklist": WORKLIST, "series": SERIES, "trends": TRENDS, "reading": READING}


def of_page(page: str) -> tuple[Key, ...]:
    """Return the keys of a page."""
    return PAGES.get(page, ()) + EVERYWHERE


def as_map(page: str) -> dict[str, str]:
    """Return the act of each key, for the scripts."""
    return {key.key: key.act for key in of_page(page)}
