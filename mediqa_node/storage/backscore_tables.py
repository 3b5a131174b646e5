"""Sets of series that are back-scored, and what became of each series."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

UNDER_WAY = "state IN ('waiting', 'queued')"
"""The condition of a partial index, word for word: a query has to state it so."""

backscore_sets = sa.Table(
    "backscore_sets",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("made_by", sa.String(64), nullable=False),
    sa.Column("selection", sa.JSON, nullable=False, comment="domain.backscore.Selection"),
    sa.Column("weights_name", sa.String(128), nullable=False, comment="the checkpoint that was active at the start"),
    sa.Column("weights_sha256", sa.String(64), nullable=False),
    sa.Column("card_sha256", sa.String(64), nullable=False),
    sa.Column("with_reports", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(12), nullable=False, comment="domain.backscore.SetState"),
    sa.Column("pause_reason", sa.String(32), comment="domain.backscore.PauseReason"),
    sa.Column("total", sa.Integer, nullable=False, comment="series selected at the start"),
    sa.Column("n_taken", sa.Integer, nullable=False, comment="series taken from the index so far"),
    sa.Column("cursor", UID, nullable=False, comment="UID up to which the index was read; empty: not begun"),
    sa.Column("done_at", sa.Float, comment="done or cancelled"),
)

backscore_items = sa.Table(
    "backscore_items",
    metadata,
    sa.Column("set_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("series_instance_uid", UID, primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False, comment="of the content when it was taken"),
    sa.Column("state", sa.String(12), nullable=False, comment="domain.backscore.ItemState"),
    sa.Column("reason_code", sa.String(32), comment="domain.series.ReasonCode"),
    sa.Column("reason", sa.Text, comment="detail of the reason, for people"),
    sa.Column("job", sa.String(120), comment="the durable job that works on it, if any"),
    sa.Column("n_jobs", sa.Integer, nullable=False, comment="jobs so far; makes each job's name its own"),
    sa.Column("revision", sa.Integer, comment="scored: the assessment it made; alongside: the one it is kept next to"),
    sa.Column("quality", sa.Float),
    sa.Column("verdict", sa.String(16)),
    sa.Column("trained", sa.Boolean),
    sa.Column("done_at", sa.Float),
    sa.Index("ix_backscore_items_series_instance_uid", "series_instance_uid"),
    sa.Index("ix_backscore_items_outcomes", "set_id", "state", "reason_code"),
    sa.Index("ix_backscore_items_done", "set_id", "done_at"),
    sa.Index(
        "ix_backscore_items_under_way",
        "state",
        sqlite_where=sa.text(UNDER_WAY),
        postgresql_where=sa.text(UNDER_WAY),
    ),
)
