"""Decisions about copies, as they are kept."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from mediqa_node.storage.correction_tables import corrections


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A decision as it is kept."""

    at: float
    by: str
    action: str
    n_kept: int
    n_set_aside: int

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)


def corrections_of(connection: sa.Connection, series_instance_uid: str) -> list[Correction]:
    """Return the decisions about copies of a series, oldest first."""
    query = sa.select(corrections).where(corrections.c.series_instance_uid == series_instance_uid)
    return [
        Correction(
            at=row.at,
            by=row.by,
            action=row.action,
            n_kept=len(row.copies["kept"]),
            n_set_aside=len(row.copies["set_aside"]),
        )
        for row in connection.execute(query.order_by(corrections.c.id))
    ]
