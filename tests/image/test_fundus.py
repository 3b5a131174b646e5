"""Which pictures are photographs of a fundus, and which of them show enough of its field to be judged."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from support.fundus_cases import CASES, NONE, SCORED, Eye, Rgb, eye_of

from mediqa_node.image.fundus import VisibleField, looks_like_fundus, too_little_visible, visible_field

DATA = Path(__file__).parents[1] / "data"
PHOTOGRAPHS = {
    "left": DATA / "fundus_chasedb1" / "Image_01L.jpg",
    "right": DATA / "fundus_chasedb1" / "Image_01R.jpg",
    "wide": None,
}


@cache
def eye(name: str) -> Eye:
    """A real photograph: of two eyes, and of another camera with a wider field."""
    path = PHOTOGRAPHS[name]
    return eye_of(Image.open(path) if path is not None else Image.fromarray(data.retina()))


def outcome(rgb: Rgb) -> str:
    found = visible_field(rgb.clip(0, 255))
    if found is None:
        return NONE
    refusal = too_little_visible(found.lit, found.covered)
    return SCORED if refusal is None else refusal[0].value


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_difficult_photograph_is_scored_or_refused_for_what_hides_it(name, case):
    expected, make = CASES[case]

    assert outcome(make(eye(name))) == expected


def test_the_size_of_a_picture_does_not_decide():
    with Image.open(PHOTOGRAPHS["left"]) as picture:
        sizes = [picture.resize((edge, edge)) for edge in (64, 224, 500, 1500)]

    assert [outcome(np.asarray(one, dtype=np.float32)) for one in sizes] == [SCORED] * 4


def screen() -> Rgb:
    with Image.open(DATA / "refuse" / "screen_capture_png" / "screenshot.png") as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32)


def speckled(colour: tuple[int, int, int]) -> Rgb:
    """A surface of one colour with some texture."""
    return np.array(colour) * (1 + 0.05 * np.random.default_rng(0).standard_normal((300, 400, 1)))


NO_FUNDUS = {
    "screen with a fundus in it": screen,
    "astronaut": lambda: data.astronaut().astype(np.float32),
    "face": lambda: data.astronaut()[:200, 150:300].astype(np.float32),
    "orange suit": lambda: data.astronaut()[300:, 20:200].astype(np.float32),
    "cup of coffee": lambda: data.coffee().astype(np.float32),
    "coffee in its cup": lambda: data.coffee()[90:300, 180:430].astype(np.float32),
    "cat": lambda: data.chelsea().astype(np.float32),
    "face of a cat": lambda: data.chelsea()[30:250, 80:320].astype(np.float32),
    "wheel of colours": lambda: data.colorwheel().astype(np.float32),
    "logo": lambda: data.logo()[..., :3].astype(np.float32),
    "stained tissue": lambda: data.immunohistochemistry().astype(np.float32),
    "rocket": lambda: data.rocket().astype(np.float32),
    "galaxies": lambda: data.hubble_deep_field().astype(np.float32),
    "gray photograph": lambda: data.camera()[..., None].repeat(3, axis=-1).astype(np.float32),
    "moon": lambda: data.moon()[..., None].repeat(3, axis=-1).astype(np.float32),
    "page": lambda: data.page()[..., None].repeat(3, axis=-1).astype(np.float32),
    "bright skin": lambda: speckled((215, 165, 140)),
    "dark skin": lambda: speckled((120, 80, 60)),
    "noise": lambda: np.random.default_rng(0).uniform(0, 255, (300, 300, 3)),
    "black": lambda: np.zeros((300, 300, 3)),
    "white": lambda: np.full((300, 300, 3), 255.0),
    "a few pixels": lambda: np.full((8, 8, 3), (200.0, 100.0, 40.0)),
}


@pytest.mark.parametrize("picture", NO_FUNDUS)
def test_anything_else_is_no_fundus(picture):
    assert not looks_like_fundus(NO_FUNDUS[picture]())


def test_an_orange_cannot_be_told_from_a_fundus_by_shape_and_colour():
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    orange = np.where((np.hypot(y, x) < 0.8)[..., None], np.array([220.0, 120.0, 30.0]), 8.0)

    assert looks_like_fundus(orange)


def test_the_reason_is_what_hides_most_of_the_field():
    dark = too_little_visible(lit=0.34, covered=0.1)
    covered = too_little_visible(lit=0.2, covered=0.61)

    assert dark == ("field_too_dark", "only 34 % of the field is lit")
    assert covered == ("field_covered", "61 % of the field is under reflections")
    assert too_little_visible(lit=0.41, covered=0.0) is None


def test_a_field_in_full_light_is_lit_and_uncovered():
    found = visible_field(eye("left").rgb)

    assert isinstance(found, VisibleField)
    assert found.lit > 0.95
    assert found.covered < 0.01
