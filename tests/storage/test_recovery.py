"""What a start does after any kind of end: spool and index come back into step."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from support.receiving import DEFLATED, Listening, Scu, ct, encode

from mediqa_node.dicom.part10 import file_head, read_head
from mediqa_node.pipeline import recovery
from mediqa_node.pipeline.recovery import recover
from mediqa_node.storage.tables import associations, instances, series

Listen = Callable[..., Listening]
NOW = 1_800_000_000.0


@pytest.fixture
def node(listening: Listen) -> Listening:
    return listening()


def send(node: Listening, *numbers: int) -> None:
    with Scu(node.port) as scu:
        for number in numbers:
            assert scu.store_dataset(ct(number)) == 0x0000
        scu.release()
        scu.closed_within(5)


def forget_rows(node: Listening) -> None:
    with node.database.write() as connection:
        for table in (instances, series, associations):
            connection.execute(sa.delete(table))


def test_a_clean_start_changes_nothing(node: Listening) -> None:
    send(node, 1, 2)

    assert recover(node.database, node.spool, now=NOW) == {"dropped": 0, "adopted": 0, "missing": 0}
    assert len(node.rows()) == 2


def test_files_without_a_row_are_adopted_as_they_were_received(node: Listening) -> None:
    send(node, 1, 2, 3)
    before = node.rows()
    forget_rows(node)

    found = recover(node.database, node.spool, now=NOW)

    assert found == {"dropped": 0, "adopted": 3, "missing": 0}
    assert set(map(told, node.rows())) == set(map(told, before))
    with node.database.read() as connection:
        assert connection.execute(sa.select(series.c.n_instances)).scalar_one() == 3
        assert connection.execute(sa.select(associations.c.closed_at)).scalar_one() is not None


def told(row: Any) -> tuple[object, ...]:
    """Return what a file says of itself."""
    identity = (row.sop_instance_uid, row.sop_class_uid, row.transfer_syntax_uid, row.calling_ae_title)
    return (*identity, row.path, row.sha256, row.size_bytes)


def test_an_adopted_folder_is_made_durable_before_its_row(node: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    send(node, 1)
    forget_rows(node)
    steps: list[str] = []
    monkeypatch.setattr(node.spool, "sync_folders", lambda paths: steps.append(*paths))
    monkeypatch.setattr(recovery, "record", lambda *_: steps.append("row"))

    recover(node.database, node.spool, now=NOW)

    assert steps == [str(node.files()[0].relative_to(node.spool.root)), "row"]


def test_a_second_file_with_the_same_bytes_is_removed(node: Listening) -> None:
    send(node, 1)
    [path] = node.files()
    (path.parent / f"{'0' * 32}.dcm").write_bytes(path.read_bytes())

    found = recover(node.database, node.spool, now=NOW)

    assert found == {"dropped": 0, "adopted": 0, "missing": 0}
    assert node.files() == [path]


def test_a_second_file_with_other_bytes_is_kept_beside_the_first(node: Listening) -> None:
    send(node, 1)
    [path] = node.files()
    (path.parent / f"{'0' * 32}.dcm").write_bytes(path.read_bytes()[:-1] + b"\7")

    assert recover(node.database, node.spool, now=NOW)["adopted"] == 1
    assert [row.status for row in node.rows()] == ["current", "candidate"]


def test_a_copy_that_its_sender_had_sent_before_is_not_kept_twice(node: Listening) -> None:
    with Scu(node.port) as scu:
        assert [scu.store_dataset(ds) for ds in (ct(), ct(PatientID="SYN002"))] == [0x0000] * 2
        scu.release()
    path = node.spool.path(node.rows()[1].path)
    (path.parent / f"{'0' * 32}.dcm").write_bytes(path.read_bytes())  # killed before the commit that finds it known

    assert recover(node.database, node.spool, now=NOW)["adopted"] == 0
    assert [row.status for row in node.rows()] == ["current", "candidate"]
    assert len(node.files()) == 2


def test_a_row_without_its_file_raises_an_alarm(node: Listening, capsys: pytest.CaptureFixture[str]) -> None:
    send(node, 1, 2)
    node.files()[0].unlink()

    assert recover(node.database, node.spool, now=NOW)["missing"] == 1
    assert "spooled file is missing" in "".join(capsys.readouterr())


def test_half_received_files_are_deleted(node: Listening) -> None:
    (node.spool.root / "tmp" / "half").write_bytes(b"half")

    assert recover(node.database, node.spool, now=NOW)["dropped"] == 1
    assert node.temporary() == []


def test_a_file_whose_commit_was_uncertain_is_adopted(node: Listening) -> None:
    def fail(_connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("COMMIT", None, Exception("disk I/O error"))

    event.listen(node.database.engine, "commit", fail)
    with Scu(node.port) as scu:
        assert scu.store_dataset(ct()) == 0xA700
    event.remove(node.database.engine, "commit", fail)
    assert len(node.files()) == 1

    assert recover(node.database, node.spool, now=NOW)["adopted"] == 1
    send(node, 1)
    assert len(node.files()) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 200, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 60, os.urandom(5000)],
    ids=["empty", "zeros", "prefix alone", "broken meta", "noise"],
)
def test_a_file_that_is_no_instance_is_left_alone(node: Listening, content: bytes) -> None:
    send(node, 1)
    stray = node.files()[0].parent / "stray.dcm"
    stray.write_bytes(content)

    assert recover(node.database, node.spool, now=NOW)["adopted"] == 0
    assert stray.exists()
    assert len(node.rows()) == 1


def test_a_truncated_file_is_not_adopted(node: Listening) -> None:
    send(node, 1)
    [path] = node.files()
    os.truncate(path, path.stat().st_size - 10)
    forget_rows(node)

    assert recover(node.database, node.spool, now=NOW)["adopted"] == 0
    assert node.rows() == []


def test_a_planted_link_is_not_followed(node: Listening, tmp_path: Path) -> None:
    send(node, 1)
    [path] = node.files()
    elsewhere = tmp_path / "elsewhere.dcm"
    elsewhere.write_bytes(path.read_bytes())
    (path.parent / "linked.dcm").symlink_to(elsewhere)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.dcm").write_bytes(path.read_bytes())
    (node.spool.root / "99991231-23").symlink_to(folder)
    forget_rows(node)

    assert recover(node.database, node.spool, now=NOW)["adopted"] == 1
    assert elsewhere.exists()
    assert (folder / "x.dcm").exists()


@pytest.mark.parametrize("source", ["CT_ROOM_1", "", "A" * 16])
def test_the_head_of_a_file_is_read_back_as_it_was_written(source: str) -> None:
    head = file_head(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=DEFLATED,
        source_ae_title=source,
    )

    read = read_head(memoryview(head + encode(ct())))

    assert (read.transfer_syntax_uid, read.source_ae_title, read.size_bytes) == (DEFLATED, source, len(head))


# ── several hosts ────────────────────────────────────────────────────────────


def of_host(node: Listening, number: int, host_id: str) -> Path:
    """Return a file that the receiver of a host has placed, and not entered."""
    send(node, number)
    [path] = [path for path in node.files() if "-" not in path.name]
    forget_rows(node)
    return path.rename(path.with_name(f"{host_id}-{path.name}"))


def test_a_receiver_recovers_what_is_its_own(node: Listening) -> None:
    own, other = of_host(node, 1, "a"), of_host(node, 2, "b")
    for name in ("a-1", "b-1", "b-2"):
        (node.spool.root / "tmp" / name).write_bytes(b"half")
    with node.database.write() as connection:
        for host_id in ("a", "b"):
            connection.execute(
                sa.insert(associations).values(
                    id=host_id, calling_ae_title="CT", address="", opened_at=0, host_id=host_id
                )
            )
    node.spool.owner = "a"

    found = recover(node.database, node.spool, now=NOW, owner="a")

    assert found == {"dropped": 1, "adopted": 1, "missing": 0}
    assert sorted(path.name for path in node.temporary()) == ["b-1", "b-2"]
    assert [node.spool.path(row.path) for row in node.rows()] == [own]
    assert other.exists()
    with node.database.read() as connection:
        still_open = sa.select(associations.c.id).where(associations.c.closed_at.is_(None))
        assert connection.execute(still_open).scalars().all() == ["b"]


def test_what_another_host_takes_over_no_longer_depends_on_the_name_that_the_dead_one_knows(node: Listening) -> None:
    left = of_host(node, 1, "a")
    node.spool.owner = "b"

    assert recover(node.database, node.spool, now=NOW, owner="a")["adopted"] == 1

    [row] = node.rows()
    assert row.path.startswith(f"{left.parent.name}/b-")
    assert node.spool.has(row.path)
    assert not left.exists()


def test_a_take_over_that_is_killed_before_it_removes_the_old_name_leaves_one_file(node: Listening) -> None:
    left = of_host(node, 1, "a")
    node.spool.owner = "b"
    content = left.read_bytes()
    recover(node.database, node.spool, now=NOW, owner="a")
    left.write_bytes(content)
    node.spool.owner = "a"

    assert recover(node.database, node.spool, now=NOW, owner="a")["adopted"] == 0

    assert not left.exists()
    assert len(node.files()) == len(node.rows()) == 1


def test_a_receiver_that_comes_back_while_it_is_taken_over_keeps_its_file(
    node: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = of_host(node, 1, "a")
    claim = node.spool.claim

    def come_back_first(path: str) -> str:
        claimed = claim(path)
        node.spool.owner = "a"
        assert recover(node.database, node.spool, now=NOW, owner="a")["adopted"] == 1
        return claimed

    node.spool.owner = "b"
    monkeypatch.setattr(node.spool, "claim", come_back_first)

    assert recover(node.database, node.spool, now=NOW, owner="a")["adopted"] == 0

    assert node.files() == [left]
    assert [node.spool.path(row.path) for row in node.rows()] == [left]


def test_files_of_a_host_that_died_long_ago_are_found_though_others_have_received_since(node: Listening) -> None:
    left = of_host(node, 1, "a")
    old = node.spool.root / "20200101-00"
    old.mkdir()
    left.rename(old / left.name)
    send(node, 2)
    node.spool.owner = "b"
    died_at = 1_577_836_800.0  # 2020-01-01 00:00 UTC

    assert recover(node.database, node.spool, now=NOW, owner="a")["adopted"] == 0
    assert recover(node.database, node.spool, now=NOW, owner="a", alive_at=died_at)["adopted"] == 1
