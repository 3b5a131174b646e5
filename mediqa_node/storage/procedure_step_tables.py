"""The tables of Modality Performed Procedure Steps: their states, and the instances they list; nothing of patients."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

procedure_steps = sa.Table(
    "procedure_steps",
    metadata,
    sa.Column("sop_instance_uid", UID, primary_key=True),
    sa.Column("calling_ae_title", sa.String(16), nullable=False, comment="who created it, and may update it"),
    sa.Column("status", sa.String(16), nullable=False, comment="domain.procedure_step.StepStatus"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
)

procedure_step_instances = sa.Table(
    "procedure_step_instances",
    metadata,
    sa.Column("step_uid", UID, sa.ForeignKey("procedure_steps.sop_instance_uid"), primary_key=True),
    sa.Column("series_instance_uid", UID, primary_key=True, index=True),
    sa.Column("sop_instance_uid", UID, primary_key=True),
)
