"""What was pulled from archives, so that an interrupted pull goes on and a second one skips it."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

pulls = sa.Table(
    "pulls",
    metadata,
    sa.Column("series_instance_uid", UID, primary_key=True),
    sa.Column("study_instance_uid", UID, nullable=False),
    sa.Column("peer", sa.String(64), nullable=False),
    sa.Column("peer_ae_title", sa.String(16), nullable=False, comment="that it sends under"),
    sa.Column("move_destination", sa.String(16), nullable=False, comment="AE title of this node"),
    sa.Column("state", sa.String(12), nullable=False, comment="domain.pull.PullState"),
    sa.Column("n_instances", sa.Integer, comment="that are here since"),
    sa.Column("message", sa.Text, comment="why it failed, for people"),
    sa.Column("asked_at", sa.Float, nullable=False),
    sa.Column("done_at", sa.Float),
)
