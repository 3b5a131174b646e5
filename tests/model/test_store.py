"""The node's own checkpoints: whole or not there, never overwritten."""

import json
import os
from pathlib import Path

import pytest

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.model.lock import CARD_FILE, LOCK_FILE, WEIGHTS_FILE, digest, read_lock
from mediqa_node.model.store import ModelStore

CARD = b'{"trained": true}'


def test_a_checkpoint_is_kept_with_a_lock_that_pins_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")

    stored = store.add("chest", b"weights", CARD)

    entry = read_lock(stored.directory / LOCK_FILE)["chest"]
    assert (entry.sha256, entry.card_sha256) == (digest(b"weights"), digest(CARD))
    assert (stored.directory / WEIGHTS_FILE).read_bytes() == b"weights"
    assert (stored.trained, stored.size_bytes) == (True, 7 + len(CARD))
    assert store.all() == [store.find(stored.weights)] == [stored]


def test_the_same_checkpoint_twice_is_one_and_another_of_its_name_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    first = store.add("chest", b"weights", CARD)

    assert store.add("chest", b"weights", CARD) == first
    with pytest.raises(CheckpointRefused, match="another of that name"):
        store.add("chest", b"other weights", CARD)
    store.add("chest-2", b"other weights", CARD)
    assert [stored.weights.name for stored in store.all()] == ["chest", "chest-2"]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\0b", "two\nlines"])
def test_a_name_that_no_decision_could_be_recorded_under_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "lock").write_text(json.dumps({name: {"directory": ".", "sha256": "", "card_sha256": ""}}))

    with pytest.raises(CheckpointRefused, match="1 to 128 printable characters"):
        ModelStore(tmp_path / "models").add(name, b"weights", CARD)
    with pytest.raises(CheckpointRefused, match="1 to 128 printable characters"):
        read_lock(tmp_path / "lock")

    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("file", [WEIGHTS_FILE, CARD_FILE, LOCK_FILE])
def test_a_checkpoint_that_was_damaged_is_replaced_when_it_comes_again(tmp_path: Path, file: str) -> None:
    store = ModelStore(tmp_path)
    first = store.add("chest", b"weights", CARD)
    (first.directory / file).write_bytes(b"{}")

    again = store.add("chest", b"weights", CARD)

    assert again == first
    assert (again.directory / WEIGHTS_FILE).read_bytes() == b"weights"
    assert (again.directory / CARD_FILE).read_bytes() == CARD
    assert store.all() == [first]


def test_what_others_leave_in_the_folder_is_no_checkpoint(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    stored = store.add("chest", b"weights", CARD)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".snapshot").mkdir()

    assert store.all() == [stored]


def test_what_was_interrupted_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    store = ModelStore(tmp_path)
    (tmp_path / ".half-x").mkdir()  # a process was killed here
    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(CheckpointRefused, match="No space left"):
        store.add("chest", b"weights", CARD)

    assert store.all() == []
    assert [path.name for path in tmp_path.iterdir()] == [".half-x"]


def test_files_and_folders_are_on_the_disk_before_and_the_name_after_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(
            (Path(f"/proc/self/fd/{handle}").is_dir(), any(path.name[:1] != "." for path in tmp_path.iterdir()))
        )
        fsync(handle)

    monkeypatch.setattr("os.fsync", noted)

    ModelStore(tmp_path).add("chest", b"weights", CARD)

    assert sorted(synced[:-2]) == [(False, False)] * 3, "weights, card and lock"
    assert synced[-2:] == [(True, False), (True, True)], "their folder, then the store"


def test_what_a_killed_process_left_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    for name, at in ((".half-old", 1.0), (".half-new", None)):
        (tmp_path / name).mkdir()
        if at is not None:
            os.utime(tmp_path / name, (at, at))

    stored = ModelStore(tmp_path).add("chest", b"weights", CARD)

    assert {path.name for path in tmp_path.iterdir()} == {".half-new", stored.directory.name}


def test_a_folder_that_was_changed_or_removed_is_not_what_was_promoted(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    stored = store.add("chest", b"weights", CARD)
    lock = stored.directory / LOCK_FILE
    lock.write_text(lock.read_text().replace(digest(b"weights"), digest(b"others")))

    with pytest.raises(CheckpointRefused, match=r"chest .* is not in"):
        store.find(stored.weights)
    lock.unlink()
    with pytest.raises(CheckpointRefused, match="cannot be read"):
        store.all()
