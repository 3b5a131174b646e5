"""Heartbeats of the processes, and what is known of each destination."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0003"
down_revision = "v02_0002"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "heartbeats",
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("sweeps", sa.JSON, nullable=False, comment="domain.health.Sweep by name"),
        sa.Column("n_associations", sa.Integer, comment="open ones, of the receiver"),
        sa.Column("max_associations", sa.Integer),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "destinations",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("failing_since", sa.Float, comment="first failed attempt since the last answer; null: it answered"),
        sa.Column("failure", sa.Text, comment="of the last failed attempt, for people"),
        sa.Column("answered_at", sa.Float),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_destinations")),
    )
