"""Whether a test runs as a trial: `python -m tests.trials` gives it a seed, and then it does all of its rounds.

Without a seed a test is one of the default suite: small, and the same every time.
"""

import os
import random
from typing import TypeVar

T = TypeVar("T")

_SEED = os.environ.get("MEDIQA_TRIAL_SEED")


def seed(otherwise: int = 2026) -> int:
    """Return the seed of this run."""
    return int(_SEED) if _SEED else otherwise


def dice(*words: object) -> random.Random:
    """Return the random numbers of this run; other words give others."""
    return random.Random(f"{seed()} {words}")


def rounds(few: T, many: T) -> T:
    """Return `few` in the default suite, `many` in a trial."""
    return many if _SEED else few
