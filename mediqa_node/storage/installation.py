"""Which data folder belongs to this database."""

import sqlalchemy as sa

from mediqa_node.storage.cluster_tables import installation
from mediqa_node.storage.database import Database


def identity(connection: sa.Connection) -> dict[str, str] | None:
    """Return device UID and serial number of the installation; None on a new database."""
    found: dict[str, str] | None = connection.execute(sa.select(installation.c.identity)).scalar_one_or_none()
    return found


def set_identity(database: Database, connection: sa.Connection, identity: dict[str, str]) -> None:
    """Keep the identity that the data folder has."""
    connection.execute(database.insert_or_ignore(installation, id=1, identity=identity))
