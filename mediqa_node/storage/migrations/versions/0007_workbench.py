"""The workbench: entries of the worklist, attempts of deliveries, people and their answers, actions, the audit trail."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0007"
down_revision = "v02_0006"

_CHANGED = (
    "NEW.state <> OLD.state OR NEW.revision <> OLD.revision OR NEW.generation <> OLD.generation AND "
    "NEW.state <> 'RECEIVING' OR coalesce(NEW.reason_code, '') <> coalesce(OLD.reason_code, '')"
)
_TRIGGERS = (
    ("series_added", "AFTER INSERT ON series", ""),
    ("series_changed", "AFTER UPDATE ON series", _CHANGED),
    ("delivery_added", "AFTER INSERT ON deliveries", ""),
    ("delivery_changed", "AFTER UPDATE OF state ON deliveries", "NEW.state <> OLD.state"),
)
_NOTE = "INSERT INTO series_changes (series_instance_uid) VALUES (NEW.series_instance_uid)"


def upgrade() -> None:
    """Create tables and triggers, and note every series: the courier makes their entries, the oldest first."""
    _create_tables()
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if not is_sqlite:
        body = f"BEGIN {_NOTE}; RETURN NULL; END"
        op.execute(f"CREATE FUNCTION note_series_change() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
    for name, when, condition in _TRIGGERS:
        only = f"WHEN ({condition})" if condition else ""
        do = f"BEGIN {_NOTE}; END" if is_sqlite else "EXECUTE FUNCTION note_series_change()"
        op.execute(f"CREATE TRIGGER {name} {when} FOR EACH ROW {only} {do}")
    series = sa.table("series", sa.column("series_instance_uid"), sa.column("last_instance_at"))
    changes = sa.table("series_changes", sa.column("series_instance_uid"))
    known = sa.select(series.c.series_instance_uid).order_by(series.c.last_instance_at)
    op.execute(sa.insert(changes).from_select(["series_instance_uid"], known))


def _create_tables() -> None:
    op.create_table(
        "series_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series_changes")),
    )
    op.create_table(
        "worklist",
        sa.Column("id", sa.Integer(), nullable=False, comment="in the order of arrival; part of addresses of pages"),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("change", sa.Integer(), nullable=False, comment="raised by each change, in order of commits"),
        sa.Column("generation", sa.Integer(), nullable=False, comment="of the content that was described"),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False, comment="first image"),
        sa.Column("last_image_at", sa.Float(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=16), nullable=False, comment="domain.worklist.Category"),
        sa.Column("reason_code", sa.String(length=32), nullable=True),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("scanner", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("protocol", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=64), nullable=False),
        sa.Column("series_number", sa.Integer(), nullable=True),
        sa.Column("sender", sa.String(length=16), nullable=False),
        sa.Column("accession_end", sa.String(length=4), nullable=False, comment="last four characters"),
        sa.Column("laterality", sa.String(length=1), nullable=False),
        sa.Column("acquired", sa.String(length=32), nullable=False),
        sa.Column("region", sa.String(length=16), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("trained", sa.Boolean(), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("provisional_until", sa.Float(), nullable=True),
        sa.Column("usual_low", sa.Float(), nullable=True),
        sa.Column("usual_median", sa.Float(), nullable=True),
        sa.Column("usual_high", sa.Float(), nullable=True),
        sa.Column("usual_n", sa.Integer(), nullable=True),
        sa.Column("review_below", sa.Float(), nullable=True),
        sa.Column("borderline_below", sa.Float(), nullable=True),
        sa.Column("why", sa.String(length=40), nullable=False),
        sa.Column("why_more", sa.Text(), nullable=False),
        sa.Column("predicted_low", sa.Float(), nullable=True),
        sa.Column("predicted_high", sa.Float(), nullable=True),
        sa.Column("recorded", sa.Float(), nullable=True),
        sa.Column("unit", sa.String(length=8), nullable=False),
        sa.Column("eligible", sa.Boolean(), nullable=False, comment="its label is fit for training"),
        sa.Column(
            "exclusions", sa.String(length=200), nullable=False, comment="codes, why it is not, separated by spaces"
        ),
        sa.Column("delivery", sa.String(length=12), nullable=True),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("delivered_in_s", sa.Float(), nullable=True),
        sa.Column("answer", sa.String(length=16), nullable=True, comment="domain.worklist.AnswerKind"),
        sa.Column("answered_at", sa.Float(), nullable=True),
        sa.Column("search", sa.String(length=500), nullable=False, comment="what a search looks in, lower case"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worklist")),
        sa.UniqueConstraint("change", name=op.f("uq_worklist_change")),
        sa.UniqueConstraint("series_instance_uid", name=op.f("uq_worklist_series_instance_uid")),
    )
    op.create_index(
        "ix_worklist_counts",
        "worklist",
        ["category", "answer", "received_at", "modality", "scanner", "protocol"],
        unique=False,
    )
    op.create_index(
        "ix_worklist_labels", "worklist", ["modality", "scanner", "eligible", "exclusions", "recorded"], unique=False
    )
    op.create_index("ix_worklist_protocol", "worklist", ["protocol"], unique=False)
    op.create_index(op.f("ix_worklist_received_at"), "worklist", ["received_at"], unique=False)
    op.create_index("ix_worklist_room", "worklist", ["scanner", "id"], unique=False)
    op.create_index(op.f("ix_worklist_study_instance_uid"), "worklist", ["study_instance_uid"], unique=False)
    op.create_index(
        "ix_worklist_usual", "worklist", ["scanner", "protocol", "modality", "weights_sha256", "id"], unique=False
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column(
            "state", sa.String(length=12), nullable=False, comment="domain.series.DeliveryState, after the attempt"
        ),
        sa.Column("reason_code", sa.String(length=32), nullable=True, comment="domain.series.DeliveryReason"),
        sa.Column("status", sa.Integer(), nullable=True, comment="DIMSE status"),
        sa.Column("message", sa.Text(), nullable=False, comment="for people"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_attempts")),
    )
    op.create_index(op.f("ix_delivery_attempts_delivery_id"), "delivery_attempts", ["delivery_id"], unique=False)
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, comment="of the assessment that was answered"),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="domain.worklist.AnswerKind"),
        sa.Column("reason", sa.String(length=64), nullable=False, comment="as chosen by the person; may be empty"),
        sa.Column("by", sa.String(length=64), nullable=False, comment="user name, or name of the room"),
        sa.Column("initials", sa.String(length=8), nullable=False, comment="on a room's shared tablet"),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("category", sa.String(length=16), nullable=False, comment="of the entry when it was answered"),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("why", sa.String(length=40), nullable=False),
        sa.Column("scanner", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("undone_at", sa.Float(), nullable=True),
        sa.Column("undone_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_at"), "answers", ["at"], unique=False)
    op.create_index(op.f("ix_answers_series_instance_uid"), "answers", ["series_instance_uid"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False, comment="domain.access.Role"),
        sa.Column("password", sa.String(length=200), nullable=False, comment="argon2id"),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("made_by", sa.String(length=64), nullable=False),
        sa.Column("disabled_at", sa.Float(), nullable=True),
        sa.Column("n_failures", sa.Integer(), nullable=False, comment="since the last success"),
        sa.Column("locked_until", sa.Float(), nullable=True),
        sa.Column("last_at", sa.Float(), nullable=True, comment="last sign-in"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "rooms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("scanners", sa.JSON(), nullable=False, comment="names of the scanners that its tablet shows"),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("made_by", sa.String(length=64), nullable=False),
        sa.Column(
            "code_sha256", sa.String(length=64), nullable=True, comment="of the one-time code; null: used, or revoked"
        ),
        sa.Column("code_until", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("revoked_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rooms")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False, comment="of a 256-bit token"),
        sa.Column("kind", sa.String(length=8), nullable=False, comment="browser or token (API)"),
        sa.Column("label", sa.String(length=64), nullable=False, comment="name of an API token"),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("room_id", sa.Integer(), nullable=True),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column(
            "broke_glass_at",
            sa.Float(),
            nullable=True,
            comment="identifiers are shown to this session, with a reason on record",
        ),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["room_id"],
            ["rooms.id"],
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_sessions_token_sha256")),
    )
    op.create_index(op.f("ix_sessions_room_id"), "sessions", ["room_id"], unique=False)
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"], unique=False)
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("outcome", sa.String(length=8), nullable=False, comment="domain.access.Outcome"),
        sa.Column("object", sa.String(length=64), nullable=False, comment="number or name of what it was done to"),
        sa.Column("detail", sa.Text(), nullable=False, comment="never a patient"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_action"), "audit_events", ["action"], unique=False)
    op.create_index(op.f("ix_audit_events_at"), "audit_events", ["at"], unique=False)
    op.create_table(
        "commands",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False, comment="pipeline.commands"),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False, comment="domain.commands.CommandState"),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.Column("progress", sa.Float(), nullable=True, comment="0..1"),
        sa.Column("result", sa.Text(), nullable=False, comment="for people"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
    )
    op.create_index(op.f("ix_commands_state"), "commands", ["state"], unique=False)
