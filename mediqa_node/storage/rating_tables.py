"""Tables of imported ratings."""

import sqlalchemy as sa

from mediqa_node.storage.tables import UID as _UID
from mediqa_node.storage.tables import metadata

rating_imports = sa.Table(
    "rating_imports",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False, index=True, comment="over the file and its layout"),
    sa.Column("imported_at", sa.Float, nullable=False),
    sa.Column("imported_by", sa.String(64), nullable=False),
    sa.Column("withdrawn_at", sa.Float, comment="since when its rows count no more"),
    sa.Column("withdrawn_by", sa.String(64)),
)

ratings = sa.Table(
    "ratings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("import_id", sa.Integer, sa.ForeignKey("rating_imports.id"), nullable=False, index=True),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True),
    sa.Column("sop_instance_uid", _UID, comment="of the image that was rated; null: the series"),
    sa.Column("study_id", sa.String(64), nullable=False),
    sa.Column("criterion", sa.String(16), nullable=False),
    sa.Column("reader_id", sa.String(64), nullable=False, comment="a pseudonym"),
    sa.Column("score", sa.Float, nullable=False, comment="as given"),
    sa.Column("scale_min", sa.Float, nullable=False),
    sa.Column("scale_max", sa.Float, nullable=False),
    sa.Column("scale_direction", sa.String(16), nullable=False),
    sa.Column("session", sa.String(64), nullable=False),
    sa.Column("repeat", sa.Integer, nullable=False),
    sa.Column("read_at", sa.String(40)),
    sa.Column("experience_years", sa.Float),
    sa.Column("reader_group", sa.String(64)),
    sa.Column("display_window", sa.String(64)),
    sa.Column("confidence", sa.Float),
    sa.Column("usable", sa.Boolean),
    sa.Column("comment", sa.Text, comment="never leaves the node"),
)
