"""The water-equivalent diameter of real patients against a second implementation, with its own mask.

    pytest -n 0 -s -m acceptance tests/acceptance/test_second_dw.py --collection DIR

The table is printed with `-s`. Where the field of view cuts the patient, what lies outside of it is unknown to both:
such series are shown apart and not asserted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from acceptance.second_dw import sizes
from acceptance.series import Series, print_table

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.prompt_rules import default_rules
from mediqa_node.domain.quantities import CT_DW, CT_TRUNCATION
from mediqa_node.pipeline.measures import measure_series
from mediqa_node.pipeline.score import harvest_series

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore::UserWarning")]

LARGEST = 0.03
"""Largest relative difference of a series."""
LIMITS = 0.01
"""Widest limits of agreement: a table or blanket in the mask is worth 1 % in a large patient, which LARGEST lets by."""
CUT = 0.05
"""A series is truncated from this share of the outline on, by either implementation."""
FEWEST = 10


@dataclass(frozen=True)
class Compared:
    """One series by both implementations; `cuts`: the truncated share of the outline by each."""

    name: str
    slices: int
    measured: int
    dw_mm: float
    second_mm: float
    cuts: tuple[float, float]

    @property
    def difference(self) -> float:
        """Return how much larger `ct.dw` is."""
        return self.dw_mm / self.second_mm - 1

    def line(self) -> str:
        """Return the line of the table."""
        own, second = self.cuts
        return (
            f"{self.name:42}{self.slices:7}{self.measured:9}{self.dw_mm:10.1f}{self.second_mm:10.1f}"
            f"{self.difference:12.2%}{own:12.1%}{second:10.1%}"
        )


def test_size_agrees_with_a_second_implementation(collection: dict[str, Series]) -> None:
    compared = list(_compared(collection))
    whole = [one for one in compared if max(one.cuts) < CUT]
    cut = [one for one in compared if max(one.cuts) >= CUT]
    found = np.array([one.difference for one in whole])
    mean, sd = float(found.mean()), float(found.std(ddof=1))
    _show("whole patients", whole)
    _show("cut by the field of view, not asserted", cut)
    print_table(
        f"{len(whole)} whole series: mean difference {mean:.2%}, SD {sd:.2%}, limits of agreement (95 %) "
        f"{mean - 1.96 * sd:.2%} to {mean + 1.96 * sd:.2%}, largest {max(found, key=abs):.2%}",
        [],
    )
    assert len(whole) >= FEWEST
    assert {one.name: one.difference for one in whole if abs(one.difference) > LARGEST} == {}
    assert abs(mean) + 1.96 * sd <= LIMITS


@pytest.mark.parametrize(("axes_mm", "table"), [((100.0, 100.0), False), ((160.0, 110.0), True)])
def test_the_second_implementation_measures_ellipses_of_water(axes_mm: tuple[float, float], *, table: bool) -> None:
    """A cylinder or ellipse of water with a lung, noise and a plate of 4 mm below, 2 mm away from it."""
    pixel_mm, half = 0.8, 256
    y_mm, x_mm = ((np.mgrid[: 2 * half, : 2 * half] - half) * pixel_mm).astype(np.float64)
    body = (x_mm / axes_mm[0]) ** 2 + (y_mm / axes_mm[1]) ** 2 < 1
    lung = (x_mm + 30) ** 2 + y_mm**2 < 40**2
    plate = table & (np.abs(y_mm - axes_mm[1] - 4) < 2) & (np.abs(x_mm) < 180)
    image = np.where(body, np.where(lung, -800.0, 0.0), np.where(plate, 100.0, -1000.0))
    noisy = image + np.random.default_rng(0).normal(0, 20, (3, *image.shape))
    truth_mm = 2 * np.sqrt(axes_mm[0] * axes_mm[1] - 0.8 * 40**2)

    found = sizes(noisy, pixel_mm)

    assert [one.dw_mm for one in found] == pytest.approx([truth_mm] * 3, rel=0.005)
    assert [one.cut for one in found] == [0, 0, 0]


def _compared(collected: dict[str, Series]) -> Iterator[Compared]:
    with FrameReader() as reader:
        for uid, series in collected.items():
            files = series.files
            if not series.set_name.startswith("ct_"):
                continue
            measured = measure_series(files, harvest_series(files), default_rules(), (CT_DW.name, CT_TRUNCATION.name))
            dw, truncation = (measured and measured.measure(name) for name in (CT_DW.name, CT_TRUNCATION.name))
            if not dw or not truncation or dw.value is None or truncation.value is None:
                continue
            stack = series.stacks[0]
            image_at = image_getter(stack, files.paths, files.headers, reader, stored=False)
            images = np.stack([image_at(index) for index in range(len(stack.frames))])
            second = sizes(images, stack.spacing_mm[1])
            yield Compared(
                name=f"{series.set_name} {uid[-8:]}",
                slices=len(second),
                measured=dw.n,
                dw_mm=dw.value,
                second_mm=float(np.mean([one.dw_mm for one in second])),
                cuts=(truncation.value, float(np.mean([one.cut for one in second]))),
            )


def _show(title: str, compared: list[Compared]) -> None:
    heads = f"{title:42}"[:42] + f"{'slices':>7}{'measured':>9}{'ct.dw mm':>10}{'second mm':>10}{'difference':>12}"
    print_table(heads + f"{'truncation':>12}{'second':>10}", [one.line() for one in compared])
