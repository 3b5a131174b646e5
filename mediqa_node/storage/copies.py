"""Copies of one instance: which is current, which wait for a decision, and how it was made.

No decision deletes a copy: one that is set aside stays until retention, and every decision is kept in `corrections`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce

import sqlalchemy as sa

from mediqa_node.domain.identity import EXACT, Identity, IdentityRules, differences, disagreements, merged
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.series import (
    ARRIVED,
    HELD,
    CopyDecision,
    DeliveryReason,
    DeliveryState,
    InstanceStatus,
    Reason,
    ReasonCode,
    SeriesState,
)
from mediqa_node.storage import assessments, index, outbox, retractions
from mediqa_node.storage.correction_tables import corrections
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import INSTANCE, InstanceRow, instance_row
from mediqa_node.storage.tables import OPEN_COPIES, deliveries, instances, sender_addresses, series

OPEN = (InstanceStatus.DISPUTED, InstanceStatus.CONFLICT)
"""Copies that a person, or a correction of the whole series, has to decide on."""
OTHER_PIXELS = "other_pixels"
"""In `corrections.copies`: the images that a decision has replaced by other ones under the same UID."""
_JUDGED = (SeriesState.ASSESSED, SeriesState.DELIVERED, SeriesState.CONFIRMED, SeriesState.WITHHELD)


def candidates(connection: sa.Connection) -> list[InstanceRow]:
    """Return the copies that wait to be compared with the current one."""
    return _rows(connection, instances.c.status == InstanceStatus.CANDIDATE)


def copies_of(connection: sa.Connection, series_instance_uid: str, *statuses: InstanceStatus) -> list[InstanceRow]:
    """Return the copies in these states of every image of a series, in any series, in order of arrival."""
    own = sa.select(instances.c.sop_instance_uid).where(instances.c.series_instance_uid == series_instance_uid)
    return _rows(connection, instances.c.sop_instance_uid.in_(own), instances.c.status.in_(statuses))


def has_status(connection: sa.Connection, series_instance_uid: str, *statuses: InstanceStatus) -> bool:
    """Whether any copy of the series' instances, in any series, has one of these statuses."""
    copies = instances.alias()
    query = (
        sa.select(sa.literal(1))
        .join(copies, copies.c.sop_instance_uid == instances.c.sop_instance_uid)
        .where(instances.c.series_instance_uid == series_instance_uid, copies.c.status.in_(statuses))
    )
    return connection.execute(query.limit(1)).first() is not None


def copies_in(connection: sa.Connection, sop_instance_uid: str, status: InstanceStatus) -> list[InstanceRow]:
    """Return the copies of an instance in a state, in order of arrival; their files may be deleted after retention."""
    return _rows(connection, instances.c.sop_instance_uid == sop_instance_uid, instances.c.status == status)


def copy_in(connection: sa.Connection, sop_instance_uid: str, status: InstanceStatus) -> InstanceRow | None:
    """Return the last copy of an instance in a state, or None; its file may have been deleted after retention."""
    return next(reversed(copies_in(connection, sop_instance_uid, status)), None)


def came_before(connection: sa.Connection, copy: InstanceRow) -> bool:
    """Whether these bytes were set aside before: somebody has decided against them."""
    return any(row.sha256 == copy.sha256 for row in _aside(connection, copy))


SET_ASIDE = (InstanceStatus.SUPERSEDED, InstanceStatus.REJECTED)
"""Copies that somebody has decided against."""


def returns(
    connection: sa.Connection,
    copy: InstanceRow,
    known: InstanceRow,
    rules: IdentityRules = EXACT,
    among: Sequence[InstanceStatus] = SET_ASIDE,
) -> bool:
    """Whether a copy names whom somebody has decided against, in the same bytes or in another form.

    A copy that was set aside only for its descriptions names whom the known one names, and decides nothing.
    """
    return any(
        row.sha256 == copy.sha256
        or (
            _told_apart(row.identity, known.identity)
            and row.identity is not None
            and copy.identity is not None
            and not differences(row.identity, copy.identity, rules)
        )
        for row in _aside(connection, copy, among)
    )


def _aside(
    connection: sa.Connection, copy: InstanceRow, statuses: Sequence[InstanceStatus] = SET_ASIDE
) -> list[InstanceRow]:
    return _rows(connection, instances.c.sop_instance_uid == copy.sop_instance_uid, instances.c.status.in_(statuses))


