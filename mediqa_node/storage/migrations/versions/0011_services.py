"""Storage commitment, asked of archives and asked by callers; procedure steps of modalities."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0011"
down_revision = "v02_0010"


def upgrade() -> None:
    """Create the tables; reports sent in the last days are asked about where a peer has `commitment: true`."""
    op.create_table(
        "commitments",
        sa.Column(
            "transaction_uid", sa.String(64), nullable=False, comment="(0008,1195), ours, fresh for each request"
        ),
        sa.Column("peer", sa.String(64), nullable=False, comment="name of the archive"),
        sa.Column(
            "request_id", sa.Integer, comment="of the caller's request that it is about; null: what we have sent"
        ),
        sa.Column("begun_at", sa.Float, nullable=False, comment="committed before the request leaves"),
        sa.Column("asked_at", sa.Float, comment="when the archive took the request"),
        sa.Column("answered_at", sa.Float, comment="of the last N-EVENT-REPORT that had something new"),
        sa.Column("settled_at", sa.Float, comment="what follows from that answer is done"),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitments")),
    )
    unsettled = sa.text("settled_at IS NULL")
    op.create_index(
        "ix_commitments_unsettled",
        "commitments",
        ["answered_at"],
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )
    op.create_table(
        "commitment_items",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("result", sa.Integer, comment="0: kept by the archive; else its failure reason; null: no answer"),
        sa.ForeignKeyConstraint(
            ["transaction_uid"],
            ["commitments.transaction_uid"],
            name=op.f("fk_commitment_items_transaction_uid_commitments"),
        ),
        sa.PrimaryKeyConstraint("transaction_uid", "sop_instance_uid", name=op.f("pk_commitment_items")),
    )
    op.create_table(
        "report_commitments",
        sa.Column("delivery_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("since", sa.Float, nullable=False, comment="when the archive was first asked about this report"),
        sa.Column("ask_at", sa.Float, comment="when it is asked again; null: no more"),
        sa.Column("n_failures", sa.Integer, nullable=False, comment="answers that it does not keep it"),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_report_commitments")),
    )
    _requests()
    _procedure_steps()


def _procedure_steps() -> None:
    op.create_table(
        "procedure_steps",
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False, comment="who created it, and may update it"),
        sa.Column("status", sa.String(16), nullable=False, comment="domain.procedure_step.StepStatus"),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_procedure_steps")),
    )
    op.create_table(
        "procedure_step_instances",
        sa.Column("step_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["step_uid"],
            ["procedure_steps.sop_instance_uid"],
            name=op.f("fk_procedure_step_instances_step_uid_procedure_steps"),
        ),
        sa.PrimaryKeyConstraint(
            "step_uid", "series_instance_uid", "sop_instance_uid", name=op.f("pk_procedure_step_instances")
        ),
    )
    op.create_index(
        op.f("ix_procedure_step_instances_series_instance_uid"), "procedure_step_instances", ["series_instance_uid"]
    )


def _requests() -> None:
    op.create_table(
        "commitment_requests",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False, comment="of the caller"),
        sa.Column("peer", sa.String(64), nullable=False, comment="name of the archive that has to commit"),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("deadline_at", sa.Float, nullable=False, comment="then what the archive left open has failed"),
        sa.Column("ask_at", sa.Float, nullable=False, comment="when the archive is asked, or asked again"),
        sa.Column("decided_at", sa.Float, comment="every instance has a result"),
        sa.Column("tell_at", sa.Float, comment="when the caller is told; null: told, given up, or not decided"),
        sa.Column("attempts", sa.Integer, nullable=False, comment="to tell the caller"),
        sa.Column("told_at", sa.Float),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_requests")),
        sa.UniqueConstraint(
            "calling_ae_title", "transaction_uid", name=op.f("uq_commitment_requests_calling_ae_title_transaction_uid")
        ),
    )
    op.create_table(
        "commitment_request_items",
        sa.Column("request_id", sa.Integer, nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("result", sa.Integer, comment="0: kept by the archive; else the failure reason; null: not known yet"),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["commitment_requests.id"],
            name=op.f("fk_commitment_request_items_request_id_commitment_requests"),
        ),
        sa.PrimaryKeyConstraint("request_id", "sop_instance_uid", name=op.f("pk_commitment_request_items")),
    )
    op.create_index(
        op.f("ix_commitment_request_items_sop_instance_uid"), "commitment_request_items", ["sop_instance_uid"]
    )
