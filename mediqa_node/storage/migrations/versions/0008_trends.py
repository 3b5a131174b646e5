"""Trends: charts, strata, points and alarms that the courier keeps; baselines and events that people add."""

import sqlalchemy as sa
from alembic import op

revision = "v02_0008"
down_revision = "v02_0007"


def upgrade() -> None:
    """Create the tables; the courier makes the points of every entry of the worklist, the oldest change first."""
    op.create_table(
        "trend_charts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("scanner", sa.String(64), nullable=False),
        sa.Column("protocol", sa.String(64), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False, comment="domain.trends"),
        sa.Column("last_at", sa.Float, comment="of its newest point"),
        sa.Column("changes", sa.Integer, nullable=False, comment="raised with points, baselines and events"),
        sa.Column("judged_changes", sa.Integer, nullable=False, comment="changes that its alarms take account of"),
        sa.Column("judged_at", sa.Float),
        sa.Column("state", sa.String(12), nullable=False, comment="domain.trends.ChartState, of its last phase"),
        sa.Column("false_rate", sa.Float, nullable=False, comment="expected false alarms for each of its points"),
        sa.Column(
            "recent", sa.JSON, nullable=False, comment="its last points in sigma and their EWMA, for a small picture"
        ),
        sa.UniqueConstraint(
            "scanner", "protocol", "modality", "quantity", name="uq_trend_charts_scanner_protocol_modality_quantity"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trend_charts"),
    )
    op.create_table(
        "trend_strata",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("chart_id", sa.Integer, sa.ForeignKey("trend_charts.id"), nullable=False),
        sa.Column("size_class", sa.String(32), nullable=False),
        sa.Column("reconstruction", sa.String(128), nullable=False, comment="kernel, class, thickness"),
        sa.Column("stack", sa.String(200), nullable=False, comment="echo, b-value, phase"),
        sa.Column("phantom_cm", sa.Float, comment="that CTDIvol refers to"),
        sa.Column("limit_code", sa.String(32), nullable=False, comment="domain.measures.Limit, or empty"),
        sa.Column("basis", sa.String(80), nullable=False, comment="weights, or method and its version"),
        sa.Column("is_comparable", sa.Boolean, nullable=False, comment="false: shown and never judged"),
        sa.PrimaryKeyConstraint("id", name="pk_trend_strata"),
    )
    op.create_index("ix_trend_strata_chart_id", "trend_strata", ["chart_id"])
    op.create_table(
        "trend_points",
        sa.Column("series", sa.Integer, nullable=False, autoincrement=False, comment="worklist.id"),
        sa.Column("chart_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("stratum_id", sa.Integer, nullable=False),
        sa.Column("study", sa.Integer, nullable=False, comment="the smallest worklist.id of its study"),
        sa.Column("at", sa.Float, nullable=False, comment="acquisition, else reception"),
        sa.Column("value", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("series", "chart_id", name="pk_trend_points"),
    )
    op.create_index("ix_trend_points_chart_id_at", "trend_points", ["chart_id", "at"])
    op.create_table(
        "trend_alarms",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("chart_id", sa.Integer, sa.ForeignKey("trend_charts.id"), nullable=False),
        sa.Column("rule", sa.String(2), nullable=False, comment="domain.control_chart.Rule"),
        sa.Column("since", sa.Float, nullable=False, comment="of the point where it was first broken"),
        sa.Column("until", sa.Float, nullable=False, comment="of the last one in a row"),
        sa.Column("series", sa.Integer, nullable=False, comment="of the first point"),
        sa.Column("n_points", sa.Integer, nullable=False),
        sa.Column("worst", sa.Float, nullable=False, comment="sigma; EWMA: three times its share of the limit"),
        sa.Column("is_provisional", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trend_alarms"),
    )
    op.create_index("ix_trend_alarms_until", "trend_alarms", ["until"])
    op.create_index("ix_trend_alarms_chart_id", "trend_alarms", ["chart_id"])
    op.create_table(
        "trend_baselines",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("chart_id", sa.Integer, sa.ForeignKey("trend_charts.id"), nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False, comment="not included"),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("withdrawn_at", sa.Float),
        sa.Column("withdrawn_by", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_trend_baselines"),
    )
    op.create_index("ix_trend_baselines_chart_id", "trend_baselines", ["chart_id"])
    op.create_table(
        "trend_events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False, comment="domain.trends.EventKind"),
        sa.Column("scanner", sa.String(64), nullable=False, comment="empty: all"),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("starts_phase", sa.Boolean, nullable=False),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("withdrawn_at", sa.Float),
        sa.Column("withdrawn_by", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_trend_events"),
    )
    op.create_table(
        "trend_cursors",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="always 1"),
        sa.Column("change", sa.Integer, nullable=False, comment="worklist.change up to which points were made"),
        sa.PrimaryKeyConstraint("id", name="pk_trend_cursors"),
    )
    op.execute("INSERT INTO trend_cursors (id, change) VALUES (1, 0)")
