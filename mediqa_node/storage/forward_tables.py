"""The tables of forwarding: one row for each instance and destination, what destinations accept, and reconciliation."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

forwards = sa.Table(
    "forwards",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, comment="in order of arrival"),
    sa.Column("instance_id", sa.Integer, sa.ForeignKey("instances.id"), nullable=False),
    sa.Column("destination", sa.String(64), nullable=False),
    sa.Column("series_instance_uid", UID, nullable=False),
    sa.Column("study_instance_uid", UID, nullable=False),
    sa.Column("state", sa.String(12), nullable=False, comment="domain.forward.ForwardState"),
    sa.Column("reason_code", sa.String(32), comment="domain.forward.ForwardReason"),
    sa.Column("message", sa.Text, comment="detail of the reason, for people"),
    sa.Column("priority", sa.Integer, nullable=False, comment="domain.forward.Priority"),
    sa.Column("not_before", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("status", sa.Integer, comment="DIMSE status of the last attempt"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("done_at", sa.Float, comment="when it was sent, or ended otherwise"),
    sa.Column("ask_at", sa.Float, comment="when its archive is asked to commit; null: it need not, or has"),
    sa.Column("n_uncommitted", sa.Integer, nullable=False, server_default="0", comment="answers that it is not kept"),
    sa.UniqueConstraint("instance_id", "destination"),
    sa.Index(
        "ix_forwards_unfinished",
        "destination",
        "priority",
        "id",
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    ),
    sa.Index(
        "ix_forwards_held",
        "state",
        sqlite_where=sa.text("state IN ('held', 'parked')"),
        postgresql_where=sa.text("state IN ('held', 'parked')"),
    ),
    sa.Index(
        "ix_forwards_ask_at",
        "destination",
        "ask_at",
        sqlite_where=sa.text("ask_at IS NOT NULL"),
        postgresql_where=sa.text("ask_at IS NOT NULL"),
    ),
    sa.Index("ix_forwards_destination_done_at", "destination", "done_at"),
    sa.Index("ix_forwards_series_instance_uid_destination", "series_instance_uid", "destination"),
    sa.Index("ix_forwards_study_instance_uid_destination", "study_instance_uid", "destination"),
)

accepted_contexts = sa.Table(
    "accepted_contexts",
    metadata,
    sa.Column("peer", sa.String(64), primary_key=True),
    sa.Column("contexts", sa.JSON, nullable=False, comment="transfer syntaxes by SOP class"),
    sa.Column("probed_at", sa.Float, nullable=False),
    sa.Column("stale", sa.Boolean, nullable=False, comment="it has refused what it accepted before"),
)

reconciliations = sa.Table(
    "reconciliations",
    metadata,
    sa.Column("destination", sa.String(64), primary_key=True),
    sa.Column("study_instance_uid", UID, primary_key=True),
    sa.Column("checked_at", sa.Float, nullable=False),
    sa.Column("outcome", sa.String(12), nullable=False, comment="domain.forward.Reconciled"),
    sa.Column("n_expected", sa.Integer, nullable=False, comment="instances that senders got 0x0000 for"),
    sa.Column("n_found", sa.Integer, nullable=False, comment="of these, at the destination"),
    sa.Column("missing", sa.JSON, nullable=False, comment="SOP Instance UIDs, at most 100"),
    sa.Column("message", sa.Text, nullable=False),
    sa.Index("ix_reconciliations_outcome", "outcome"),
)
