"""The tables of measured quantities and of what is usual for them at this site."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

measured_stacks = sa.Table(
    "measured_stacks",
    metadata,
    sa.Column("series_instance_uid", UID, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True, comment="of the content that was measured"),
    sa.Column("study_instance_uid", UID, nullable=False),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("scanner", sa.String(64), nullable=False),
    sa.Column("protocol", sa.String(64), nullable=False),
    sa.Column("stack", sa.String(200), nullable=False, comment="echo, b-value, phase"),
    sa.Column("size_class", sa.String(32), nullable=False),
    sa.Column("body_part", sa.String(8)),
    sa.Column("kernel", sa.String(64), nullable=False),
    sa.Column("recon_class", sa.String(16), nullable=False),
    sa.Column("thickness_mm", sa.Float),
    sa.Column("ctdi_vol_mgy", sa.Float),
    sa.Column("ctdi_phantom_cm", sa.Float),
    sa.Column("acquired", sa.String(32), nullable=False),
    sa.Column("frames", sa.JSON, nullable=False, comment="slices measured at full resolution"),
    sa.Column("measured_at", sa.Float, nullable=False, index=True),
)

measures = sa.Table(
    "measures",
    metadata,
    sa.Column("series_instance_uid", UID, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True, comment="domain.quantities"),
    sa.Column("value", sa.Float, comment="null: not measurable"),
    sa.Column("unit", sa.String(32), nullable=False, comment="UCUM"),
    sa.Column("uncertainty", sa.Float, comment="standard uncertainty, k = 1"),
    sa.Column("spread", sa.Float, comment="interquartile range over slices"),
    sa.Column("n", sa.Integer, nullable=False, comment="slices"),
    sa.Column("validity", sa.String(16), nullable=False, comment="domain.measures.Validity"),
    sa.Column("limit_code", sa.String(32), comment="domain.measures.Limit"),
    sa.Column("detail", sa.Text, nullable=False, comment="numbers of the limit, for people"),
    sa.Column("method", sa.String(64), nullable=False),
    sa.Column("method_version", sa.Integer, nullable=False),
    sa.Column("citation", sa.String(200), nullable=False),
)

baselines = sa.Table(
    "baselines",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("made_by", sa.String(64), nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("approved_at", sa.Float, comment="null: not used for any comparison"),
    sa.Column("approved_by", sa.String(64)),
    sa.Column("withdrawn_at", sa.Float, comment="since when it is used no more"),
    sa.Column("withdrawn_by", sa.String(64)),
)

usual_values = sa.Table(
    "usual_values",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("baseline_id", sa.Integer, sa.ForeignKey("baselines.id"), nullable=False, index=True),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("scanner", sa.String(64), nullable=False),
    sa.Column("protocol", sa.String(64), nullable=False),
    sa.Column("stack", sa.String(200), nullable=False),
    sa.Column("kernel", sa.String(64), nullable=False),
    sa.Column("recon_class", sa.String(16), nullable=False),
    sa.Column("thickness", sa.String(16), nullable=False),
    sa.Column("size_class", sa.String(32), nullable=False),
    sa.Column("name", sa.String(64), nullable=False, comment="domain.quantities"),
    sa.Column("method", sa.String(64), nullable=False),
    sa.Column("method_version", sa.Integer, nullable=False),
    sa.Column("limit_code", sa.String(32), nullable=False, comment="domain.measures.Limit, or empty"),
    sa.Column("n", sa.Integer, nullable=False, comment="exams"),
    sa.Column("median", sa.Float, nullable=False),
    sa.Column("spread", sa.Float, nullable=False, comment="robust standard deviation over exams"),
    sa.Column("mean", sa.Float, nullable=False, comment="of values, or of their logarithms"),
    sa.Column("sd", sa.Float, nullable=False),
    sa.Column("logarithmic", sa.Boolean, nullable=False),
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("high", sa.Float, nullable=False),
)
