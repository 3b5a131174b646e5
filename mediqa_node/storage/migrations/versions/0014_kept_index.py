"""Indexes for what is kept and what was deleted lately: `status` and retention else read every row."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0014"
down_revision = "v02_0013"


def upgrade() -> None:
    """Create the indexes; seconds for a million instances.

    Partial ones: with `purged_at` as a column of an index, SQLite would choose it for every query of kept instances.
    """
    for name, column, condition in (
        ("ix_instances_kept", "size_bytes", "purged_at IS NULL"),
        ("ix_instances_purged", "purged_at", "purged_at IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "instances", [column], sqlite_where=where, postgresql_where=where)
