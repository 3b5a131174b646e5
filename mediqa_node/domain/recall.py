"""Results that may be known before they are asked for.

Functions that look at one slice at a time take a `Recall`, so that what was found while a series arrived is not
computed again. A key names everything that a result depends on: what is recalled is what would be computed.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Recall(Protocol):
    """Returns results by key."""

    def __call__(
        self,
        items: Sequence[_Item],
        key: Callable[[_Item], Hashable],
        make: Callable[[Sequence[_Item]], Sequence[_Result]],
    ) -> list[_Result]:
        """Return a result for each item: what is known by its key, and for all others what `make` returns for them."""
        ...


def fresh(
    items: Sequence[_Item],
    key: Callable[[_Item], Hashable],
    make: Callable[[Sequence[_Item]], Sequence[_Result]],
) -> list[_Result]:
    """Compute everything: a `Recall` that knows nothing."""
    return list(make(items))


def recalled(recall: Recall, key: Hashable, make: Callable[[], _Result]) -> _Result:
    """Return one result by its key."""
    return recall((key,), lambda one: one, lambda _: (make(),))[0]
