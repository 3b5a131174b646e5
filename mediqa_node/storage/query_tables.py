"""The node's own objects as others may query them, and what they have asked to be moved."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

own_objects = sa.Table(
    "own_objects",
    metadata,
    sa.Column("sop_instance_uid", UID, primary_key=True),
    sa.Column("study_instance_uid", UID, nullable=False, index=True),
    sa.Column("series_instance_uid", UID, nullable=False, comment="of the images"),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("attributes", sa.JSON, nullable=False, comment="domain.query.KEYS of its header"),
)

retrieved = sa.Table(
    "retrieved",
    metadata,
    sa.Column("sop_instance_uid", UID, primary_key=True, comment="of a report"),
    sa.Column("destination", sa.String(64), primary_key=True, comment="that may hold it since"),
    sa.Column("at", sa.Float, nullable=False),
)

moves = sa.Table(
    "moves",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("message_id", sa.Integer, nullable=False),
    sa.Column("destination", sa.String(64), nullable=False, comment="name of a configured peer"),
    sa.Column("sop_instance_uids", sa.JSON, nullable=False),
    sa.Column("state", sa.String(12), nullable=False, index=True, comment="domain.query.MoveState"),
    sa.Column("completed", sa.Integer, nullable=False),
    sa.Column("warning", sa.Integer, nullable=False),
    sa.Column("failed", sa.JSON, nullable=False, comment="SOP Instance UIDs that were not sent"),
    sa.Column("asked_at", sa.Float, nullable=False),
)
