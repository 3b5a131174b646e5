"""Several hosts on one database: leases, a heartbeat of each process, the data folder, whose association it is."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0013"
down_revision = "v02_0012"


def upgrade() -> None:
    """Add columns and tables; version 0.2 without hosts goes on beside this one, and what it leaves is taken over."""
    op.add_column(
        "associations",
        sa.Column("host_id", sa.String(32), comment="whose receiver has it; null: of a node on one host"),
    )
    op.add_column(
        "constancy_checks",
        sa.Column("host_id", sa.String(32), comment="that checked; null: of a node on one host"),
    )
    op.create_index(
        op.f("ix_associations_open"),
        "associations",
        ["host_id"],
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    leases = op.create_table(
        "leases",
        sa.Column("name", sa.String(32), nullable=False, comment="of a process, or of a role that one fills for all"),
        sa.Column("token", sa.Integer, nullable=False, comment="raised whenever the lease is taken"),
        sa.Column("holder", sa.String(32), nullable=False, comment="name of the process"),
        sa.Column("machine", sa.String(255), nullable=False),
        sa.Column("until", sa.Float, nullable=False, comment="by the clock of the database; 0: given back"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    # what a node of the version before leaves unfinished is taken over as if its lease had run out
    roles = op.get_bind().execute(sa.text("SELECT role FROM heartbeats WHERE role IN ('receiver', 'worker')")).scalars()
    past = [{"name": name, "token": 0, "holder": name, "machine": "", "until": 1.0} for name in roles]
    if past:
        op.bulk_insert(leases, past)
    op.create_table(
        "processes",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("sweeps", sa.JSON, nullable=False, comment="domain.health.Sweep by name"),
        sa.Column("n_associations", sa.Integer, comment="open ones, of a receiver"),
        sa.Column("max_associations", sa.Integer),
        sa.Column("stands_by", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("ended_at", sa.Float, comment="it was asked to stop"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_processes")),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("identity", sa.JSON, nullable=False, comment="what identity.json of the data folder says"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.create_table(
        "compatibility",
        sa.Column("revision", sa.String(16), nullable=False, comment="of the tables"),
        sa.Column(
            "usable_from", sa.String(16), nullable=False, comment="oldest revision whose version works with these"
        ),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_compatibility")),
    )
