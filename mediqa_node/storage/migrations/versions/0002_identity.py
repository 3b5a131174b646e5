"""Keep who an image names, which notes reject it, which reports to take back, and how the clock ran."""

import json

import sqlalchemy as sa
from alembic import op

revision = "v02_0002"
down_revision = "v02_0001"

_UID = sa.String(64)
_KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def upgrade() -> None:
    """Add columns and tables; keep the dose events and rejections that are known."""
    op.add_column("instances", sa.Column("peer_address", sa.String(64), nullable=False, server_default=""))
    op.add_column(
        "instances",
        sa.Column("identity", sa.JSON, comment="domain.identity.Identity; null: received before it was kept"),
    )
    op.add_column(
        "instances",
        sa.Column(
            "content_digest", sa.String(64), comment="of geometry and pixels, or of a document; outlives the file"
        ),
    )
    op.add_column(
        "instances",
        sa.Column("unread", sa.Boolean, nullable=False, server_default=sa.false(), comment="a document to be read yet"),
    )
    op.create_index(
        "ix_instances_unread",
        "instances",
        ["unread"],
        sqlite_where=sa.text("unread = 1"),
        postgresql_where=sa.text("unread"),
    )
    where = sa.text("status IN ('conflict', 'disputed')")
    columns = ["series_instance_uid", "status"]
    op.create_index("ix_instances_open", "instances", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "sender_addresses",
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("first_seen", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("calling_ae_title", "address", name=op.f("pk_sender_addresses")),
    )
    _key_dose_events_by_study_and_sender()
    _key_rejections_by_note()
    op.create_table(
        "corrections",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String(64), nullable=False, comment="a person, or the AE title of the sender"),
        sa.Column("action", sa.String(16), nullable=False, comment="domain.series.CopyDecision"),
        sa.Column("series_instance_uid", _UID, nullable=False),
        sa.Column("copies", sa.JSON, nullable=False, comment="ids of those kept, and of those set aside"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_corrections")),
    )
    op.create_index(op.f("ix_corrections_series_instance_uid"), "corrections", ["series_instance_uid"])
    op.create_table(
        "retractions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("series_instance_uid", _UID, nullable=False, comment="of the images"),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("report_sop_instance_uid", _UID, nullable=False, comment="the last report that stands there"),
        sa.Column("reason", sa.String(16), nullable=False, comment="domain.series.VoidReason"),
        sa.Column("state", sa.String(12), nullable=False, comment="domain.series.DeliveryState"),
        sa.Column("message", sa.Text, comment="for people"),
        sa.Column("status", sa.Integer, comment="DIMSE status of the last attempt"),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("done_at", sa.Float),
        sa.Column("sop_instance_uid", _UID, comment="of the void report or note; null: not built yet"),
        sa.Column("sr_series_instance_uid", _UID, comment="its series"),
        sa.Column("instance_number", sa.Integer),
        sa.Column("part10", sa.LargeBinary, comment="built once, never regenerated"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retractions")),
        sa.UniqueConstraint(
            "report_sop_instance_uid", "destination", name=op.f("uq_retractions_report_sop_instance_uid_destination")
        ),
    )
    op.create_index(op.f("ix_retractions_series_instance_uid"), "retractions", ["series_instance_uid"])
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer, nullable=False, comment="1: the clock of the courier's machine"),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("offset_s", sa.Float, nullable=False, comment="wall clock minus boot clock"),
        sa.Column("seen_at", sa.Float, nullable=False, comment="wall clock when this was written"),
        sa.Column("step_s", sa.Float, comment="the last step, positive: set forward"),
        sa.Column("stepped_at", sa.Float, comment="wall clock after it"),
        sa.Column("paused_until", sa.Float, comment="until when nothing is deleted or given up"),
        sa.Column("confirmed_by", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )


def _key_dose_events_by_study_and_sender() -> None:
    kept = op.get_bind().execute(sa.text("SELECT * FROM dose_events")).mappings().all()
    op.drop_table("dose_events")
    events = op.create_table(
        "dose_events",
        sa.Column("irradiation_event_uid", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("event", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint(
            "irradiation_event_uid", "study_instance_uid", "calling_ae_title", name=op.f("pk_dose_events")
        ),
    )
    op.bulk_insert(events, [{**row, "event": _json(row["event"]), "calling_ae_title": ""} for row in kept])


def _key_rejections_by_note() -> None:
    """Have the notes that are kept read again; images that they have rejected stay rejected."""
    notes = sa.table("instances", sa.column("unread"), sa.column("sop_class_uid"), sa.column("purged_at"))
    kept = (notes.c.sop_class_uid == _KEY_OBJECTS, notes.c.purged_at.is_(None))
    op.execute(sa.update(notes).where(*kept).values(unread=sa.true()))
    op.drop_table("rejected_instances")
    op.create_table(
        "rejected_instances",
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("note_sop_instance_uid", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False, comment="of the images, as the note states it"),
        sa.Column("code", sa.String(16), nullable=False, comment="title of the Key Object Selection, e.g. 113001"),
        sa.Column("calling_ae_title", sa.String(16), nullable=False, comment="of the note"),
        sa.Column("peer_address", sa.String(64), nullable=False, comment="of the note"),
        sa.Column("identity", sa.JSON, comment="of the note; null: received before it was kept"),
        sa.PrimaryKeyConstraint(
            "sop_instance_uid",
            "note_sop_instance_uid",
            "calling_ae_title",
            "peer_address",
            name=op.f("pk_rejected_instances"),
        ),
    )


def _json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value
