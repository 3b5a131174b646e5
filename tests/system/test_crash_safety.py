"""Files that survive a crash, locks that go with their holder, arrays without pickle."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mediqa_node.system import npz
from mediqa_node.system.atomic import replacing, write_atomically
from mediqa_node.system.lock import Locked, is_locked, locked


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    write_atomically(file, b"one")
    write_atomically(file, b"two", mode=0o600)

    assert file.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["identity.json"]


def test_a_block_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "state"
    write_atomically(file, b"old")

    with pytest.raises(RuntimeError), replacing(file) as part:
        part.write_bytes(b"half")
        raise RuntimeError

    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_that_refuses_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "state"
    write_atomically(file, b"old")
    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")

    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_lock_names_its_holder_and_is_free_again_when_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "serve.lock"
    code = (
        "import sys, time; from pathlib import Path; from mediqa_node.system.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(Locked) as refused, locked(path):
            pass
        assert refused.value.pid == holder.pid
    finally:
        holder.kill()
        holder.wait()

    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)


def test_waiting_for_a_lock_ends_when_the_caller_gives_up(tmp_path: Path) -> None:
    tries = []

    with (
        locked(tmp_path / "a.lock"),
        pytest.raises(Locked),
        locked(tmp_path / "a.lock", wait=lambda: bool(tries.append(1)) or len(tries) < 3),
    ):
        pass

    assert len(tries) == 3


def test_arrays_come_back_and_the_bytes_follow_from_them(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.int16).reshape(2, 3), "a": np.array([0.5], np.float32)}

    content = npz.packed(arrays)
    (tmp_path / "x.npz").write_bytes(content)

    assert content == npz.packed(arrays)
    for found in (npz.unpacked(content), npz.unpacked(tmp_path / "x.npz")):
        assert list(found) == ["b", "a"]
        for name, array in arrays.items():
            assert np.array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_objects_are_never_pickled() -> None:
    with pytest.raises(ValueError, match="would be pickled: x"):
        npz.packed({"x": np.array([{}], dtype=object)})
