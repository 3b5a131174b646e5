"""Ratings of experts, and the tables that they came in."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables."""
    _create_rating_imports()
    _create_ratings()


def _create_rating_imports() -> None:
    op.create_table(
        "rating_imports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="over the file and its layout"),
        sa.Column("imported_at", sa.Float(), nullable=False),
        sa.Column("imported_by", sa.String(length=64), nullable=False),
        sa.Column("withdrawn_at", sa.Float(), nullable=True, comment="since when its rows count no more"),
        sa.Column("withdrawn_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rating_imports")),
    )
    with op.batch_alter_table("rating_imports", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rating_imports_sha256"), ["sha256"], unique=False)


def _create_ratings() -> None:
    op.create_table(
        "ratings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("import_id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column(
            "sop_instance_uid",
            sa.String(length=64),
            nullable=True,
            comment="of the image that was rated; null: the series",
        ),
        sa.Column("study_id", sa.String(length=64), nullable=False),
        sa.Column("criterion", sa.String(length=16), nullable=False),
        sa.Column("reader_id", sa.String(length=64), nullable=False, comment="a pseudonym"),
        sa.Column("score", sa.Float(), nullable=False, comment="as given"),
        sa.Column("scale_min", sa.Float(), nullable=False),
        sa.Column("scale_max", sa.Float(), nullable=False),
        sa.Column("scale_direction", sa.String(length=16), nullable=False),
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("read_at", sa.String(length=40), nullable=True),
        sa.Column("experience_years", sa.Float(), nullable=True),
        sa.Column("reader_group", sa.String(length=64), nullable=True),
        sa.Column("display_window", sa.String(length=64), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("usable", sa.Boolean(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True, comment="never leaves the node"),
        sa.ForeignKeyConstraint(["import_id"], ["rating_imports.id"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ratings")),
    )
    with op.batch_alter_table("ratings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ratings_import_id"), ["import_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_ratings_series_instance_uid"), ["series_instance_uid"], unique=False)
