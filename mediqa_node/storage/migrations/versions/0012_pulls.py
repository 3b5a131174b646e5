"""Series that were pulled from archives, and who had an instance moved here."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0012"
down_revision = "v02_0009"

_UID = sa.String(64)


def upgrade() -> None:
    """Add the columns and the table; whatever was received before was sent live."""
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
