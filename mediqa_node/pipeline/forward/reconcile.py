"""Compare, study by study, what senders were answered for with what a destination holds.

The destination is asked by C-FIND at the level of images (PS3.4 C.6.2.1). A study is looked at an hour after the last
of it was sent, and again every day while anything is missing.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import structlog

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable
from mediqa_node.domain.forward import ForwardReason, ForwardState, Reconciled
from mediqa_node.network.peer_link import PeerLink
from mediqa_node.network.sender import connect, study_query
from mediqa_node.pipeline.forward.context import ForwardContext
from mediqa_node.storage import forwards, reconciliations
from mediqa_node.storage.reconciliations import Reconciliation

_FAILURES_AT_MOST = 3
"""Studies in a row about which a destination did not answer: it is left alone until the next time."""

log = structlog.get_logger("forwarder")

RECONCILE_EVERY_S = 600.0
_AFTER_S = 3600.0
_AGAIN_AFTER_S = 86_400.0
_LOOK_BACK_S = 8 * 86_400.0


def reconcile_due(context: ForwardContext, stopping: Callable[[], bool] = lambda: False) -> int:
    """Look at every study that is due, at every destination; return how many are not complete there."""
    now = context.clock()
    incomplete = 0
    for name in sorted(context.destinations):
        with context.database.read() as connection:
            studies = reconciliations.studies_due(
                connection,
                name,
                sent_after=now - _LOOK_BACK_S,
                sent_before=now - _AFTER_S,
                again_before=now - _AGAIN_AFTER_S,
            )
        found = reconcile(context, name, studies, stopping)
        incomplete += sum(one.outcome is not Reconciled.COMPLETE for one in found)
    return incomplete


def studies_sent(
    context: ForwardContext, *, since: float, destination: str | None = None, only: Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Return the studies of which something was sent since a time, by destination.

    Args:
        only: these studies, whenever they were sent.
    """
    with context.database.read() as connection:
        names = [destination] if destination else reconciliations.destinations(connection)
        return {
            name: list(only) if only else reconciliations.studies_sent(connection, name, since=since) for name in names
        }


def reconcile(
    context: ForwardContext, name: str, studies: Iterable[str], stopping: Callable[[], bool] = lambda: False
) -> list[Reconciliation]:
    """Ask a destination about studies over one association, keep and return what was found."""
    peer = context.peer(name)
    wanted = list(studies)
    if peer is None or not wanted:
        return []
    found, failed_in_a_row = [], 0
    with ExitStack() as stack:
        link: PeerLink | None = None
        for study in wanted:
            if stopping() or failed_in_a_row == _FAILURES_AT_MOST:
                break
            try:
                if link is None:
                    timeout_s = context.delivery.timeout_s
                    opened = connect(peer, [study_query()], ae_title=context.ae_title, timeout_s=timeout_s)
                    link = stack.enter_context(opened)
                found.append(_compare(context, link, name, study))
                failed_in_a_row = 0
            except (PeerUnavailable, PeerRefused) as error:  # of this study; the next may be answered
                found.append(_row(context, name, study, Reconciled.UNANSWERED, 0, [], str(error)))
                failed_in_a_row += 1
                link = None
                stack.close()
    for one in found:
        reconciliations.keep(context.database, one)
        if one.outcome is Reconciled.MISSING:
            log.error("instances are missing", destination=name, study=one.study_instance_uid, missing=len(one.missing))
    return found


def _compare(context: ForwardContext, link: PeerLink, name: str, study: str) -> Reconciliation:
    with context.database.read() as connection:
        expected = reconciliations.expected(connection, name, study)
    n_expected = sum(map(len, expected.values()))
    missing: list[str] = []
    for series, instances in expected.items():
        held = link.find_instances(study, series)
        if held is None:
            words = "it answers no C-FIND at the level of images"
            return _row(context, name, study, Reconciled.UNANSWERED, n_expected, [], words)
        missing += [uid for uid in instances if uid not in held]
    outcome = Reconciled.MISSING if missing else Reconciled.COMPLETE
    return _row(context, name, study, outcome, n_expected, missing)


def _row(
    context: ForwardContext,
    name: str,
    study: str,
    outcome: Reconciled,
    n_expected: int,
    missing: list[str],
    message: str = "",
) -> Reconciliation:
    return Reconciliation(
        destination=name,
        study_instance_uid=study,
        checked_at=context.clock(),
        outcome=outcome,
        n_expected=n_expected,
        n_found=n_expected - len(missing),
        missing=missing,
        message=message,
    )


def send_again(context: ForwardContext, found: Iterable[Reconciliation]) -> int:
    """Have the forwarder send again what is missing at a destination; return how many instances that is."""
    count = 0
    with context.database.write() as connection:
        for one in (one for one in found if one.outcome is Reconciled.MISSING):
            ids = reconciliations.sent_of(connection, one.destination, one.missing)
            count += forwards.update(
                connection,
                ids,
                state=ForwardState.WAITING,
                reason_code=ForwardReason.SENT_AGAIN,
                message="missing at the destination",
                priority=forwards.AS_CORRECTION_OR_BACKFILL,
                not_before=context.clock(),
                done_at=None,
            )
    return count
