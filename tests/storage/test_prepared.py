"""Statements that go past SQLAlchemy: the same rows and the same errors, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from mediqa_node.domain.identity import Identity
from mediqa_node.domain.series import ReceivedInstance
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import current_instances, find_series
from mediqa_node.storage.ingest import Recorded, record
from mediqa_node.storage.tables import associations, instances, metadata

INSTANCE = ReceivedInstance(
    sop_instance_uid="1.2.1",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    series_instance_uid="1.2.3",
    study_instance_uid="1.2.4",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    calling_ae_title="CT",
    called_ae_title="MEDIQA",
    peer_address="127.0.0.1",
    association_id="a" * 32,
    received_at=datetime(2026, 11, 23, tzinfo=UTC),
    path="20261123-00/1.dcm",
    sha256="ab" * 32,
    size_bytes=2**33,
    identity=Identity(patient_id="SYN%001", name="Größe^Anna"),
    move_originator="PACS",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    sqlite = f"sqlite:///{tmp_path / 'node.db'}"
    opened = Database(sqlite if request.param == "sqlite" else request.getfixturevalue("url"))
    metadata.create_all(opened.engine)
    yield opened
    opened.close()


def enter(database: Database, instance: ReceivedInstance) -> Recorded:
    with database.write() as connection:
        return record(database, connection, instance, "CT", lambda _: True)


def test_what_is_entered_is_read_back_as_it_was_given(database: Database) -> None:
    assert enter(database, INSTANCE) is Recorded.NEW

    with database.read() as connection:
        [row] = current_instances(connection, "1.2.3")
        kept = connection.execute(sa.select(instances.c.move_originator, instances.c.unread)).one()
    for name in ("sop_instance_uid", "peer_address", "path", "sha256", "size_bytes", "identity", "association_id"):
        assert getattr(row, name) == getattr(INSTANCE, name), name
    assert row.received_at == INSTANCE.received_at.timestamp()
    assert tuple(kept) == ("PACS", False)


def test_the_same_bytes_are_known_and_others_are_kept_beside_them(database: Database) -> None:
    enter(database, INSTANCE)

    again = enter(database, replace(INSTANCE, path="20261123-00/2.dcm"))
    other = enter(database, replace(INSTANCE, path="20261123-00/3.dcm", sha256="cd" * 32))

    assert (again, other) == (Recorded.DUPLICATE, Recorded.CANDIDATE)


def test_each_instance_counts_for_its_series_and_its_association(database: Database) -> None:
    later = datetime(2026, 11, 23, 0, 0, 7, tzinfo=UTC)
    enter(database, INSTANCE)

    enter(database, replace(INSTANCE, sop_instance_uid="1.2.2", path="b", association_id="b" * 32, received_at=later))

    with database.read() as connection:
        row = find_series(connection, "1.2.3")
        sent = connection.execute(sa.select(associations.c.id, associations.c.last_instance_at)).all()
    assert row is not None
    assert (row.n_instances, row.generation, row.n_associations, row.longest_gap_s) == (2, 2, 2, 7.0)
    assert sorted(sent) == [("a" * 32, later.timestamp() - 7), ("b" * 32, later.timestamp())]


def test_what_the_driver_raises_arrives_as_from_sqlalchemy_and_names_no_value(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError) as caught:
        enter(database, replace(INSTANCE, sop_class_uid=None))  # type: ignore[arg-type]

    assert "SYN%001" not in str(caught.value).partition("DETAIL")[0]
    assert enter(database, INSTANCE) is Recorded.NEW
