"""An index for what is kept and what was deleted lately: `status` and retention else read every row."""

from alembic import op

revision = "v02_0014"
down_revision = "v02_0012"


def upgrade() -> None:
    """Create the index; a second for a million instances."""
    op.create_index(op.f("ix_instances_purged_at_size_bytes"), "instances", ["purged_at", "size_bytes"])
