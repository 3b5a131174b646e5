"""What was pulled from archives, and what of it waits for the node."""

import sqlalchemy as sa

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.pull import ArchivedSeries, PullState
from mediqa_node.domain.series import SeriesState
from mediqa_node.storage.database import Database
from mediqa_node.storage.pull_tables import pulls
from mediqa_node.storage.tables import series


def is_here(connection: sa.Connection, found: ArchivedSeries) -> bool:
    """Return whether a series needs no pulling: its source has sent it, or all that the archive has was pulled."""
    series_instance_uid = found.series_instance_uid
    pulled = sa.select(sa.literal(1)).where(
        pulls.c.series_instance_uid == series_instance_uid,
        pulls.c.state == PullState.PULLED,
        pulls.c.n_instances >= (found.n_instances or 0),
    )
    sent = sa.select(sa.literal(1)).where(series.c.series_instance_uid == series_instance_uid, sa.not_(series.c.pulled))
    return connection.execute(sa.union_all(pulled, sent).limit(1)).first() is not None


def note_asked(
    database: Database, connection: sa.Connection, found: ArchivedSeries, *, peer: Peer, ae_title: str, at: float
) -> None:
    """Record, before it is asked for, that a series will be moved here."""
    values = {
        "study_instance_uid": found.study_instance_uid,
        "peer": peer.name,
        "peer_ae_title": peer.ae_title,
        "move_destination": ae_title,
        "state": PullState.MOVING,
        "asked_at": at,
    }
    connection.execute(database.insert_or_ignore(pulls, series_instance_uid=found.series_instance_uid, **values))
    _update(connection, found.series_instance_uid, **values, message=None, done_at=None)


def note_pulled(connection: sa.Connection, series_instance_uid: str, *, n_instances: int, at: float) -> None:
    """Record that all of a series is here."""
    _update(connection, series_instance_uid, state=PullState.PULLED, n_instances=n_instances, done_at=at)


def note_failed(connection: sa.Connection, series_instance_uid: str, message: str, *, at: float) -> None:
    """Record why a series is not here, or not all of it."""
    _update(connection, series_instance_uid, state=PullState.FAILED, message=message, done_at=at)


def _update(connection: sa.Connection, series_instance_uid: str, **values: object) -> None:
    connection.execute(sa.update(pulls).where(pulls.c.series_instance_uid == series_instance_uid).values(**values))


def n_received(connection: sa.Connection, series_instance_uid: str) -> int:
    """Return how many instances of a series have arrived."""
    query = sa.select(series.c.n_instances).where(series.c.series_instance_uid == series_instance_uid)
    return int(connection.execute(query).scalar_one_or_none() or 0)


def n_waiting(connection: sa.Connection) -> int:
    """Return how many series are being received or wait for the worker."""
    waiting = series.c.state.in_((SeriesState.RECEIVING, SeriesState.READY))
    return int(connection.execute(sa.select(sa.func.count()).where(waiting)).scalar_one())
