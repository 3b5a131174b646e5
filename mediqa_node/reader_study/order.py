"""The order in which one reader sees the cases of a study.

It is random for each reader, so that fatigue and learning do not fall on the same cases for all. Cases that come twice
are at least a third of the list apart: a reader who remembers the first rating would repeat it.
"""

import hashlib
import random
from collections.abc import Sequence
from itertools import pairwise
from math import ceil


def reading_order(n_cases: int, share: float, seed: str) -> tuple[tuple[int, int], ...]:
    """Return index of the case and number of the reading, 1 or 2, for each place.

    First readings of repeated cases lie in the first third of the list, second ones in the last, so that two readings
    of a case are at least a third of the list apart.

    Args:
        n_cases: number of cases.
        share: of the cases that come twice, 0..0.3.
        seed: the same seed gives the same order.

    >>> order = reading_order(10, 0.2, "a study and a reader")
    >>> len(order), sorted(n for _, n in order)[-2:]
    (12, [2, 2])
    """
    chance = random.Random(hashlib.sha256(seed.encode()).digest())  # noqa: S311 (an order, no secret)
    cases = list(range(n_cases))
    chance.shuffle(cases)
    wanted = round(share * n_cases) or int(share > 0)
    while wanted:
        length = n_cases + wanted
        apart = ceil(length / 3)
        late = list(range(2 * apart - 1, length))
        if wanted <= min(apart, len(late)):
            break
        wanted -= 1
    if not wanted:
        return tuple((case, 1) for case in cases)
    again = chance.sample(cases[:apart], wanted)
    chance.shuffle(again)
    second = dict(zip(sorted(chance.sample(late, wanted)), again, strict=True))
    first = iter(cases)
    return tuple((second[at], 2) if at in second else (next(first), 1) for at in range(length))


def chosen(scores: Sequence[float], at_most: int, *, seed: int, spread: bool) -> list[int]:
    """Return the indices of at most so many series, at random.

    Args:
        scores: of the network, one for each series.
        spread: draw one from each of `at_most` groups of equal size by score, so that poor images are not missed.

    >>> sorted(chosen([0.1, 0.2, 0.8, 0.9], 2, seed=1, spread=True))[1] > 1
    True
    """
    chance = random.Random(seed)  # noqa: S311 (a sample, no secret)
    if len(scores) <= at_most:
        return list(range(len(scores)))
    if not spread:
        return sorted(chance.sample(range(len(scores)), at_most))
    ranked = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    edges = [i * len(ranked) // at_most for i in range(at_most + 1)]
    return sorted(chance.choice(ranked[low:high]) for low, high in pairwise(edges))
