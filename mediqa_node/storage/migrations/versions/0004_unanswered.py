"""Since when a destination fails to answer C-FIND about a report."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0004"
down_revision = "v02_0003"


def upgrade() -> None:
    """Add the column; a report that waits for an answer now begins to wait anew."""
    comment = "first C-FIND in a row that failed; null: the last was answered"
    op.add_column("deliveries", sa.Column("unanswered_since", sa.Float, comment=comment))
