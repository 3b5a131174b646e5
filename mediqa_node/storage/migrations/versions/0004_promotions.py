"""Which weights score, and what others say beside them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=8), nullable=False, comment="promote, rollback, shadow or unshadow"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("from_name", sa.String(length=128), nullable=True),
        sa.Column("from_sha256", sa.String(length=64), nullable=True),
        sa.Column("from_card_sha256", sa.String(length=64), nullable=True),
        sa.Column(
            "to_name", sa.String(length=128), nullable=True, comment="null: what the configuration names, or no shadow"
        ),
        sa.Column("to_sha256", sa.String(length=64), nullable=True),
        sa.Column("to_card_sha256", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_table(
        "shadow_scores",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("candidate_sha256", sa.String(length=64), nullable=False, comment="weights that were scored beside"),
        sa.Column("candidate_card_sha256", sa.String(length=64), nullable=False),
        sa.Column("candidate_name", sa.String(length=128), nullable=False),
        sa.Column("candidate_quality", sa.Float(), nullable=True, comment="null: not scored"),
        sa.Column("candidate_verdict", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True, comment="why the candidate has no score"),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False, comment="of the series' own assessment"),
        sa.Column("quality", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("station_name", sa.String(length=16), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("scored_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(
            "series_instance_uid",
            "revision",
            "candidate_sha256",
            "candidate_card_sha256",
            name=op.f("pk_shadow_scores"),
        ),
    )
