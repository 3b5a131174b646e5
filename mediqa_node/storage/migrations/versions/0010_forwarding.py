"""Forwarding: instances on their way to destinations, what these accept, and reconciliation; the called AE title."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0010"
down_revision = "v02_0009"


def upgrade() -> None:
    """Create the tables; nothing that was received before is forwarded."""
    op.add_column(
        "series",
        sa.Column("called_ae_title", sa.String(16), nullable=False, server_default="", comment="by its first instance"),
    )
    op.create_table(
        "forwards",
        sa.Column("id", sa.Integer, nullable=False, comment="in order of arrival"),
        sa.Column("instance_id", sa.Integer, nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
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
        sa.Column(
            "n_uncommitted", sa.Integer, nullable=False, server_default="0", comment="answers that it is not kept"
        ),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_forwards_instance_id_instances")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forwards")),
        sa.UniqueConstraint("instance_id", "destination", name=op.f("uq_forwards_instance_id_destination")),
    )
    for name, columns, where in (
        ("unfinished", ["destination", "priority", "id"], "state = 'waiting'"),
        ("held", ["state"], "state IN ('held', 'parked')"),
        ("ask_at", ["destination", "ask_at"], "ask_at IS NOT NULL"),
    ):
        condition = sa.text(where)
        op.create_index(f"ix_forwards_{name}", "forwards", columns, sqlite_where=condition, postgresql_where=condition)
    op.create_index("ix_forwards_destination_done_at", "forwards", ["destination", "done_at"])
    for first in ("series_instance_uid", "study_instance_uid"):
        op.create_index(f"ix_forwards_{first}_destination", "forwards", [first, "destination"])
    op.create_table(
        "accepted_contexts",
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("contexts", sa.JSON, nullable=False, comment="transfer syntaxes by SOP class"),
        sa.Column("probed_at", sa.Float, nullable=False),
        sa.Column("stale", sa.Boolean, nullable=False, comment="it has refused what it accepted before"),
        sa.PrimaryKeyConstraint("peer", name=op.f("pk_accepted_contexts")),
    )
    op.create_table(
        "reconciliations",
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("checked_at", sa.Float, nullable=False),
        sa.Column("outcome", sa.String(12), nullable=False, comment="domain.forward.Reconciled"),
        sa.Column("n_expected", sa.Integer, nullable=False, comment="instances that senders got 0x0000 for"),
        sa.Column("n_found", sa.Integer, nullable=False, comment="of these, at the destination"),
        sa.Column("missing", sa.JSON, nullable=False, comment="SOP Instance UIDs, at most 100"),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("destination", "study_instance_uid", name=op.f("pk_reconciliations")),
    )
    op.create_index("ix_reconciliations_outcome", "reconciliations", ["outcome"])
