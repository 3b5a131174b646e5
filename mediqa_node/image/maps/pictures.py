"""Pictures of score maps: one for each slice, and a sheet of all slices. They contain no patient data.

Pictures may be copied anywhere, so each one carries the warning against clinical use, the limits of the map, and
whether the weights are untrained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mediqa_node.domain.assessment import Calibration, rounded
from mediqa_node.image.maps.overlay import ExplainedSlice, Scale, overlaid, plain, scale_of
from mediqa_node.image.maps.palette import coloured

RESEARCH_ONLY = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
UNTRAINED = "UNTRAINED WEIGHTS: THE SCORE HAS NO MEANING"
OUTSIDE_RANGE = "OUTSIDE THE TRAINING RANGE"
LEGEND = (
    "Colour: the network's score of a patch in its surroundings. Opacity: its weight.",
    "The background is not coloured. Image statistics, which may be part of the score,",
    "are not shown. A dark patch does not locate an artefact.",
)
"""What a map shows and what it cannot show."""

_BACKGROUND, _TEXT, _QUIET, _WARNING = (18, 18, 20), (240, 240, 240), (170, 170, 175), (255, 176, 0)
_PANEL_PX, _THUMB_PX, _SHEET_COLUMNS = 480, 264, 4
_MARGIN_PX, _BAR_PX, _BAR_ROOM_PX = 16, 18, 116
_HEAD_PX, _FOOT_PX, _LEAST_PX = 84, 104, 720
_TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """The series' score and description in a picture.

    Attributes:
        quality: Q, 0..1, or None; then `raw` is shown.
        what: the prompt in words, e.g. `3D CT chest lung`.
        calibration: of the site; no quality is rounded across its thresholds.
        outside: how far the series is outside the training range, in words; "" for one inside.
    """

    quality: float | None
    raw: float
    what: str
    trained: bool
    calibration: Calibration | None = None
    outside: str = ""


def slice_picture(slices: Sequence[ExplainedSlice], index: int, caption: Caption) -> Image.Image:
    """Return a slice, plain and with its map, with scores, colour bar and warnings; RGB."""
    part, scale = slices[index], scale_of(slices)
    panels = [plain(part, _PANEL_PX), overlaid(part, scale, _PANEL_PX)]
    width, height = panels[0].size
    box = 3 * _MARGIN_PX + 2 * width + _BAR_ROOM_PX, _HEAD_PX + max(height, _PANEL_PX // 2) + _FOOT_PX
    picture, draw = _canvas((max(box[0], _LEAST_PX), box[1]))
    title = _named(part, "slice" if len(slices) > 1 else "image", caption)
    _head(draw, title, _slice_facts(slices, index, caption), caption)
    for number, panel in enumerate(panels):
        picture.paste(panel, (_MARGIN_PX + number * (width + _MARGIN_PX), _HEAD_PX))
    _bar(picture, draw, (3 * _MARGIN_PX + 2 * width, _HEAD_PX, box[1] - _HEAD_PX - _FOOT_PX), scale)
    _foot(draw, picture.size)
    return picture


def contact_sheet(slices: Sequence[ExplainedSlice], caption: Caption) -> Image.Image:
    """Return all slices with their maps on one sheet; RGB."""
    scale = scale_of(slices)
    columns = min(len(slices), _SHEET_COLUMNS)
    cell = _THUMB_PX + _MARGIN_PX, _THUMB_PX + 2 * _MARGIN_PX + 8
    rows = -(-len(slices) // columns)
    size = _MARGIN_PX + columns * cell[0] + _BAR_ROOM_PX, _HEAD_PX + rows * cell[1] + _FOOT_PX
    picture, draw = _canvas((max(size[0], _LEAST_PX), size[1]))
    facts = f"{caption.what}   {len(slices)} slice{'s' if len(slices) > 1 else ''} scored"
    _head(draw, _named(caption, "series", caption), facts, caption)
    for index, part in enumerate(slices):
        left, top = _MARGIN_PX + index % columns * cell[0], _HEAD_PX + index // columns * cell[1]
        draw.text((left, top), f"{index + 1}", font=_font(17), fill=_QUIET)
        score = _number(part, caption) + ("" if part.weight is None else f"   weight {part.weight:.2f}")
        draw.text((left + _THUMB_PX, top), score, font=_font(17), fill=_TEXT, anchor="ra")
        thumb = overlaid(part, scale, _THUMB_PX)
        picture.paste(thumb, (left + (_THUMB_PX - thumb.width) // 2, top + 24 + (_THUMB_PX - thumb.height) // 2))
    _bar(picture, draw, (_MARGIN_PX + columns * cell[0], _HEAD_PX + 24, rows * cell[1] - 40), scale)
    _foot(draw, picture.size)
    return picture


def _canvas(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", size, _BACKGROUND)
    return picture, ImageDraw.Draw(picture)


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _number(of: ExplainedSlice | Caption, caption: Caption) -> str:
    return f"{of.raw:.3g}" if of.quality is None else str(rounded(of.quality, caption.calibration))


def _named(of: ExplainedSlice | Caption, what: str, caption: Caption) -> str:
    return f"{what} {'raw score' if of.quality is None else 'quality'} {_number(of, caption)}"


def _slice_facts(slices: Sequence[ExplainedSlice], index: int, caption: Caption) -> str:
    part = slices[index]
    if len(slices) == 1:
        return caption.what
    series = _number(caption, caption)
    weight = "" if part.weight is None else f"weight {part.weight:.2f}, "
    return f"slice {index + 1} of {len(slices)}, {weight}series {series}   {caption.what}"


def _head(draw: ImageDraw.ImageDraw, title: str, facts: str, caption: Caption) -> None:
    draw.text((_MARGIN_PX, 10), title[0].upper() + title[1:], font=_font(28), fill=_TEXT)
    draw.text((_MARGIN_PX, 50), facts, font=_font(17), fill=_QUIET)
    outside = f"{OUTSIDE_RANGE}: {caption.outside}" if caption.outside else ""
    warnings = filter(None, ("" if caption.trained else UNTRAINED, outside))
    for line, text in enumerate(warnings):
        place = draw.im.size[0] - _MARGIN_PX, 18 + 24 * line
        draw.text(place, text, font=_font(17), fill=_WARNING, anchor="ra")


def _foot(draw: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    middle = size[1] - 24
    draw.text((_MARGIN_PX, middle), RESEARCH_ONLY, font=_font(17), fill=_WARNING, anchor="lm")
    for line, text in enumerate(LEGEND):
        place = _MARGIN_PX, size[1] - _FOOT_PX + 16 + 20 * line
        draw.text(place, text, font=_font(15), fill=_QUIET, anchor="lm")


def _bar(picture: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int, int], scale: Scale) -> None:
    """Draw the colour bar with its numbers; `place` is left, top and height."""
    left, top, height = place
    top, height = top + 34, height - 42
    values = np.linspace(scale.high, scale.low, height)
    colours = np.repeat(coloured(values, scale.low, scale.high)[:, None], _BAR_PX, axis=1)
    picture.paste(Image.fromarray(colours.astype(np.uint8)), (left, top))
    draw.text((left, top - 34), scale.label, font=_font(16), fill=_TEXT)
    for tick in range(_TICKS):
        share = tick / (_TICKS - 1)
        y = top + round((1 - share) * (height - 1))
        draw.line([(left + _BAR_PX, y), (left + _BAR_PX + 5, y)], fill=_TEXT)
        value = scale.low + share * (scale.high - scale.low)
        word = {0: " poor", _TICKS - 1: " good"}.get(tick, "")
        draw.text((left + _BAR_PX + 9, y), f"{value:.2f}{word}", font=_font(15), fill=_TEXT, anchor="lm")
