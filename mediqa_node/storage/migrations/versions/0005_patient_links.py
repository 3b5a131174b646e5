"""Whom exports have found to be one person under several Patient IDs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "patient_links",
        sa.Column("link", sa.String(length=64), nullable=False, comment="pseudonym of an acquisition or of pixels"),
        sa.Column("patient_key", sa.String(length=64), nullable=False, comment="pseudonym"),
        sa.Column("first_seen", sa.Float(), nullable=False, comment="when the first of the patient's series came"),
        sa.PrimaryKeyConstraint("link", "patient_key", name=op.f("pk_patient_links")),
    )
