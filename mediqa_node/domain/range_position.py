"""Where a stack lies with respect to the training range of a checkpoint, as numbers; the sentences are for people."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from enum import StrEnum

OUTSIDE_RANGE = "outside_range"
"""Stored in place of a verdict: the primary stack is outside, and the site has it flagged instead of refused."""
NEAR = 0.9
"""Of the limit: from here on a stack that is inside is shown as near the limit."""
_KINDS = {"OP": "fundus photographs"}


class RangeTest(StrEnum):
    """What of a stack is compared with the training images."""

    INSIDE_WINDOW = "inside_window"
    WINDOW = "window"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePosition:
    """The position of one stack: the median over its slices decides.

    Attributes:
        test: the test that decides: too few pixels inside the window, else the statistics that are farther out.
        times_limit: by that test, over its limit; above 1 is outside.
        n_outside: slices that are outside, of `n_slices`.
        share_inside: share of the pixels inside the window, 0..1; `share_expected`: at least expected.
    """

    test: RangeTest
    times_limit: float
    n_outside: int
    n_slices: int
    share_inside: float
    share_expected: float

    @property
    def is_outside(self) -> bool:
        """Whether the stack is outside the training range."""
        return self.times_limit > 1

    @property
    def is_near(self) -> bool:
        """Whether the stack is outside, or inside and so near the limit that it is worth a look."""
        return self.times_limit >= NEAR

    @property
    def words(self) -> str:
        """The distance with two decimals, e.g. `1.03 x the limit`; never rounded across the limit."""
        return f"{times_limit(self.times_limit)} x the limit"

    def summary(self, modality: str) -> str:
        """Return the sentence that a refusal ends with."""
        kind = _KINDS.get(modality, f"{modality} images")
        return f"unlike the {kind} it was trained on ({self._found or self.words})"

    def details(self) -> str:
        """Return which test decides, by how much and on how many slices."""
        if self._found:
            return f"{self._found}, at least {self.share_expected:.1%} expected"
        outside = f", outside on {self.n_outside} of {self.n_slices} slices" if self.is_outside else ""
        return f"{self.test} statistics {self.words}{outside}"

    @property
    def _found(self) -> str:
        lacks_pixels = self.test is RangeTest.INSIDE_WINDOW
        return f"only {self.share_inside:.1%} of the pixels inside the window" if lacks_pixels else ""


def times_limit(ratio: float) -> Decimal:
    """Return a distance over its limit with two decimals, on the side of 1 where it is.

    >>> times_limit(1.0004), times_limit(0.9996), times_limit(1.034)
    (Decimal('1.01'), Decimal('0.99'), Decimal('1.03'))
    """
    exact, step = Decimal(repr(ratio)), Decimal("0.01")
    nearest = exact.quantize(step, ROUND_HALF_EVEN)
    if (nearest > 1) == (exact > 1) and (nearest < 1) == (exact < 1):
        return nearest
    return exact.quantize(step, ROUND_CEILING if exact > 1 else ROUND_FLOOR)
