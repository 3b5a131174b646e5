"""What a node keeps of itself: who it is, and which folder is its own."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mediqa_node.composition import data_folder, resources
from mediqa_node.config import Settings
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.storage.migrate import mismatch


def test_the_identity_of_an_installation_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate({"node": {"data_dir": "var"}, "file": tmp_path / "node.yaml"})

    def pulled(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", pulled)
    with pytest.raises(KeyboardInterrupt):
        data_folder.identity(settings)
    monkeypatch.undo()

    made = data_folder.identity(settings)

    assert made == data_folder.identity(settings)
    assert made["device_uid"].startswith("2.25.")


@pytest.fixture
def installed(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of one of several hosts; the tests of PostgreSQL give the database."""

    def settings(folder: str, url: str, host_id: str = "a") -> Settings:
        node = {"data_dir": folder, "host_id": host_id}
        tree = {"node": node, "database": {"url": url}, "file": tmp_path / "node.yaml"}
        return Settings.model_validate(tree)

    return settings


def test_hosts_share_the_folder_that_the_database_knows(installed, url: str, tmp_path: Path) -> None:
    first, second = installed("shared", url, "a"), installed("shared", url, "b")
    resources.prepare(first)
    resources.prepare(second)

    assert data_folder.identity(first) == data_folder.identity(second)


@pytest.mark.parametrize("has_identity", [False, True], ids=["not mounted", "of another node"])
def test_a_host_without_the_folder_refuses_to_start(installed, url: str, tmp_path: Path, has_identity: bool) -> None:
    resources.prepare(installed("shared", url))
    known = (tmp_path / "shared" / "identity.json").read_text()
    (tmp_path / "empty").mkdir()
    if has_identity:
        (tmp_path / "empty" / "identity.json").write_text('{"device_uid": "2.25.1", "serial_number": "A"}')

    with pytest.raises(ConfigurationError, match="is not the folder of this database") as refused:
        resources.prepare(installed("empty", url))

    assert known in str(refused.value)  # the way out, if the folder is lost
    assert not (tmp_path / "empty" / "spool").exists()
    (tmp_path / "empty" / "identity.json").write_text(known)
    resources.prepare(installed("empty", url))


def test_a_folder_without_links_cannot_be_shared(
    installed, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(ConfigurationError, match="hard links"):
        resources.prepare(installed("shared", url))


def test_a_database_that_lies_in_the_folder_gives_its_identity_back(tmp_path: Path) -> None:
    settings = Settings.model_validate({"node": {"data_dir": "var"}, "file": tmp_path / "node.yaml"})
    resources.prepare(settings)
    made = data_folder.identity(settings)
    (tmp_path / "var" / "identity.json").unlink()

    resources.prepare(settings)

    assert data_folder.identity(settings) == made


def test_two_hosts_that_start_at_once_migrate_once(installed, url: str) -> None:
    settings = [installed("shared", url, host_id) for host_id in "abc"]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(resources.prepare, settings))

    database = resources.open_database(settings[0])
    assert mismatch(database) is None
    database.close()
