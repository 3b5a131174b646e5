"""The tables of the workbench: entries of the worklist, people and their answers, actions, and the audit trail.

Two triggers note in `series_changes` which series has changed, so that no writer can forget to. The courier makes the
entry of each anew and deletes the note: a note that is committed late is found late, and none is passed over.
"""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

series_changes = sa.Table(
    "series_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("series_instance_uid", UID, nullable=False),
)

worklist = sa.Table(
    "worklist",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, comment="in the order of arrival; part of addresses of pages"),
    sa.Column("series_instance_uid", UID, nullable=False, unique=True),
    sa.Column("study_instance_uid", UID, nullable=False, index=True),
    sa.Column("change", sa.Integer, nullable=False, unique=True, comment="raised by each change, in order of commits"),
    sa.Column("generation", sa.Integer, nullable=False, comment="of the content that was described"),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False, index=True, comment="first image"),
    sa.Column("last_image_at", sa.Float, nullable=False),
    sa.Column("n_images", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("category", sa.String(16), nullable=False, comment="domain.worklist.Category"),
    sa.Column("reason_code", sa.String(32)),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("scanner", sa.String(64), nullable=False),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("protocol", sa.String(64), nullable=False),
    sa.Column("description", sa.String(64), nullable=False),
    sa.Column("series_number", sa.Integer),
    sa.Column("sender", sa.String(16), nullable=False),
    sa.Column("accession_end", sa.String(4), nullable=False, comment="last four characters"),
    sa.Column("laterality", sa.String(1), nullable=False),
    sa.Column("acquired", sa.String(32), nullable=False),
    sa.Column("region", sa.String(16), nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("trained", sa.Boolean, nullable=False),
    sa.Column("weights_sha256", sa.String(64), nullable=False),
    sa.Column("provisional_until", sa.Float),
    sa.Column("usual_low", sa.Float),
    sa.Column("usual_median", sa.Float),
    sa.Column("usual_high", sa.Float),
    sa.Column("usual_n", sa.Integer),
    sa.Column("review_below", sa.Float),
    sa.Column("borderline_below", sa.Float),
    sa.Column("why", sa.String(40), nullable=False),
    sa.Column("why_more", sa.Text, nullable=False),
    sa.Column("predicted_low", sa.Float),
    sa.Column("predicted_high", sa.Float),
    sa.Column("recorded", sa.Float),
    sa.Column("unit", sa.String(8), nullable=False),
    sa.Column("eligible", sa.Boolean, nullable=False, comment="its label is fit for training"),
    sa.Column("exclusions", sa.String(200), nullable=False, comment="codes, why it is not, separated by spaces"),
    sa.Column("delivery", sa.String(12)),
    sa.Column("destination", sa.String(64), nullable=False),
    sa.Column("delivered_in_s", sa.Float),
    sa.Column("answer", sa.String(16), comment="domain.worklist.AnswerKind"),
    sa.Column("answered_at", sa.Float),
    sa.Column("search", sa.String(500), nullable=False, comment="what a search looks in, lower case"),
    sa.Index("ix_worklist_protocol", "protocol"),
    sa.Index("ix_worklist_room", "scanner", "id"),
    sa.Index("ix_worklist_usual", "scanner", "protocol", "modality", "weights_sha256", "id"),
    sa.Index("ix_worklist_labels", "modality", "scanner", "eligible", "exclusions", "recorded"),
    sa.Index("ix_worklist_counts", "category", "answer", "received_at", "modality", "scanner", "protocol"),
)

delivery_attempts = sa.Table(
    "delivery_attempts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("delivery_id", sa.Integer, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("state", sa.String(12), nullable=False, comment="domain.series.DeliveryState, after the attempt"),
    sa.Column("reason_code", sa.String(32), comment="domain.series.DeliveryReason"),
    sa.Column("status", sa.Integer, comment="DIMSE status"),
    sa.Column("message", sa.Text, nullable=False, comment="for people"),
)

answers = sa.Table(
    "answers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("series_instance_uid", UID, nullable=False, index=True),
    sa.Column("revision", sa.Integer, nullable=False, comment="of the assessment that was answered"),
    sa.Column("kind", sa.String(16), nullable=False, comment="domain.worklist.AnswerKind"),
    sa.Column("reason", sa.String(64), nullable=False, comment="as chosen by the person; may be empty"),
    sa.Column("by", sa.String(64), nullable=False, comment="user name, or name of the room"),
    sa.Column("initials", sa.String(8), nullable=False, comment="on a room's shared tablet"),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("category", sa.String(16), nullable=False, comment="of the entry when it was answered"),
    sa.Column("score", sa.Float),
    sa.Column("why", sa.String(40), nullable=False),
    sa.Column("scanner", sa.String(64), nullable=False),
    sa.Column("protocol", sa.String(64), nullable=False),
    sa.Column("modality", sa.String(16), nullable=False),
    sa.Column("undone_at", sa.Float),
    sa.Column("undone_by", sa.String(64)),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("role", sa.String(16), nullable=False, comment="domain.access.Role"),
    sa.Column("password", sa.String(200), nullable=False, comment="argon2id"),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("made_by", sa.String(64), nullable=False),
    sa.Column("disabled_at", sa.Float),
    sa.Column("n_failures", sa.Integer, nullable=False, comment="since the last success"),
    sa.Column("locked_until", sa.Float),
    sa.Column("last_at", sa.Float, comment="last sign-in"),
)

rooms = sa.Table(
    "rooms",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("scanners", sa.JSON, nullable=False, comment="names of the scanners that its tablet shows"),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("made_by", sa.String(64), nullable=False),
    sa.Column("code_sha256", sa.String(64), comment="of the one-time code; null: used, or revoked"),
    sa.Column("code_until", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("revoked_by", sa.String(64)),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("token_sha256", sa.String(64), nullable=False, unique=True, comment="of a 256-bit token"),
    sa.Column("kind", sa.String(8), nullable=False, comment="browser or token (API)"),
    sa.Column("label", sa.String(64), nullable=False, comment="name of an API token"),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), index=True),
    sa.Column("room_id", sa.Integer, sa.ForeignKey("rooms.id"), index=True),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("broke_glass_at", sa.Float, comment="identifiers are shown to this session, with a reason on record"),
    sa.Column("ended_at", sa.Float),
)

events = sa.Table(
    "audit_events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("by", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("action", sa.String(32), nullable=False, index=True),
    sa.Column("outcome", sa.String(8), nullable=False, comment="domain.access.Outcome"),
    sa.Column("object", sa.String(64), nullable=False, comment="number or name of what it was done to"),
    sa.Column("detail", sa.Text, nullable=False, comment="never a patient"),
)

commands = sa.Table(
    "commands",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("by", sa.String(64), nullable=False),
    sa.Column("action", sa.String(32), nullable=False, comment="pipeline.commands"),
    sa.Column("arguments", sa.JSON, nullable=False),
    sa.Column("state", sa.String(8), nullable=False, index=True, comment="domain.commands.CommandState"),
    sa.Column("started_at", sa.Float),
    sa.Column("done_at", sa.Float),
    sa.Column("progress", sa.Float, comment="0..1"),
    sa.Column("result", sa.Text, nullable=False, comment="for people"),
)
