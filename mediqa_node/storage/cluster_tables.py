"""Tables of a node that runs on several hosts."""

import sqlalchemy as sa

from mediqa_node.storage.tables import associations, metadata

_OPEN = sa.text("closed_at IS NULL")

sa.Index("ix_associations_open", associations.c.host_id, sqlite_where=_OPEN, postgresql_where=_OPEN)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True, comment="of a process, or of a role that one fills for all"),
    sa.Column("token", sa.Integer, nullable=False, comment="raised whenever the lease is taken"),
    sa.Column("holder", sa.String(32), nullable=False, comment="name of the process"),
    sa.Column("machine", sa.String(255), nullable=False),
    sa.Column("until", sa.Float, nullable=False, comment="by the clock of the database; 0: given back"),
)

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("sweeps", sa.JSON, nullable=False, comment="domain.health.Sweep by name"),
    sa.Column("n_associations", sa.Integer, comment="open ones, of a receiver"),
    sa.Column("max_associations", sa.Integer),
    sa.Column("stands_by", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("ended_at", sa.Float, comment="it was asked to stop"),
)

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("identity", sa.JSON, nullable=False, comment="what identity.json of the data folder says"),
)

compatibility = sa.Table(
    "compatibility",
    metadata,
    sa.Column("revision", sa.String(16), primary_key=True, comment="of the tables"),
    sa.Column("usable_from", sa.String(16), nullable=False, comment="oldest revision whose version works with these"),
)
