"""What is pulled from archives, who had an instance moved here, and what others may query and have moved."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0012"
down_revision = "v02_0011"

_UID = sa.String(64)


def upgrade() -> None:
    """Add columns and tables; whatever was received before was sent live, own objects are listed when first queried."""
    op.add_column(
        "instances",
        sa.Column("move_originator", sa.String(16), comment="AE that had it moved here; null: nobody"),
    )
    op.add_column(
        "series",
        sa.Column("pulled", sa.Boolean, nullable=False, server_default=sa.false(), comment="this node moved it here"),
    )
    op.create_table(
        "pulls",
        sa.Column("series_instance_uid", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("peer_ae_title", sa.String(16), nullable=False, comment="that it sends under"),
        sa.Column("move_destination", sa.String(16), nullable=False, comment="AE title of this node"),
        sa.Column("state", sa.String(12), nullable=False, comment="domain.pull.PullState"),
        sa.Column("n_instances", sa.Integer, comment="that are here since"),
        sa.Column("message", sa.Text, comment="why it failed, for people"),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("done_at", sa.Float),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_pulls")),
    )
    _create_queries()


def _create_queries() -> None:
    op.create_table(
        "own_objects",
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("study_instance_uid", _UID, nullable=False),
        sa.Column("series_instance_uid", _UID, nullable=False, comment="of the images"),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False, comment="domain.query.KEYS of its header"),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_own_objects")),
    )
    op.create_index(op.f("ix_own_objects_study_instance_uid"), "own_objects", ["study_instance_uid"])
    op.create_table(
        "retrieved",
        sa.Column("sop_instance_uid", _UID, nullable=False, comment="of a report"),
        sa.Column("destination", sa.String(64), nullable=False, comment="that may hold it since"),
        sa.Column("at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", "destination", name=op.f("pk_retrieved")),
    )
    op.create_table(
        "moves",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("message_id", sa.Integer, nullable=False),
        sa.Column("destination", sa.String(64), nullable=False, comment="name of a configured peer"),
        sa.Column("sop_instance_uids", sa.JSON, nullable=False),
        sa.Column("state", sa.String(12), nullable=False, comment="domain.query.MoveState"),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("warning", sa.Integer, nullable=False),
        sa.Column("failed", sa.JSON, nullable=False, comment="SOP Instance UIDs that were not sent"),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moves")),
    )
    op.create_index(op.f("ix_moves_state"), "moves", ["state"])
