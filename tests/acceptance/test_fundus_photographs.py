"""Real photographs of the fundus are recognised, also after what makes photographs difficult; a table with `-s`.

    pytest -m acceptance tests/acceptance/test_fundus_photographs.py --collection DIR -s

Without a collection the photographs of tests/data are taken.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.fundus_cases import CASES, NONE, SCORED, Rgb, eye_of

from mediqa_node.image.fundus import too_little_visible, visible_field

AS_EXPECTED = 0.98
"""Least share of difficult photographs with the expected outcome. Fields that the camera has cut at several sides have
less of their border left to be found by."""

pytestmark = pytest.mark.acceptance


@pytest.fixture
def photographs(request: pytest.FixtureRequest) -> dict[str, list[Path]]:
    named = request.config.getoption("--collection", None) or os.environ.get("MEDIQA_COLLECTION")
    folder = Path(named) if named else Path(__file__).parents[1] / "data"
    return {source.name: sorted(source.glob("*.jp*g")) for source in sorted(folder.glob("fundus_*"))}


def outcome(rgb: Rgb) -> str:
    found = visible_field(rgb.clip(0, 255))
    if found is None:
        return NONE
    refusal = too_little_visible(found.lit, found.covered)
    return SCORED if refusal is None else refusal[0].value


def test_every_real_photograph_reaches_its_score(photographs: dict[str, list[Path]]) -> None:
    for paths in photographs.values():
        for path in paths:
            with Image.open(path) as picture:
                assert outcome(np.asarray(picture.convert("RGB"), dtype=np.float32)) == SCORED, path


def test_difficult_photographs_of_every_source_have_the_expected_outcome(photographs: dict[str, list[Path]]) -> None:
    eyes = {source: [eye_of(Image.open(path)) for path in paths[::6]] for source, paths in photographs.items()}
    right = total = 0
    for name, (expected, make) in CASES.items():
        found = {source: [outcome(make(eye)) for eye in of] for source, of in eyes.items()}
        right += sum(one == expected for of in found.values() for one in of)
        total += sum(len(of) for of in found.values())
        odd = "; ".join(f"{source}: {one}" for source, of in found.items() for one in of if one != expected)
        sys.stdout.write(f"{name:34} {expected:24} {odd}\n")
    sys.stdout.write(f"{right} of {total} as expected\n")
    assert right >= AS_EXPECTED * total
