"""The tables of Storage Commitment (PS3.4 annex J): what we ask of archives, and what callers ask of us."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

commitments = sa.Table(
    "commitments",
    metadata,
    sa.Column("transaction_uid", UID, primary_key=True, comment="(0008,1195), ours, fresh for each request"),
    sa.Column("peer", sa.String(64), nullable=False, comment="name of the archive"),
    sa.Column("request_id", sa.Integer, comment="of the caller's request that it is about; null: what we have sent"),
    sa.Column("begun_at", sa.Float, nullable=False, comment="committed before the request leaves"),
    sa.Column("asked_at", sa.Float, comment="when the archive took the request"),
    sa.Column("answered_at", sa.Float, comment="of the last N-EVENT-REPORT that had something new"),
    sa.Column("settled_at", sa.Float, comment="what follows from that answer is done"),
    sa.Index(
        "ix_commitments_unsettled",
        "answered_at",
        sqlite_where=sa.text("settled_at IS NULL"),
        postgresql_where=sa.text("settled_at IS NULL"),
    ),
)

commitment_items = sa.Table(
    "commitment_items",
    metadata,
    sa.Column("transaction_uid", UID, sa.ForeignKey("commitments.transaction_uid"), primary_key=True),
    sa.Column("sop_instance_uid", UID, primary_key=True),
    sa.Column("sop_class_uid", UID, nullable=False),
    sa.Column("result", sa.Integer, comment="0: kept by the archive; else its failure reason; null: no answer"),
)

report_commitments = sa.Table(
    "report_commitments",
    metadata,
    sa.Column("delivery_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("since", sa.Float, nullable=False, comment="when the archive was first asked about this report"),
    sa.Column("ask_at", sa.Float, comment="when it is asked again; null: no more"),
    sa.Column("n_failures", sa.Integer, nullable=False, comment="answers that it does not keep it"),
)

commitment_requests = sa.Table(
    "commitment_requests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("transaction_uid", UID, nullable=False, comment="of the caller"),
    sa.Column("peer", sa.String(64), nullable=False, comment="name of the archive that has to commit"),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("deadline_at", sa.Float, nullable=False, comment="then what the archive left open has failed"),
    sa.Column("ask_at", sa.Float, nullable=False, comment="when the archive is asked, or asked again"),
    sa.Column("decided_at", sa.Float, comment="every instance has a result"),
    sa.Column("tell_at", sa.Float, comment="when the caller is told; null: told, given up, or not decided"),
    sa.Column("attempts", sa.Integer, nullable=False, comment="to tell the caller"),
    sa.Column("told_at", sa.Float),
    sa.UniqueConstraint("calling_ae_title", "transaction_uid"),
)

commitment_request_items = sa.Table(
    "commitment_request_items",
    metadata,
    sa.Column("request_id", sa.Integer, sa.ForeignKey("commitment_requests.id"), primary_key=True),
    sa.Column("sop_instance_uid", UID, primary_key=True, index=True),
    sa.Column("sop_class_uid", UID, nullable=False),
    sa.Column("result", sa.Integer, comment="0: kept by the archive; else the failure reason; null: not known yet"),
)
