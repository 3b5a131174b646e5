"""Pictures of maps: what the colours are, and what stands in them."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from support.factories import calibration

from mediqa_node.image.maps.native import NativeMap
from mediqa_node.image.maps.overlay import ExplainedSlice, grey, overlaid, scale_of, smoothed
from mediqa_node.image.maps.palette import coloured
from mediqa_node.image.maps.pictures import Caption, contact_sheet, slice_picture

CAPTION = Caption(quality=0.5, raw=0.1, what="3D CT chest soft", trained=True)
AMBER = (255, 176, 0)


def explained(values: np.ndarray, *, image: np.ndarray | None = None, mapped: bool = True, **more) -> ExplainedSlice:
    native = NativeMap(
        scores=values, weights=np.ones_like(values), quality=values if mapped else None, patch_px=(8.0, 8.0)
    )
    defaults = {"window": (-160.0, 240.0), "quality": 0.5 if mapped else None, "raw": 0.5, "weight": 1.0}
    shown = np.zeros(values.shape) if image is None else image
    return ExplainedSlice(image=shown, map=native, **(defaults | more))


def halves(left: float = 0.0, right: float = 1.0) -> np.ndarray:
    values = np.full((32, 64), left)
    values[:, 32:] = right
    return values


def test_the_palette_rises_in_lightness_all_the_way():
    colours = coloured(np.linspace(0, 1, 101), 0, 1)

    assert (np.diff(colours @ [0.2126, 0.7152, 0.0722]) > 0).all()
    assert coloured(np.array([np.nan]), 0, 1).tolist() == [[0, 0, 0]]
    assert coloured(np.array([-3.0, 7.0]), 0, 1).tolist() == coloured(np.array([0.0, 1.0]), 0, 1).tolist()


def test_a_slice_is_shown_in_the_window_that_the_network_saw():
    image = np.array([[-1000.0, -160.0, 40.0, 240.0, 3000.0]])

    shown = grey(explained(np.zeros((1, 5)), image=image))

    assert shown[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_without_a_window_the_image_has_its_own():
    image = np.linspace(0, 4000, 1000).reshape(20, 50)

    shown = grey(explained(np.zeros((20, 50)), image=image, window=None))

    assert (shown.min(), shown.max()) == (0, 255)


def test_smoothing_keeps_the_middle_of_a_patch_and_runs_straight_between():
    values, _ = smoothed(explained(halves()).map)

    row = values[16]
    assert (row[:28] == 0).all()
    assert np.allclose(row[36:], 1)
    assert (np.diff(row) >= 0).all()
    np.testing.assert_allclose(np.diff(row[28:36]), 1 / 8)


def test_a_good_place_is_brighter_than_a_poor_one_and_an_uncovered_one_is_bare():
    values = halves()
    values[:, 48:] = np.nan
    part = explained(values)

    shown = np.asarray(overlaid(part, scale_of([part]), 64)).astype(int)

    assert shown[16, 40].sum() > shown[16, 4].sum()
    assert len(set(shown[16, 60].tolist())) == 1, "gray"


def test_what_counts_for_nothing_is_paler():
    part = explained(halves(1.0, 1.0))
    part.map.weights[:, 32:] = 0.0

    shown = np.asarray(overlaid(part, scale_of([part]), 64)).astype(int)

    assert np.ptp(shown[16, 4]) > np.ptp(shown[16, 60]) > 0


def test_quality_has_one_scale_and_raw_scores_have_that_of_their_series():
    low, high = explained(halves(0.2, 0.3)), explained(halves(0.7, 0.8))
    raw = [explained(halves(-3, 1), mapped=False), explained(halves(0, 5), mapped=False)]

    assert [(scale.low, scale.high, scale.label) for scale in (scale_of([low, high]), scale_of(raw))] == [
        (0, 1, "quality"),
        (-3, 5, "raw score"),
    ]


@pytest.mark.parametrize("shape", [(64, 64), (32, 200), (300, 40), (1, 1)])
def test_pictures_of_any_shape_hold_the_whole_slice(shape):
    part = explained(np.full(shape, 0.5), image=np.full(shape, 40.0))

    for picture in (slice_picture([part, part], 1, CAPTION), contact_sheet([part] * 7, CAPTION)):
        assert picture.mode == "RGB"
        assert 720 <= picture.width <= 1400
        assert picture.height <= 1000


def test_a_weight_stands_in_the_picture_only_if_slices_count_differently(monkeypatch):
    drawn: list[str] = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, place, text, **more: drawn.append(text))

    for weight in (0.25, None):
        slices = [explained(halves(), weight=weight)] * 2
        contact_sheet(slices, CAPTION)
        slice_picture(slices, 1, CAPTION)

    assert [text for text in drawn if "weight 0" in text] == [
        "0.50   weight 0.25",
        "0.50   weight 0.25",
        "slice 2 of 2, weight 0.25, series 0.50   3D CT chest soft",
    ]
    assert "slice 2 of 2, series 0.50   3D CT chest soft" in drawn


def test_no_quality_is_rounded_across_a_threshold(monkeypatch):
    drawn: list[str] = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, place, text, **more: drawn.append(text))

    for record in (calibration(borderline_below=0.6), None):
        caption = replace(CAPTION, quality=0.597, calibration=record)
        contact_sheet([explained(halves(), quality=0.5967)] * 2, caption)

    assert [text for text in drawn if text in ("Series quality 0.59", "Series quality 0.60")] == [
        "Series quality 0.59",
        "Series quality 0.60",
    ]
    assert [text.split()[0] for text in drawn if "weight 1" in text] == ["0.59", "0.59", "0.60", "0.60"]


def test_untrained_weights_are_named_in_every_picture():
    part = explained(np.full((64, 64), 0.5))
    untrained = Caption(quality=0.5, raw=0.1, what="3D CT chest soft", trained=False)

    for draw in (lambda said: slice_picture([part], 0, said), lambda said: contact_sheet([part], said)):
        marked, bare = (np.asarray(draw(said))[:60] for said in (untrained, CAPTION))
        assert (marked == AMBER).all(axis=-1).sum() > 200
        assert not (bare == AMBER).all(axis=-1).any()


def test_a_series_outside_the_training_range_is_marked_in_every_picture():
    part = explained(np.full((64, 64), 0.5))
    outside = replace(CAPTION, outside="1.03 x the limit")

    for draw in (lambda said: slice_picture([part], 0, said), lambda said: contact_sheet([part], said)):
        marked, both = (np.asarray(draw(said))[:60] for said in (outside, replace(outside, trained=False)))
        assert 200 < (marked == AMBER).all(axis=-1).sum() < (both == AMBER).all(axis=-1).sum()


def test_the_warning_stands_at_the_foot_of_every_picture():
    part = explained(np.full((64, 64), 0.5))

    for picture in (slice_picture([part], 0, CAPTION), contact_sheet([part], CAPTION)):
        assert (np.asarray(picture)[-40:] == AMBER).all(axis=-1).sum() > 200


def test_a_large_photograph_is_drawn_in_little_memory():
    """12 million pixels, drawn at panel size: at full size smoothing alone took gigabytes."""
    values = np.full((3000, 4000), 0.5, dtype=np.float32)
    part = explained(values, image=np.zeros((3000, 4000, 3), dtype=np.float32))
    tracemalloc.start()

    slice_picture([part], 0, CAPTION)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6


def test_the_same_slices_give_the_same_picture():
    part = explained(halves())

    assert slice_picture([part], 0, CAPTION).tobytes() == slice_picture([part], 0, CAPTION).tobytes()


def test_background_is_not_coloured():
    mask = np.zeros((32, 64), dtype=bool)
    mask[:, 48:] = True
    part = explained(halves(), background=mask)

    shown = np.asarray(overlaid(part, scale_of([part]), 64)).astype(int)

    assert len(set(shown[16, 60].tolist())) == 1, "gray"
    assert len(set(shown[16, 40].tolist())) > 1


def test_every_picture_says_what_its_map_cannot_show():
    part = explained(np.full((64, 64), 0.5))
    for picture in (slice_picture([part], 0, CAPTION), contact_sheet([part], CAPTION)):
        for top in (-100, -80, -60):
            written = (np.asarray(picture)[top : top + 20].max(axis=-1) > 120).any(axis=0)
            assert written.sum() > 150, "a line of text"
            assert not written[-8:].any(), "that ends inside the picture"
