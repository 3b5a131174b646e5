"""The tables of what has to be put right: identities, reports that were sent under a wrong one, and clocks."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

corrections = sa.Table(
    "corrections",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("by", sa.String(64), nullable=False, comment="a person, or the AE title of the sender"),
    sa.Column("action", sa.String(16), nullable=False, comment="domain.series.CopyDecision"),
    sa.Column("series_instance_uid", UID, nullable=False, index=True),
    sa.Column("copies", sa.JSON, nullable=False, comment="ids of those kept, and of those set aside"),
)

retractions = sa.Table(
    "retractions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("series_instance_uid", UID, nullable=False, index=True, comment="of the images"),
    sa.Column("destination", sa.String(64), nullable=False),
    sa.Column("report_sop_instance_uid", UID, nullable=False, comment="the last report that stands there"),
    sa.Column("reason", sa.String(16), nullable=False, comment="domain.series.VoidReason"),
    sa.Column("state", sa.String(12), nullable=False, comment="domain.series.DeliveryState"),
    sa.Column("message", sa.Text, comment="for people"),
    sa.Column("status", sa.Integer, comment="DIMSE status of the last attempt"),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("not_before", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("done_at", sa.Float),
    sa.Column("sop_instance_uid", UID, comment="of the void report or note; null: not built yet"),
    sa.Column("sr_series_instance_uid", UID, comment="its series"),
    sa.Column("instance_number", sa.Integer),
    sa.Column("part10", sa.LargeBinary, comment="built once, never regenerated"),
    sa.UniqueConstraint("report_sop_instance_uid", "destination"),
)

clock = sa.Table(
    "clock",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, comment="1: the clock of the courier's machine"),
    sa.Column("boot_id", sa.String(64), nullable=False),
    sa.Column("offset_s", sa.Float, nullable=False, comment="wall clock minus boot clock"),
    sa.Column("seen_at", sa.Float, nullable=False, comment="wall clock when this was written"),
    sa.Column("step_s", sa.Float, comment="the last step, positive: set forward"),
    sa.Column("stepped_at", sa.Float, comment="wall clock after it"),
    sa.Column("paused_until", sa.Float, comment="until when nothing is deleted or given up"),
    sa.Column("confirmed_by", sa.String(64)),
)
