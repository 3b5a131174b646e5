"""Sets of series that are back-scored, and what became of each series."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0015"
down_revision = "v02_0014"

_UID = sa.String(64)


def upgrade() -> None:
    """Create both tables, empty."""
    op.create_table(
        "backscore_sets",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("selection", sa.JSON, nullable=False, comment="domain.backscore.Selection"),
        sa.Column(
            "weights_name", sa.String(128), nullable=False, comment="the checkpoint that was active at the start"
        ),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("card_sha256", sa.String(64), nullable=False),
        sa.Column("with_reports", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(12), nullable=False, comment="domain.backscore.SetState"),
        sa.Column("pause_reason", sa.String(32), comment="domain.backscore.PauseReason"),
        sa.Column("total", sa.Integer, nullable=False, comment="series selected at the start"),
        sa.Column("n_taken", sa.Integer, nullable=False, comment="series taken from the index so far"),
        sa.Column("cursor", _UID, nullable=False, comment="UID up to which the index was read; empty: not begun"),
        sa.Column("done_at", sa.Float, comment="done or cancelled"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backscore_sets")),
    )
    _create_items()


def _create_items() -> None:
    op.create_table(
        "backscore_items",
        sa.Column("set_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("series_instance_uid", _UID, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False, comment="of the content when it was taken"),
        sa.Column("state", sa.String(12), nullable=False, comment="domain.backscore.ItemState"),
        sa.Column("reason_code", sa.String(32), comment="domain.series.ReasonCode"),
        sa.Column("reason", sa.Text, comment="detail of the reason, for people"),
        sa.Column("job", sa.String(120), comment="the durable job that works on it, if any"),
        sa.Column("n_jobs", sa.Integer, nullable=False, comment="jobs so far; makes each job's name its own"),
        sa.Column(
            "revision", sa.Integer, comment="scored: the assessment it made; alongside: the one it is kept next to"
        ),
        sa.Column("quality", sa.Float),
        sa.Column("verdict", sa.String(16)),
        sa.Column("trained", sa.Boolean),
        sa.Column("done_at", sa.Float),
        sa.PrimaryKeyConstraint("set_id", "series_instance_uid", name=op.f("pk_backscore_items")),
    )
    op.create_index(op.f("ix_backscore_items_series_instance_uid"), "backscore_items", ["series_instance_uid"])
    op.create_index("ix_backscore_items_outcomes", "backscore_items", ["set_id", "state", "reason_code"])
    op.create_index("ix_backscore_items_done", "backscore_items", ["set_id", "done_at"])
    under_way = sa.text("state IN ('waiting', 'queued')")
    op.create_index(
        "ix_backscore_items_under_way",
        "backscore_items",
        ["state"],
        sqlite_where=under_way,
        postgresql_where=under_way,
    )
