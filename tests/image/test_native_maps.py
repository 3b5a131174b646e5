"""Where on a slice a patch's score lies: known grids on known rectangles."""

import numpy as np
import pytest
from support.siblings import one_in

from mediqa_node.domain.preprocessing import View
from mediqa_node.domain.scoring import PatchMaps
from mediqa_node.image.maps.native import NativeMap, native_map, resampled
from mediqa_node.image.maps.patches import packed, unpacked
from mediqa_node.image.views import native_crops, whole_view


def view(top: int, left: int, height: int, width: int, index: int = 0) -> View:
    return View(slice_index=index, top=top, left=left, height=height, width=width)


def maps(scores: list, weights: list, views: list[View], quality: list | None = None) -> PatchMaps:
    found = [None if part is None else np.array(part, dtype=np.float32) for part in (scores, weights, quality)]
    return PatchMaps(scores=found[0], weights=found[1], views=tuple(views), quality=found[2])


GRID = [[[1.0, 2.0], [3.0, 4.0]]]
ONES = [[[1.0, 1.0], [1.0, 1.0]]]


def test_a_patch_holds_for_all_of_its_rectangle():
    found = native_map(maps(GRID, [[[0.1, 0.2], [0.3, 0.4]]], [view(0, 0, 4, 4)]), 0, (4, 4))

    assert found.scores.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert found.weights[:, 0].tolist() == np.float32([0.1, 0.1, 0.3, 0.3]).tolist()
    assert found.quality is None
    assert found.patch_px == (2, 2)


def test_of_a_padded_view_only_the_slice_is_kept():
    """A slice of 2 x 4 pixels in the middle of a square of 4: the outer rows of patches lie half outside."""
    whole = whole_view((2, 4), 0, square=True)

    found = native_map(maps(GRID, ONES, [whole]), 0, (2, 4))

    assert (whole.top, whole.height) == (-1, 4)
    assert found.scores.tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]


def test_a_stretched_view_has_oblong_patches():
    found = native_map(maps(GRID, ONES, [whole_view((2, 6), 0, square=False)]), 0, (2, 6))

    assert found.scores.tolist() == [[1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]]
    assert found.patch_px == (1, 3)


def test_a_pixel_on_the_edge_of_two_patches_belongs_to_the_one_its_middle_lies_in():
    found = native_map(maps(GRID, ONES, [view(0, 0, 3, 3)]), 0, (3, 3))

    assert found.scores.tolist() == [[1, 2, 2], [3, 4, 4], [3, 4, 4]]


def test_where_views_overlap_scores_are_averaged_by_weight_and_weights_plainly():
    both = maps(
        [[[1.0]], [[4.0]]], [[[0.25]], [[0.75]]], [view(0, 0, 2, 4), view(0, 2, 2, 2)], quality=[[[0.2]], [[0.6]]]
    )

    found = native_map(both, 0, (2, 4))

    assert found.scores[0].tolist() == [1, 1, 3.25, 3.25]
    assert found.weights[0].tolist() == [0.25, 0.25, 0.5, 0.5]
    np.testing.assert_allclose(found.shown[0], [0.2, 0.2, 0.5, 0.5], rtol=1e-6)


def test_what_no_view_covers_is_not_a_number():
    found = native_map(maps(GRID, ONES, [view(1, 1, 2, 2)]), 0, (4, 4))

    covered = np.zeros((4, 4), bool)
    covered[1:3, 1:3] = True
    assert np.array_equal(np.isfinite(found.scores), covered)
    assert np.array_equal(np.isfinite(found.weights), covered)
    assert found.scores[1:3, 1:3].tolist() == [[1, 2], [3, 4]]


def test_a_view_beyond_the_slice_is_cut_off_on_every_side():
    found = native_map(maps(GRID, ONES, [view(-2, -2, 8, 8)]), 0, (3, 3))

    assert found.scores.tolist() == [[1, 1, 2], [1, 1, 2], [3, 3, 4]]


