"""The workbench: entries of the worklist, people and their answers, actions, and the audit trail."""

import sqlalchemy as sa
from alembic import op

from mediqa_node.storage.workbench_tables import (
    answers,
    commands,
    delivery_attempts,
    events,
    rooms,
    series_changes,
    sessions,
    users,
    worklist,
)

revision = "v02_0007"
down_revision = "v02_0006"

_CHANGED = (
    "NEW.state <> OLD.state OR NEW.revision <> OLD.revision OR NEW.generation <> OLD.generation AND "
    "NEW.state <> 'RECEIVING' OR coalesce(NEW.reason_code, '') <> coalesce(OLD.reason_code, '')"
)
_SQLITE = (
    ("series_added", "AFTER INSERT ON series", ""),
    ("series_changed", "AFTER UPDATE ON series", f"WHEN {_CHANGED}"),
    ("delivery_added", "AFTER INSERT ON deliveries", ""),
    ("delivery_changed", "AFTER UPDATE OF state ON deliveries", "WHEN NEW.state <> OLD.state"),
)


def upgrade() -> None:
    """Create tables and triggers, and note every series: the courier makes their entries, the oldest first."""
    connection = op.get_bind()
    for table in (series_changes, worklist, delivery_attempts, answers, users, rooms, sessions, events, commands):
        table.create(connection)
    if connection.dialect.name == "sqlite":
        for name, when, condition in _SQLITE:
            op.execute(
                f"CREATE TRIGGER {name} {when} {condition} BEGIN "
                f"INSERT INTO series_changes (series_instance_uid) VALUES (NEW.series_instance_uid); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION note_series_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO series_changes (series_instance_uid) VALUES (NEW.series_instance_uid); RETURN NULL; END $$"
        )
        for name, when, condition in _SQLITE:
            row = condition.replace("WHEN ", "WHEN (") + ")" if condition else ""
            op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW {row} EXECUTE FUNCTION note_series_change()")
    series = sa.table("series", sa.column("series_instance_uid"), sa.column("last_instance_at"))
    known = sa.select(series.c.series_instance_uid).order_by(series.c.last_instance_at)
    op.execute(sa.insert(series_changes).from_select(["series_instance_uid"], known))
