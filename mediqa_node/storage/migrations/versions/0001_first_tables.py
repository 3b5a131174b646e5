"""First tables: spool index, labels, outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables, those that others refer to first."""
    _create_acquisitions()
    _create_assessments()
    _create_associations()
    _create_deliveries()
    _create_dose_events()
    _create_frame_techniques()
    _create_rejected_instances()
    _create_reports()
    _create_senders()
    _create_series()
    _create_sr_series_numbers()
    _create_techniques()
    _create_instances()


def _create_acquisitions() -> None:
    op.create_table(
        "acquisitions",
        sa.Column("acquisition_key", sa.String(length=200), nullable=False, comment="shared by its reconstructions"),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False, comment="the one that is scored"),
        sa.PrimaryKeyConstraint("acquisition_key", name=op.f("pk_acquisitions")),
    )


def _create_assessments() -> None:
    op.create_table(
        "assessments",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("quality", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("trained", sa.Boolean(), nullable=False, comment="false: seeded weights, the score has no meaning"),
        sa.Column("assessment", sa.JSON(), nullable=False),
        sa.Column("assessed_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", "revision", name=op.f("pk_assessments")),
    )


def _create_associations() -> None:
    op.create_table(
        "associations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("closed_at", sa.Float(), nullable=True),
        sa.Column(
            "released", sa.Boolean(), nullable=True, comment="ended by A-RELEASE, not by an abort or a lost connection"
        ),
        sa.Column(
            "last_series_uid", sa.String(length=64), nullable=True, comment="the series it is sending, or sent last"
        ),
        sa.Column("last_instance_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_associations")),
    )


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column(
            "state", sa.String(length=12), nullable=False, comment="waiting, sent, parked, withheld or superseded"
        ),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("wait_for_study_until", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("job", sa.String(length=100), nullable=True, comment="the durable job that works on it, if any"),
        sa.Column("jobs", sa.Integer(), nullable=False, comment="jobs so far; makes each job's name its own"),
        sa.Column("report_sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True, comment="DIMSE status of the last attempt"),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "series_instance_uid",
            "revision",
            "destination",
            name=op.f("uq_deliveries_series_instance_uid_revision_destination"),
        ),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_deliveries_series_instance_uid"), ["series_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_deliveries_state"), ["state"], unique=False)


def _create_dose_events() -> None:
    op.create_table(
        "dose_events",
        sa.Column("irradiation_event_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("irradiation_event_uid", name=op.f("pk_dose_events")),
    )


def _create_frame_techniques() -> None:
    op.create_table(
        "frame_techniques",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("frame_number", sa.Integer(), nullable=True),
        sa.Column("z_mm", sa.Float(), nullable=True),
        sa.Column("tube_current_ma", sa.Float(), nullable=True),
        sa.Column("tube_charge_mas", sa.Float(), nullable=True),
        sa.Column("field_strength_t", sa.Float(), nullable=True),
        sa.Column("ctdi_vol_mgy", sa.Float(), nullable=True),
        sa.Column("source", sa.String(length=40), nullable=True),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_frame_techniques")),
    )
    with op.batch_alter_table("frame_techniques", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_frame_techniques_series_instance_uid"), ["series_instance_uid"], unique=False
        )


def _create_rejected_instances() -> None:
    op.create_table(
        "rejected_instances",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column(
            "code", sa.String(length=16), nullable=False, comment="title of the Key Object Selection, e.g. 113001"
        ),
        sa.Column("note_sop_instance_uid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_rejected_instances")),
    )
    with op.batch_alter_table("rejected_instances", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_rejected_instances_series_instance_uid"), ["series_instance_uid"], unique=False
        )


def _create_reports() -> None:
    op.create_table(
        "reports",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False, comment="of the images"),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sr_series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_number", sa.Integer(), nullable=False),
        sa.Column("instance_number", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("part10", sa.LargeBinary(), nullable=False, comment="built once, never regenerated"),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_reports")),
        sa.UniqueConstraint(
            "series_instance_uid",
            "revision",
            "sop_class_uid",
            name=op.f("uq_reports_series_instance_uid_revision_sop_class_uid"),
        ),
    )
    with op.batch_alter_table("reports", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reports_series_instance_uid"), ["series_instance_uid"], unique=False)


def _create_senders() -> None:
    op.create_table(
        "senders",
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column(
            "splits_series", sa.Boolean(), nullable=False, comment="was seen to send one series over two associations"
        ),
        sa.Column("longest_gap_s", sa.Float(), nullable=False, comment="longest pause inside one series"),
        sa.Column("gaps_s", sa.JSON(), nullable=False, comment="the last 200 pauses inside series"),
        sa.PrimaryKeyConstraint("calling_ae_title", name=op.f("pk_senders")),
    )


def _create_series() -> None:
    op.create_table(
        "series",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("completion", sa.String(length=16), nullable=True, comment="announced, contiguous, quiet or forced"),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("association_id", sa.String(length=32), nullable=False, comment="of the last instance"),
        sa.Column("n_associations", sa.Integer(), nullable=False),
        sa.Column("longest_gap_s", sa.Float(), nullable=False),
        sa.Column("opened_at", sa.Float(), nullable=False, comment="(re)opened; `forced` counts from here"),
        sa.Column("last_instance_at", sa.Float(), nullable=False),
        sa.Column("n_instances", sa.Integer(), nullable=False),
        sa.Column(
            "generation", sa.Integer(), nullable=False, comment="counts changes of content; jobs of an older one stop"
        ),
        sa.Column("revision", sa.Integer(), nullable=False, comment="of the last assessment; 0: none yet"),
        sa.Column("state_at", sa.Float(), nullable=False),
        sa.Column("job", sa.String(length=100), nullable=True, comment="the durable job that works on it, if any"),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_series")),
    )
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_series_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_series_study_instance_uid"), ["study_instance_uid"], unique=False)


def _create_sr_series_numbers() -> None:
    op.create_table(
        "sr_series_numbers",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False, comment="of the images"),
        sa.PrimaryKeyConstraint("study_instance_uid", "series_number", name=op.f("pk_sr_series_numbers")),
        sa.UniqueConstraint("series_instance_uid", name=op.f("uq_sr_series_numbers_series_instance_uid")),
    )


def _create_techniques() -> None:
    op.create_table(
        "techniques",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("label_name", sa.String(length=8), nullable=True),
        sa.Column("label_value", sa.Float(), nullable=True),
        sa.Column("source", sa.String(length=40), nullable=True),
        sa.Column("eligible", sa.Boolean(), nullable=False),
        sa.Column("exclusions", sa.Text(), nullable=False),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.Column("technique", sa.JSON(), nullable=False, comment="the whole Technique without its frames"),
        sa.Column("harvested_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_techniques")),
    )


def _create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column(
            "status",
            sa.String(length=12),
            nullable=False,
            comment="current; candidate, then same, superseded, disputed or conflict; rejected",
        ),
        sa.Column("association_id", sa.String(length=32), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("path", sa.String(length=120), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("purged_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["series_instance_uid"],
            ["series.series_instance_uid"],
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
        sa.UniqueConstraint("path", name=op.f("uq_instances_path")),
    )
    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instances_series_instance_uid"), ["series_instance_uid"], unique=False)
        batch_op.create_index("ix_instances_sop_instance_uid_status", ["sop_instance_uid", "status"], unique=False)
        batch_op.create_index(
            "uq_instances_current",
            ["sop_instance_uid"],
            unique=True,
            sqlite_where=sa.text("status = 'current'"),
            postgresql_where=sa.text("status = 'current'"),
        )
