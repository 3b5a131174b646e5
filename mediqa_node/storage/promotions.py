"""The record of promotions and of shadow scores."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.promotion import Action, Promotion, ShadowScore, Standing, Weights, standing_after
from mediqa_node.domain.series import SeriesState, parse_state
from mediqa_node.storage.database import take_table
from mediqa_node.storage.tables import assessments, promotions, series, shadow_scores

_DECISION = ("at", "by", "action", "reason")
_SCORE = tuple(name for name in ShadowScore.__dataclass_fields__ if name != "candidate")


def save(connection: sa.Connection, decision: Promotion) -> int:
    """Record a decision; return its number."""
    values = {name: getattr(decision, name) for name in _DECISION}
    for prefix, weights in (("from", decision.before), ("to", decision.after)):
        if weights is not None:
            values |= {f"{prefix}_{name}": getattr(weights, name) for name in Weights.__dataclass_fields__}
    result = connection.execute(sa.insert(promotions).values(**values))
    return int((result.inserted_primary_key or (0,))[0])


def lock(connection: sa.Connection) -> None:
    """Lock the record of decisions until this transaction ends."""
    take_table(connection, promotions)


def history(connection: sa.Connection) -> list[Promotion]:
    """Return all decisions, oldest first."""
    return [
        Promotion(
            id=row.id,
            before=_weights(row, "from"),
            after=_weights(row, "to"),
            **{name: row._mapping[name] for name in _DECISION} | {"action": parse_state(Action, row.action)},
        )
        for row in connection.execute(sa.select(promotions).order_by(promotions.c.id))
    ]


def standing(connection: sa.Connection) -> Standing:
    """Return the active, previous and shadow checkpoints that follow from the decisions."""
    return standing_after(history(connection))


def _weights(row: sa.Row[Any], prefix: str) -> Weights | None:
    name = row._mapping[f"{prefix}_name"]
    digests = {key: row._mapping[f"{prefix}_{key}"] for key in ("sha256", "card_sha256")}
    return Weights(name=name, **digests) if name is not None else None


# ── shadow ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Unshadowed:
    """A series whose latest assessment the candidate has not scored, and whose images are unchanged."""

    series_instance_uid: str
    revision: int
    generation: int
    modality: str
    weights_sha256: str
    quality: float
    verdict: str


def next_to_shadow(connection: sa.Connection, candidate: Weights, *, since: float) -> Unshadowed | None:
    """Return the series that has waited longest for the candidate, or None; None while one awaits its own score.

    Args:
        since: only what was assessed after this, seconds since 1970.
    """
    busy = sa.select(sa.literal(1)).where(series.c.state == SeriesState.READY)
    if connection.execute(busy.limit(1)).first() is not None:
        return None
    asked = sa.select(sa.literal(1)).where(
        shadow_scores.c.series_instance_uid == assessments.c.series_instance_uid,
        shadow_scores.c.revision == assessments.c.revision,
        shadow_scores.c.candidate_sha256 == candidate.sha256,
        shadow_scores.c.candidate_card_sha256 == candidate.card_sha256,
    )
    same = (assessments.c[name] for name in Unshadowed.__dataclass_fields__ if name != "modality")
    query = (
        sa.select(*same, series.c.modality)
        .join(series, series.c.series_instance_uid == assessments.c.series_instance_uid)
        .where(
            series.c.revision == assessments.c.revision,
            series.c.generation == assessments.c.generation,  # else its images are not those that were assessed
            assessments.c.assessed_at >= since,
            ~asked.exists(),
        )
        .order_by(assessments.c.assessed_at)
    )
    row = connection.execute(query.limit(1)).first()
    return Unshadowed(**row._mapping) if row is not None else None


def save_shadow(connection: sa.Connection, score: ShadowScore) -> None:
    """Record the score of the candidate for a series."""
    values = {name: getattr(score, name) for name in _SCORE}
    candidate = {f"candidate_{name}": getattr(score.candidate, name) for name in Weights.__dataclass_fields__}
    connection.execute(sa.insert(shadow_scores).values(**values, **candidate))


def shadow_of(connection: sa.Connection, candidate: Weights) -> list[ShadowScore]:
    """Return a candidate's scores for the latest revision of each series, by station."""
    latest = series.c.revision == shadow_scores.c.revision
    query = (
        sa.select(shadow_scores)
        .join(series, (series.c.series_instance_uid == shadow_scores.c.series_instance_uid) & latest)
        .where(
            shadow_scores.c.candidate_sha256 == candidate.sha256,
            shadow_scores.c.candidate_card_sha256 == candidate.card_sha256,
        )
        .order_by(shadow_scores.c.station_name, shadow_scores.c.scored_at)
    )
    return [
        ShadowScore(candidate=candidate, **{name: row._mapping[name] for name in _SCORE})
        for row in connection.execute(query)
    ]


def last_shadowed(connection: sa.Connection) -> Weights | None:
    """Return the candidate that was set in shadow last, whether it still is or not."""
    shadowed = [decision.after for decision in history(connection) if decision.action == "shadow"]
    return shadowed[-1] if shadowed else None
