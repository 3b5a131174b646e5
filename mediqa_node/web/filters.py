"""The filters of the worklist: in the address of the page, and nowhere else."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, Query

from mediqa_node.domain.access import Actor
from mediqa_node.domain.worklist import Category
from mediqa_node.storage.worklist import Filter
from mediqa_node.web.context import WebContext

_DAY_S = 86_400.0
PERIODS = {"24h": (_DAY_S, "24 hours"), "7d": (7 * _DAY_S, "7 days"), "30d": (30 * _DAY_S, "30 days")}
"""How far back a list goes; `all` has no limit, and a date is one day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What an address asks for, as text; "" for everything."""

    category: str = ""
    modality: str = ""
    scanner: str = ""
    protocol: str = ""
    received: str = ""
    q: str = ""
    open: str = ""

    def as_filter(self, context: WebContext, actor: Actor) -> Filter:
        """Return the filter, within what the actor may see."""
        since, until = self._period(context)
        return Filter(
            category=Category(self.category) if self.category in set(Category) else None,
            modality=self.modality,
            scanner=self.scanner,
            protocol=self.protocol,
            since=since,
            until=until,
            text=self.q.strip(),
            only_open=self.open == "1",
            scanners=actor.scanners,
        )

    def _period(self, context: WebContext) -> tuple[float | None, float | None]:
        if self.received == "all":
            return None, None
        if self.received in PERIODS or not self.received:
            return context.clock() - PERIODS[self.received or "24h"][0], None
        try:
            day = datetime.strptime(self.received, "%Y-%m-%d").replace(tzinfo=context.time_zone)
            return day.timestamp(), (day + timedelta(days=1)).timestamp()
        except (ValueError, OverflowError):  # not a date, or the last one that there is
            return None, None

    def values(self, **changed: str) -> dict[str, str]:
        """Return the query of an address, with some of it changed."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__} | changed
        return {name: value for name, value in found.items() if value}


def list_query(
    category: Annotated[str, Query(max_length=16)] = "",
    modality: Annotated[str, Query(max_length=16)] = "",
    scanner: Annotated[str, Query(max_length=64)] = "",
    protocol: Annotated[str, Query(max_length=64)] = "",
    received: Annotated[str, Query(max_length=10)] = "",
    q: Annotated[str, Query(max_length=64)] = "",
    open: Annotated[str, Query(max_length=1)] = "",
) -> ListQuery:
    """Read the filters from an address."""
    return ListQuery(
        category=category, modality=modality, scanner=scanner, protocol=protocol, received=received, q=q, open=open
    )


Listed = Annotated[ListQuery, Depends(list_query)]
