"""Promotion of a checkpoint after a trial on the reference set, and rollback.

Reports that exist do not change; a later revision names the weights that scored it. The worker restarts between
two series to apply a decision: a process scores with one checkpoint from its first job to its last.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from mediqa_node.domain.assessment import Calibration
from mediqa_node.domain.constancy import Check, CheckedBy
from mediqa_node.domain.errors import PromotionRefused
from mediqa_node.domain.promotion import Action, Promotion, Weights, Who
from mediqa_node.pipeline.checks.constancy import tried
from mediqa_node.pipeline.score import Assessor
from mediqa_node.storage import constancy_checks, promotions
from mediqa_node.storage.database import Connection, Database

log = structlog.get_logger("promotion")


def promote(
    database: Database, candidate: Weights, assessor: Assessor, *, configured: Weights, who: Who, software_version: str
) -> tuple[Promotion, Check]:
    """Make a checkpoint of the store active, provided that it reproduces the reference scores in its card.

    If the card has none, the current scores become the baseline of this site. Scores of a candidate that fails are
    not recorded: if only its card differs, they would look like a drift of the active weights.

    Args:
        assessor: the candidate, loaded.
        configured: the checkpoint of the configuration, active while nothing is promoted.

    Raises:
        PromotionRefused: it is active already, or failed on the reference set.
    """
    with database.read() as connection:
        _check_new(candidate, promotions.standing(connection).current or configured)
    found = tried(assessor, database, software_version=software_version, at=who.at, made_by=CheckedBy.COMMAND)
    if not found.passed:
        raise PromotionRefused(f"{candidate.label} was not promoted: {found.finding()}. The active checkpoint stays")
    with database.write() as connection:
        promotions.lock(connection)
        before = promotions.standing(connection).current or configured
        _check_new(candidate, before)
        found = replace(found, id=constancy_checks.save_check(connection, found))
        made = _save(connection, Action.PROMOTE, who, before=before, after=candidate)
    return made, found


def _check_new(candidate: Weights, current: Weights) -> None:
    if candidate.same_as(current):
        raise PromotionRefused(f"{candidate.label} is active already, as {current.name!r}")


def roll_back(database: Database, *, to: Weights, decision: int | None, who: Who) -> Promotion:
    """Restore the checkpoint that the last promotion replaced; each rollback goes one step further back.

    Args:
        to: the checkpoint that was active before `decision`, promoted or configured; already loaded once.
        decision: the number of the promotion or rollback that was current then.

    Raises:
        PromotionRefused: there is nothing to roll back, or there was another decision meanwhile.
    """
    with database.write() as connection:
        promotions.lock(connection)
        known = promotions.standing(connection)
        if not known.can_roll_back:
            raise PromotionRefused(
                "there is no promotion to roll back: the checkpoint named by `model.checkpoint` is active"
            )
        if known.since is None or known.since.id != decision:
            raise PromotionRefused(
                "another decision was recorded meanwhile, so nothing was rolled back; see `mediqa-node model list`"
            )
        return _save(connection, Action.ROLLBACK, who, before=known.current, after=to)


def set_shadow(database: Database, candidate: Weights | None, *, configured: Weights, who: Who) -> Promotion:
    """Score with a checkpoint of the store in shadow from now on; None: end the shadow.

    Raises:
        PromotionRefused: it is active or in shadow already, or there is no shadow to end.
    """
    with database.write() as connection:
        promotions.lock(connection)
        known = promotions.standing(connection)
        if candidate is not None:
            _check_new(candidate, known.current or configured)
        if candidate.same_as(known.shadow) if candidate is not None else known.shadow is None:
            said = f"{candidate.label} is in shadow already" if candidate else "nothing is in shadow"
            raise PromotionRefused(said)
        action = Action.SHADOW if candidate is not None else Action.UNSHADOW
        return _save(connection, action, who, before=known.shadow, after=candidate)


def _save(connection: Connection, action: str, who: Who, *, before: Weights | None, after: Weights | None) -> Promotion:
    made = Promotion(action=action, at=who.at, by=who.by, reason=who.reason, before=before, after=after)
    made = replace(made, id=promotions.save(connection, made))
    log.warning(
        "weights decided",
        action=action,
        by=who.by,
        before=before.label if before else None,
        after=after.label if after else None,
    )
    return made


def void_calibrations(calibrations: Sequence[Calibration], decision: Promotion) -> list[Calibration]:
    """Return the calibration records that a decision voids: they name the weights and card before it."""
    before, after = decision.before, decision.after
    if before is None or after is None or before.same_as(after):
        return []
    return [record for record in calibrations if record.made_for(before.sha256, before.card_sha256)]
