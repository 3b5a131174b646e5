"""The tables of the trends: charts, their points and alarms, baselines that people chose, and events.

The courier keeps charts, strata, points and alarms; they are derived from what is stored elsewhere and can be made
again. People add baselines and events, which are withdrawn and never deleted. One point is one series; the session that
it belongs to is the number of the first series of its study, so that no UID is repeated a million times.
"""

import sqlalchemy as sa

from mediqa_node.storage.tables import metadata

trend_charts = sa.Table(
    "trend_charts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
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
    sa.UniqueConstraint("scanner", "protocol", "modality", "quantity"),
)

trend_strata = sa.Table(
    "trend_strata",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("chart_id", sa.Integer, sa.ForeignKey("trend_charts.id"), nullable=False),
    sa.Column("size_class", sa.String(32), nullable=False),
    sa.Column("reconstruction", sa.String(128), nullable=False, comment="kernel, class, thickness"),
    sa.Column("stack", sa.String(200), nullable=False, comment="echo, b-value, phase"),
    sa.Column("phantom_cm", sa.Float, comment="that CTDIvol refers to"),
    sa.Column("limit_code", sa.String(32), nullable=False, comment="domain.measures.Limit, or empty"),
    sa.Column("basis", sa.String(80), nullable=False, comment="weights, or method and its version"),
    sa.Column("is_comparable", sa.Boolean, nullable=False, comment="false: shown and never judged"),
    sa.Index("ix_trend_strata_chart_id", "chart_id"),
)

trend_points = sa.Table(
    "trend_points",
    metadata,
    sa.Column("series", sa.Integer, primary_key=True, autoincrement=False, comment="worklist.id"),
    sa.Column("chart_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stratum_id", sa.Integer, nullable=False),
    sa.Column("study", sa.Integer, nullable=False, comment="the smallest worklist.id of its study"),
    sa.Column("at", sa.Float, nullable=False, comment="acquisition, else reception"),
    sa.Column("value", sa.Float, nullable=False),
    sa.Index("ix_trend_points_chart_id_at", "chart_id", "at"),
)

trend_alarms = sa.Table(
    "trend_alarms",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("chart_id", sa.Integer, sa.ForeignKey("trend_charts.id"), nullable=False),
    sa.Column("rule", sa.String(2), nullable=False, comment="domain.control_chart.Rule"),
    sa.Column("since", sa.Float, nullable=False, comment="of the point where it was first broken"),
    sa.Column("until", sa.Float, nullable=False, comment="of the last one in a row"),
    sa.Column("series", sa.Integer, nullable=False, comment="of the first point"),
    sa.Column("n_points", sa.Integer, nullable=False),
    sa.Column("worst", sa.Float, nullable=False, comment="sigma; EWMA: three times its share of the limit"),
    sa.Column("is_provisional", sa.Boolean, nullable=False),
    sa.Index("ix_trend_alarms_until", "until"),
    sa.Index("ix_trend_alarms_chart_id", "chart_id"),
)

trend_baselines = sa.Table(
    "trend_baselines",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("chart_id", sa.Integer, sa.ForeignKey("trend_charts.id"), nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("until", sa.Float, nullable=False, comment="not included"),
    sa.Column("reason", sa.String(200), nullable=False),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("made_by", sa.String(64), nullable=False),
    sa.Column("withdrawn_at", sa.Float),
    sa.Column("withdrawn_by", sa.String(64)),
    sa.Index("ix_trend_baselines_chart_id", "chart_id"),
)

trend_events = sa.Table(
    "trend_events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False, comment="domain.trends.EventKind"),
    sa.Column("scanner", sa.String(64), nullable=False, comment="empty: all"),
    sa.Column("note", sa.String(200), nullable=False),
    sa.Column("starts_phase", sa.Boolean, nullable=False),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("made_by", sa.String(64), nullable=False),
    sa.Column("withdrawn_at", sa.Float),
    sa.Column("withdrawn_by", sa.String(64)),
)

trend_cursors = sa.Table(
    "trend_cursors",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="always 1"),
    sa.Column("change", sa.Integer, nullable=False, comment="worklist.change up to which points were made"),
)
