"""Self-checks: whether the score orders the site's own pairs."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0006"
down_revision = "v02_0005"


def upgrade() -> None:
    """Create the table; no check was made before."""
    op.create_table(
        "self_checks",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("checked_at", sa.Float, nullable=False),
        sa.Column("software_version", sa.String(32), nullable=False),
        sa.Column("checkpoint_name", sa.String(128), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("card_sha256", sa.String(64), nullable=False),
        sa.Column("figures", sa.JSON, nullable=False, comment="domain.self_check.Figures, counts only"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_self_checks")),
    )