def first_form(connection: sa.Connection, image: InstanceRow) -> InstanceRow | None:
    """Return the copy of an image that was received first, if an authority has only described it otherwise since."""
    rows = _rows(connection, instances.c.sop_instance_uid == image.sop_instance_uid)
    first = rows[0] if rows else image
    if first.status != InstanceStatus.SUPERSEDED or first.identity is None or image.identity is None:
        return None
    made = sa.select(corrections.c.copies).where(
        corrections.c.series_instance_uid == first.series_instance_uid, corrections.c.action == CopyDecision.AUTHORITY
    )
    by_authority = any(first.id in ids["set_aside"] for ids in connection.execute(made).scalars())
    return first if by_authority and not differences(first.identity, image.identity) else None


def was_set_aside(connection: sa.Connection, sop_instance_uid: str) -> bool:
    """Whether any copy of an instance was set aside."""
    return copy_in(connection, sop_instance_uid, InstanceStatus.SUPERSEDED) is not None


def disputed_series(connection: sa.Connection) -> list[str]:
    """Return the series with copies that name another patient, study or accession."""
    query = sa.select(instances.c.series_instance_uid).where(
        sa.text(OPEN_COPIES), instances.c.status == InstanceStatus.DISPUTED
    )
    return list(connection.execute(query.distinct()).scalars())


def candidate_series(connection: sa.Connection) -> set[str]:
    """Return the series with copies that wait to be compared."""
    query = sa.select(instances.c.series_instance_uid).where(instances.c.status == InstanceStatus.CANDIDATE)
    return set(connection.execute(query.distinct()).scalars())


def is_candidate(connection: sa.Connection, instance_id: int) -> bool:
    """Whether a copy still waits to be compared."""
    query = sa.select(sa.literal(1)).where(
        instances.c.id == instance_id, instances.c.status == InstanceStatus.CANDIDATE
    )
    return connection.execute(query).first() is not None


def set_status(connection: sa.Connection, instance_id: int, status: InstanceStatus) -> None:
    """Set the status of a copy."""
    connection.execute(sa.update(instances).where(instances.c.id == instance_id).values(status=status))


def without_identity(connection: sa.Connection, series_instance_uid: str) -> list[InstanceRow]:
    """Return the current images of a series, still on disk, that were received before their identity was kept."""
    return _rows(
        connection,
        instances.c.series_instance_uid == series_instance_uid,
        instances.c.status == InstanceStatus.CURRENT,
        instances.c.purged_at.is_(None),
        instances.c.identity.is_(sa.null()),
    )


def keep_identity(connection: sa.Connection, instance_id: int, identity: Identity) -> None:
    """Keep whom a copy names, which was received before this was done at receipt."""
    known = sa.update(instances).where(instances.c.id == instance_id)
    connection.execute(known.values(identity=asdict(identity)))


def keep_digest(connection: sa.Connection, instance_id: int, digest: str) -> None:
    """Keep the content digest of a copy, so that further copies can be compared after its file is gone."""
    connection.execute(sa.update(instances).where(instances.c.id == instance_id).values(content_digest=digest))


