"""The tables of the reading room, and the site's calibrations.

Ratings are only added: one that a reader took back stays, with the time when it was undone.
"""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID, metadata

reading_studies = sa.Table(
    "reading_studies",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
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
)

reading_cases = sa.Table(
    "reading_cases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer, sa.ForeignKey("reading_studies.id"), nullable=False),
    sa.Column("series_instance_uid", UID, nullable=False, index=True),
    sa.Column("revision", sa.Integer, nullable=False, comment="of the assessment whose slices are shown"),
    sa.UniqueConstraint("study_id", "series_instance_uid"),
)

reading_examples = sa.Table(
    "reading_examples",
    metadata,
    sa.Column("study_id", sa.Integer, sa.ForeignKey("reading_studies.id"), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False, comment="on the ladder, from 1"),
    sa.Column("series_instance_uid", UID, nullable=False, index=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("value", sa.Integer, nullable=False, comment="the agreed rating"),
)

reading_readers = sa.Table(
    "reading_readers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer, sa.ForeignKey("reading_studies.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False, comment="user name; rating tables have reader-NUMBER"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("seed", sa.String(200), nullable=False, comment="of this reader's order"),
    sa.Column("began_at", sa.Float, nullable=False),
    sa.UniqueConstraint("study_id", "name"),
    sa.UniqueConstraint("study_id", "number"),
)

reading_places = sa.Table(
    "reading_places",
    metadata,
    sa.Column("reader_id", sa.Integer, sa.ForeignKey("reading_readers.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False, comment="in this reader's order, from 1"),
    sa.Column("case_id", sa.Integer, sa.ForeignKey("reading_cases.id"), nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False, comment="1, or 2 for the second reading of a case"),
)

reading_ratings = sa.Table(
    "reading_ratings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("reader_id", sa.Integer, sa.ForeignKey("reading_readers.id"), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("criterion", sa.String(16), nullable=False),
    sa.Column("value", sa.Integer, comment="null: the reader could not rate the case"),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("window", sa.String(64), nullable=False, comment="in which the reader saw it"),
    sa.Column("took_s", sa.Float),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("undone_at", sa.Float),
    sa.Index(
        "ux_reading_ratings_standing",
        "reader_id",
        "position",
        "criterion",
        unique=True,
        sqlite_where=sa.text("undone_at IS NULL"),
        postgresql_where=sa.text("undone_at IS NULL"),
    ),
)

calibrations = sa.Table(
    "calibrations",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True, comment="as reports name it"),
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
    sa.Column("study_id", sa.Integer, sa.ForeignKey("reading_studies.id")),
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
)
