"""The reading room: studies, cases, readers, their orders and ratings; and the site's calibrations."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0009"
down_revision = "v02_0008"


def upgrade() -> None:
    """Create the tables; calibrations of the configuration are imported when the node is next prepared."""
    op.create_table(
        "reading_studies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("question", sa.Text, nullable=False, comment="what readers are told"),
        sa.Column("criteria", sa.JSON, nullable=False, comment="pairs of criterion and question"),
        sa.Column("points", sa.JSON, nullable=False, comment="of the scale: pairs of value and label"),
        sa.Column("direction", sa.String(16), nullable=False, comment="domain.rating.DIRECTIONS"),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("repeats", sa.Float, nullable=False, comment="share of the cases that come twice"),
        sa.Column("readers", sa.JSON, nullable=False, comment="user names; empty: all readers"),
        sa.Column("chosen", sa.Text, nullable=False, comment="how the cases were chosen, for people"),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("closed_at", sa.Float),
        sa.Column("closed_by", sa.String(64)),
        sa.Column("import_id", sa.Integer, comment="of rating_imports; null: its ratings are not used for training"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reading_studies")),
    )
    op.create_table(
        "reading_cases",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, comment="of the assessment whose slices are shown"),
        sa.ForeignKeyConstraint(
            ["study_id"], ["reading_studies.id"], name=op.f("fk_reading_cases_study_id_reading_studies")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reading_cases")),
        sa.UniqueConstraint(
            "study_id", "series_instance_uid", name=op.f("uq_reading_cases_study_id_series_instance_uid")
        ),
    )
    op.create_index(op.f("ix_reading_cases_series_instance_uid"), "reading_cases", ["series_instance_uid"])
    op.create_table(
        "reading_examples",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("place", sa.Integer, nullable=False, autoincrement=False, comment="on the ladder, from 1"),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("value", sa.Integer, nullable=False, comment="the agreed rating"),
        sa.ForeignKeyConstraint(
            ["study_id"], ["reading_studies.id"], name=op.f("fk_reading_examples_study_id_reading_studies")
        ),
        sa.PrimaryKeyConstraint("study_id", "place", name=op.f("pk_reading_examples")),
    )
    op.create_index(op.f("ix_reading_examples_series_instance_uid"), "reading_examples", ["series_instance_uid"])
    _readers()
    _calibrations()


def _readers() -> None:
    op.create_table(
        "reading_readers",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False, comment="user name; rating tables have reader-NUMBER"),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("seed", sa.String(200), nullable=False, comment="of this reader's order"),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["reading_studies.id"], name=op.f("fk_reading_readers_study_id_reading_studies")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reading_readers")),
        sa.UniqueConstraint("study_id", "name", name=op.f("uq_reading_readers_study_id_name")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_reading_readers_study_id_number")),
    )
    op.create_table(
        "reading_places",
        sa.Column("reader_id", sa.Integer, nullable=False),
        sa.Column(
            "position", sa.Integer, nullable=False, autoincrement=False, comment="in this reader's order, from 1"
        ),
        sa.Column("case_id", sa.Integer, nullable=False),
        sa.Column("repeat", sa.Integer, nullable=False, comment="1, or 2 for the second reading of a case"),
        sa.ForeignKeyConstraint(
            ["reader_id"], ["reading_readers.id"], name=op.f("fk_reading_places_reader_id_reading_readers")
        ),
        sa.ForeignKeyConstraint(
            ["case_id"], ["reading_cases.id"], name=op.f("fk_reading_places_case_id_reading_cases")
        ),
        sa.PrimaryKeyConstraint("reader_id", "position", name=op.f("pk_reading_places")),
    )
    op.create_table(
        "reading_ratings",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("reader_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("criterion", sa.String(16), nullable=False),
        sa.Column("value", sa.Integer, comment="null: the reader could not rate the case"),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("window", sa.String(64), nullable=False, comment="in which the reader saw it"),
        sa.Column("took_s", sa.Float),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("undone_at", sa.Float),
        sa.ForeignKeyConstraint(
            ["reader_id"], ["reading_readers.id"], name=op.f("fk_reading_ratings_reader_id_reading_readers")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reading_ratings")),
    )
    standing = sa.text("undone_at IS NULL")
    op.create_index(
        "ux_reading_ratings_standing",
        "reading_ratings",
        ["reader_id", "position", "criterion"],
        unique=True,
        sqlite_where=standing,
        postgresql_where=standing,
    )


def _calibrations() -> None:
    op.create_table(
        "calibrations",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False, comment="as reports name it"),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("station_name", sa.String(64), nullable=False, comment="* for any"),
        sa.Column("protocol_name", sa.String(64), nullable=False, comment="* for any"),
        sa.Column("borderline_below", sa.Float, nullable=False, comment="threshold on Q, 0..1"),
        sa.Column("review_below", sa.Float, nullable=False),
        sa.Column("n_series", sa.Integer, nullable=False),
        sa.Column("n_readers", sa.Integer, nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("card_sha256", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False, comment="of the preprocessing"),
        sa.Column("source", sa.String(16), nullable=False, comment="configuration or study"),
        sa.Column("study_id", sa.Integer),
        sa.Column("basis", sa.JSON, nullable=False, comment="points and fit behind the thresholds"),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("approved_at", sa.Float),
        sa.Column("approved_by", sa.String(64)),
        sa.Column("approved_role", sa.String(16), nullable=False, comment="of the approver, then"),
        sa.Column("approved_on", sa.String(32), nullable=False, comment="date; of the configuration as it was written"),
        sa.Column("withdrawn_at", sa.Float),
        sa.Column("withdrawn_by", sa.String(64)),
        sa.Column("withdrawn_why", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["reading_studies.id"], name=op.f("fk_calibrations_study_id_reading_studies")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_calibrations")),
        sa.UniqueConstraint("id", name=op.f("uq_calibrations_id")),
    )