def _rows(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[InstanceRow]:
    query = sa.select(*INSTANCE).where(*where).order_by(instances.c.id)
    return [instance_row(row) for row in connection.execute(query)]


# ── decisions ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of the copies of a series' images.

    Attributes:
        kept: copies that are or become current.
        set_aside: copies that are not used any more, but stay on disk until retention.
        left_out: how many images have no copy under the identity that is kept.
        identity: the identity that is kept; None where it is unknown.
    """

    action: CopyDecision
    kept: tuple[InstanceRow, ...]
    set_aside: tuple[InstanceRow, ...]
    left_out: int = 0
    identity: Identity | None = None

    @property
    def changes(self) -> bool:
        """Whether any current copy is replaced or left out."""
        return any(row.status != InstanceStatus.CURRENT for row in self.kept) or self.left_out > 0


def proposal(connection: sa.Connection, series_instance_uid: str, action: CopyDecision) -> Decision | None:
    """Return what keeping the first or the last identity of a series would mean; None if nothing is open.

    The identity kept is that of the copy that was received first or last; what it leaves empty, the next copies that
    agree with it fill in. Of each image, the first or last copy under this identity is kept.
    """
    rows = copies_of(connection, series_instance_uid, InstanceStatus.CURRENT, *OPEN)
    named = [row.identity for row in rows if row.identity is not None]
    if not any(row.status in OPEN for row in rows) and not disagreements(named):
        return None
    pick = 0 if action is CopyDecision.KEEP_FIRST else -1
    wanted = rows[pick].identity
    for identity in named if action is CopyDecision.KEEP_FIRST else reversed(named):
        if wanted is not None and not differences(wanted, identity):
            wanted = merged(wanted, identity)
    kept: list[InstanceRow] = []
    left_out = 0
    for uid in dict.fromkeys(row.sop_instance_uid for row in rows):
        agreeing = [row for row in rows if row.sop_instance_uid == uid and _agree(row.identity, wanted)]
        if agreeing:
            kept.append(agreeing[pick])
        else:
            left_out += 1
    chosen = {row.id for row in kept}
    stated = [row.identity for row in kept if row.identity is not None]
    return Decision(
        action=action,
        kept=tuple(kept),
        set_aside=tuple(row for row in rows if row.id not in chosen),
        left_out=left_out,
        identity=reduce(merged, stated or [wanted]) if wanted is not None else None,
    )


def _agree(one: Identity | None, other: Identity | None) -> bool:
    return one is None or other is None or not disagreements((one, other))


def apply(connection: sa.Connection, decision: Decision, *, by: str, at: float) -> set[str]:
    """Carry out a decision and record it; return the series whose images changed, which are assessed again."""
    for row in decision.set_aside:
        set_status(connection, row.id, InstanceStatus.SUPERSEDED)
    changed = {row.series_instance_uid for row in decision.set_aside if row.status == InstanceStatus.CURRENT}
    fresh = [row for row in decision.kept if row.status != InstanceStatus.CURRENT]
    for row in fresh:
        set_status(connection, row.id, InstanceStatus.CURRENT)
    for uid in changed | {row.series_instance_uid for row in fresh}:
        _reopen(connection, uid, [row for row in fresh if row.series_instance_uid == uid], at)
        outbox.supersede_deliveries(connection, uid, reason="corrected copy", now=at)
        changed.add(uid)
    for uid in {row.series_instance_uid for row in (*decision.set_aside, *decision.kept)}:
        _record(connection, uid, decision, by=by, at=at)
        if uid not in changed:
            settled(connection, uid, at=at)
    return changed


def decide(database: Database, connection: sa.Connection, decision: Decision, *, by: str, at: float) -> int:
    """Carry out what a person has decided; return how many reports are to be taken back.

    Those are the reports that destinations hold under an identity that is set aside.
    """
    wrong = {
        row.series_instance_uid
        for row in decision.set_aside
        if row.status == InstanceStatus.CURRENT and _told_apart(row.identity, decision.identity)
    }
    for uid in sorted({row.series_instance_uid for row in (*decision.kept, *decision.set_aside)}):
        index.lock_series(connection, uid)
    n_back = sum(
        retractions.add_naming_others(database, connection, uid, decision.identity, at=at) for uid in sorted(wrong)
    )
    left = {row.series_instance_uid for row in decision.set_aside if row.status == InstanceStatus.CURRENT}
    for uid in sorted(left - {row.series_instance_uid for row in decision.kept} - set(wrong)):
        # its images are in another series now, which has a report of its own
        n_back += retractions.add(database, connection, uid, VoidReason.WITHDRAWN, at=at)
    apply(connection, decision, by=by, at=at)
    return n_back


def _told_apart(one: Identity | None, other: Identity | None) -> tuple[str, ...]:
    """Return in words what tells two identities apart; one that is not known may be anybody."""
    if one is None and other is None:
        return ()
    return disagreements((one, other)) if one is not None and other is not None else ("patient ID",)


def _record(connection: sa.Connection, series_instance_uid: str, decision: Decision, *, by: str, at: float) -> None:
    ids = {
        "kept": [row.id for row in decision.kept if row.series_instance_uid == series_instance_uid],
        "set_aside": [row.id for row in decision.set_aside if row.series_instance_uid == series_instance_uid],
    }
    other = [row for row in decision.kept if row.status == InstanceStatus.CONFLICT]
    images = [row.sop_instance_uid for row in other if row.series_instance_uid == series_instance_uid]
    what = {**ids, OTHER_PIXELS: images}
    values = {"at": at, "by": by, "action": decision.action, "series_instance_uid": series_instance_uid, "copies": what}
    connection.execute(sa.insert(corrections).values(**values))


def _reopen(connection: sa.Connection, series_instance_uid: str, fresh: Sequence[InstanceRow], at: float) -> None:
    """Reopen a series; corrected copies arrive one by one, and it waits for further ones as for late slices."""
    values: dict[str, object] = {}
    if fresh:
        last = max(fresh, key=lambda row: row.received_at)
        values = {
            "study_instance_uid": last.study_instance_uid,
            "association_id": last.association_id,
            "last_instance_at": sa.case(
                (series.c.last_instance_at < last.received_at, last.received_at), else_=series.c.last_instance_at
            ),
        }
    index.reopen(connection, series_instance_uid, reason=Reason(ReasonCode.CORRECTED_COPY), at=at, **values)


def open_question(connection: sa.Connection, series_instance_uid: str) -> Reason | None:
    """Return why copies of a series keep its report here until somebody has decided on them, or None."""
    if not has_status(connection, series_instance_uid, InstanceStatus.DISPUTED):
        return None
    return Reason(ReasonCode.IDENTITY, "some images have copies that name another patient, study or accession")


def withhold(connection: sa.Connection, series_instance_uid: str, detail: str, *, at: float) -> None:
    """Withhold what a series has or will have to deliver, because copies of its images disagree."""
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.series_instance_uid == series_instance_uid, deliveries.c.state == DeliveryState.WAITING)
        .values(
            state=DeliveryState.WITHHELD,
            reason_code=DeliveryReason.DISPUTED_IDENTITY,
            message=f"identity: {detail}",
            job=None,
        )
    )
    row = index.find_series(connection, series_instance_uid)
    if row is not None and row.state in _JUDGED:
        index.move(
            connection, series_instance_uid, SeriesState.WITHHELD, at=at, reason=Reason(ReasonCode.IDENTITY, detail)
        )


def settled(connection: sa.Connection, series_instance_uid: str, *, at: float) -> None:
    """Let a series go on whose open copies were set aside: its deliveries, or an assessment if it has none."""
    row = index.find_series(connection, series_instance_uid)
    if row is None or has_status(connection, series_instance_uid, *OPEN):
        return
    mine = (deliveries.c.series_instance_uid == series_instance_uid, deliveries.c.revision == row.revision)
    connection.execute(
        sa.update(deliveries)
        .where(*mine, deliveries.c.reason_code.in_(_ABOUT_COPIES), deliveries.c.state == DeliveryState.WITHHELD)
        .values(state=DeliveryState.WAITING, reason_code=None, message=None, not_before=at, job=None)
    )
    rows = [one for one in outbox.deliveries_of(connection, series_instance_uid) if one.revision == row.revision]
    if row.state != SeriesState.WITHHELD or any(one.state in HELD for one in rows):
        return
    judged = assessments.assessed_generation(connection, series_instance_uid, row.revision) == row.generation
    if judged and rows:
        arrived = all(one.state in (*ARRIVED, DeliveryState.SUPERSEDED) for one in rows)
        state = outbox.arrived_state(rows) if arrived else SeriesState.ASSESSED
        index.move(connection, row.series_instance_uid, state, at=at)
    elif row.reason is not None and row.reason.code is ReasonCode.IDENTITY:
        index.assess_again(connection, series.c.series_instance_uid == row.series_instance_uid, at=at)


_ABOUT_COPIES = (DeliveryReason.DISPUTED_IDENTITY, DeliveryReason.CONFLICTING_COPIES)


def addresses_of(connection: sa.Connection, calling_ae_titles: Iterable[str]) -> dict[str, set[str]]:
    """Return the addresses from which instances came under each AE title."""
    found: dict[str, set[str]] = {}
    query = sa.select(sender_addresses.c.calling_ae_title, sender_addresses.c.address).where(
        sender_addresses.c.calling_ae_title.in_(list(calling_ae_titles))
    )
    for row in connection.execute(query):
        found.setdefault(row.calling_ae_title, set()).add(row.address)
    return found
