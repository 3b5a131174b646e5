"""Constancy checks, phantom measurements, patch maps, and the DICOM objects that go with a report."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    _create_companions()
    _create_companion_deliveries()
    _add_companions_at()
    _create_constancy_checks()
    _create_patch_maps()
    _create_phantom_measurements()


def _create_companions() -> None:
    op.create_table(
        "companions",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False, comment="of the images"),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("companion_series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("instance_number", sa.Integer(), nullable=False),
        sa.Column(
            "deflated",
            sa.LargeBinary(),
            nullable=True,
            comment="Part 10, zlib; built once, never again; null: after retention",
        ),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_companions")),
    )
    with op.batch_alter_table("companions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_companions_companion_series_instance_uid"), ["companion_series_instance_uid"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_companions_series_instance_uid"), ["series_instance_uid"], unique=False)


def _create_companion_deliveries() -> None:
    op.create_table(
        "companion_deliveries",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False, comment="DIMSE status: stored"),
        sa.Column("sent_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", "destination", name=op.f("pk_companion_deliveries")),
    )


def _add_companions_at() -> None:
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "companions_at",
                sa.Float(),
                nullable=True,
                comment="when a sent report's companions are tried; null: over",
            )
        )
        batch_op.create_index(batch_op.f("ix_deliveries_companions_at"), ["companions_at"], unique=False)


def _create_constancy_checks() -> None:
    op.create_table(
        "constancy_checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("checked_at", sa.Float(), nullable=False),
        sa.Column("software_version", sa.String(length=32), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("execution", sa.String(length=64), nullable=False),
        sa.Column("libraries", sa.Text(), nullable=False, comment="versions that a score rests on, and the processor"),
        sa.Column("scores", sa.JSON(), nullable=False, comment="raw score of each reference series"),
        sa.Column("expected", sa.JSON(), nullable=False, comment="what they were held against"),
        sa.Column("compared_with", sa.String(length=8), nullable=False, comment="card, first or nothing"),
        sa.Column("drift", sa.Float(), nullable=True, comment="largest difference; null: a series was not scored"),
        sa.Column("bound", sa.Float(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True, comment="why the reference set could not be scored"),
        sa.Column("refusals", sa.JSON(), nullable=False, comment="why a reference series has no score"),
        sa.Column("made_by", sa.String(length=8), nullable=False, comment="worker or command"),
        sa.Column("acknowledged_at", sa.Float(), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_constancy_checks")),
    )
    with op.batch_alter_table("constancy_checks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_constancy_checks_checked_at"), ["checked_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_constancy_checks_weights_sha256"), ["weights_sha256"], unique=False)


def _create_patch_maps() -> None:
    op.create_table(
        "patch_maps",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column(
            "npz", sa.LargeBinary(), nullable=False, comment="patch scores and weights of the primary stack's views"
        ),
        sa.PrimaryKeyConstraint("series_instance_uid", "revision", name=op.f("pk_patch_maps")),
    )


def _create_phantom_measurements() -> None:
    op.create_table(
        "phantom_measurements",
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("station_name", sa.String(length=16), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False, comment="the site rule that named it a phantom"),
        sa.Column("acquired_at", sa.String(length=32), nullable=False, comment="acquisition date and time as recorded"),
        sa.Column("mean", sa.Float(), nullable=False),
        sa.Column("noise", sa.Float(), nullable=False),
        sa.Column("uniformity", sa.Float(), nullable=False),
        sa.Column("measurement", sa.JSON(), nullable=False, comment="the whole measurement, slice by slice"),
        sa.Column("measured_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_phantom_measurements")),
    )