def test_patches_that_count_for_nothing_still_have_a_score():
    none = maps([[[1.0]], [[2.0]]], [[[0.0]], [[0.0]]], [view(0, 0, 1, 1), view(0, 0, 1, 1)])

    found = native_map(none, 0, (1, 2))

    assert found.scores[0, 0] == 1.5
    assert found.weights[0, 0] == 0
    assert np.isnan(found.scores[0, 1])


def test_a_slice_takes_its_own_views_only():
    two = maps([[[1.0]], [[2.0]]], [[[1.0]], [[1.0]]], [view(0, 0, 2, 2, 0), view(0, 0, 2, 2, 1)])

    assert native_map(two, 1, (2, 2)).scores.tolist() == [[2, 2], [2, 2]]
    with pytest.raises(LookupError, match="slice 2"):
        native_map(two, 2, (2, 2))


@pytest.mark.parametrize("seed", one_in(4, range(20)))
def test_every_pixel_is_the_weighted_mean_of_the_patches_over_it(seed):
    """Against the definition, pixel by pixel, for views of any size and place."""
    noise = np.random.default_rng(seed)
    shape = tuple(noise.integers(5, 30, 2))
    views = [view(*noise.integers(-9, 20, 2), *noise.integers(1, 40, 2)) for _ in range(4)]
    scores, weights, quality = noise.normal(size=(4, 3, 3)), noise.random((4, 3, 3)), noise.random((4, 3, 3))

    found = native_map(maps(scores, weights, views, quality), 0, shape)

    for y, x in np.ndindex(*shape):
        over = []
        for number, v in enumerate(views):
            if v.top <= y < v.top + v.height and v.left <= x < v.left + v.width:
                over.append((number, int((y + 0.5 - v.top) * 3 / v.height), int((x + 0.5 - v.left) * 3 / v.width)))
        if not over:
            assert np.isnan([found.scores[y, x], found.weights[y, x], found.shown[y, x]]).all()
            continue
        w = np.array([weights[place] for place in over])
        for layer, native in ((scores, found.scores), (quality, found.shown)):
            expected = np.dot(w, [layer[place] for place in over]) / w.sum()
            np.testing.assert_allclose(native[y, x], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.weights[y, x], w.mean(), rtol=1e-5)


def test_crops_of_the_preprocessing_cover_what_they_say():
    image = np.full((40, 60), -1000.0)
    image[5:30, 10:50] = 40.0
    views = [whole_view(image.shape, 0, square=True), *native_crops(image, 0, modality="CT", size_px=16, count=2)]
    scores = np.arange(len(views), dtype=float)[:, None, None] * np.ones((1, 4, 4))

    found: NativeMap = native_map(maps(scores, np.ones_like(scores), views), 0, image.shape)

    assert len(views) == 3
    assert np.isfinite(found.scores).all()
    for number, crop in enumerate(views[1:], start=1):
        inside = found.scores[crop.top : crop.top + 16, crop.left : crop.left + 16]
        assert (inside == number / 2).any(), "the mean of the whole view, 0, and the crop"


def test_a_map_at_another_resolution_lies_where_it_lay():
    found = native_map(maps(GRID, ONES, [view(0, 0, 4, 4)], quality=GRID), 0, (4, 4))

    for shape in ((8, 12), (2, 2)):
        again = resampled(found, shape)
        rows, columns = np.indices(shape)
        expected = np.array(GRID[0])[rows * 2 // shape[0], columns * 2 // shape[1]]
        assert again.scores.tolist() == again.shown.tolist() == expected.tolist()
        assert again.patch_px == (shape[0] / 2, shape[1] / 2)


def test_maps_come_back_from_their_file_as_they_were():
    kept = maps(GRID, ONES, [view(-1, 0, 4, 4, 0)], quality=[[[0.1, 0.2], [0.3, 0.4]]])

    again, bare = unpacked(packed(kept)), unpacked(packed(maps(GRID, ONES, [view(-1, 0, 4, 4, 0)])))

    assert again.views == kept.views
    for name in ("scores", "weights", "quality"):
        assert np.array_equal(getattr(again, name), getattr(kept, name))
    assert bare.quality is None
