"""The files of an export: whole or absent, the same bytes from the same content, readable by others."""

import csv
import gzip
import io
import os
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest

from mediqa_node.domain.errors import ConfigurationError, NotScorable, StorageFailed
from mediqa_node.domain.images import FrameRef, Stack, StackKey
from mediqa_node.domain.preprocessing import NetworkInput, View
from mediqa_node.exchange import folder as folders
from mediqa_node.exchange.columns import MANIFEST
from mediqa_node.exchange.folder import check_room, check_target, clear, secret_of, writing
from mediqa_node.exchange.payload import (
    affine_ras,
    check_grid,
    compact,
    network_arrays,
    nifti_bytes,
    volume_of,
)
from mediqa_node.exchange.tables import ParquetTable, csv_bytes
from mediqa_node.system import npz


def stack(*, flags: tuple[str, ...] = (), slices: int = 3) -> Stack:
    """Oblique planes, 2 x 3 mm pixels, 5 mm apart."""
    turned = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)
    return Stack(
        study_instance_uid="1", series_instance_uid="2", frame_of_reference_uid=None, modality="CT", key=StackKey(),
        frames=(FrameRef(sop_class_uid="3", sop_instance_uid="4", frame_number=None, instance_index=0),) * slices,
        rows=4, columns=6, positions_mm=tuple(5.0 * n for n in range(slices)), spacing_mm=(5.0, 2.0, 3.0),
        origin_mm=(10.0, -20.0, 30.0), orientation=turned, flags=flags,
    )  # fmt: skip


def test_csv_is_rfc_4180_with_nothing_for_null_and_parquet_holds_the_same() -> None:
    rows = [{"series_key": "A", "kvp": 120.0, "n_slices": 7, "contrast_agent": True, "flags": 'a,"b"'}, {}]

    parquet = ParquetTable(MANIFEST)
    for row in rows:
        parquet.add([row])
    [head, first, second] = csv.reader(io.StringIO(csv_bytes(MANIFEST, rows).decode(), newline=""))
    table = pq.read_table(io.BytesIO(parquet.content()))

    assert head == [column.name for column in MANIFEST] == table.column_names
    found = dict(zip(head, first, strict=True))
    assert (found["kvp"], found["n_slices"], found["contrast_agent"], found["flags"]) == ("120.0", "7", "true", 'a,"b"')
    assert set(second) == {""}
    assert csv_bytes(MANIFEST, rows).endswith(b"\r\n")
    assert table.to_pylist()[0]["kvp"] == 120.0
    assert table.to_pylist()[1]["kvp"] is None
    assert table.schema.field("kvp").metadata[b"unit"] == b"kV"


def test_a_nifti_voxel_lies_where_dicom_says(tmp_path: Path) -> None:
    volume = np.arange(72, dtype=np.int16).reshape(3, 4, 6)
    path = tmp_path / "v.nii.gz"
    path.write_bytes(nifti_bytes(volume, stack()))

    image = nibabel.load(path)

    row, column, slice_ = 2, 5, 1
    lps = np.array([10.0, -20.0, 30.0]) + 3.0 * column * np.array([0.8, 0.6, 0]) + 2.0 * row * np.array([-0.6, 0.8, 0])
    lps += 5.0 * slice_ * np.array([0, 0, 1.0])
    assert image.affine @ [column, row, slice_, 1] == pytest.approx([-lps[0], -lps[1], lps[2], 1])
    assert np.asarray(image.dataobj)[column, row, slice_] == volume[slice_, row, column]
    assert image.get_data_dtype() == np.int16
    assert nifti_bytes(volume, stack()) == path.read_bytes()
    assert np.linalg.det(affine_ras(stack())) != 0


@pytest.mark.parametrize("broken", [None, 0, 2, 4])
def test_one_value_that_int16_does_not_hold_makes_the_volume_float(broken: int | None) -> None:
    images = [np.full((4, 6), 100.0 * n, np.float32) for n in range(5)]
    if broken is not None:
        images[broken][1, 1] = 0.5

    volume = volume_of(images.__getitem__, 5)

    assert volume.dtype == (np.int16 if broken is None else np.float32)
    assert (volume == np.stack(images)).all()


def test_a_volume_is_held_in_memory_hardly_more_than_once() -> None:
    size_px, slices = 128, 60
    grid = stack(slices=slices)
    nifti_bytes(np.zeros((slices, 4, 6), np.int16), grid)  # imports are not counted
    tracemalloc.start()

    content = nifti_bytes(volume_of(lambda n: np.full((size_px, size_px), float(n), np.float32), slices), grid)

    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * slices * size_px**2 * 2
    assert np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj).max() == slices - 1


@pytest.mark.parametrize("flag", ["gap", "uneven_spacing", "gantry_tilt", "missing_geometry", "orientation"])
def test_what_is_no_even_grid_is_no_nifti(flag: str) -> None:
    with pytest.raises(NotScorable, match=flag):
        check_grid(stack(flags=(flag,)))
    with pytest.raises(NotScorable, match="single plane"):
        check_grid(stack(slices=1))


def test_an_npz_has_the_same_bytes_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"a": np.arange(5), "b": np.zeros((2, 3), np.float32)}
    first = npz.packed(arrays)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)

    assert npz.packed(arrays) == first
    assert list(np.load(io.BytesIO(first), allow_pickle=False)) == ["a", "b"]


def test_an_npz_is_written_without_what_numpy_2_0_would_take_for_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(np, "savez_compressed", lambda _, **arrays: given.update(arrays))

    npz.packed({"a": np.arange(5)})

    assert list(given) == ["a"]


def test_values_are_whole_numbers_where_that_loses_nothing() -> None:
    assert compact(np.array([-1024.0, 3071.0], np.float32)).dtype == np.int16
    assert compact(np.array([0.5], np.float32)).dtype == np.float32
    assert compact(np.array([40_000.0], np.float32)).dtype == np.float32


@pytest.mark.parametrize(("difference", "channels"), [(0.0, 1), (0.1, 3)])
def test_channels_that_are_equal_are_kept_once(difference: float, channels: int) -> None:
    images = np.zeros((2, 3, 8, 8), np.float32)
    images[1, 2] += difference
    views = tuple(View(slice_index=n, top=-1, left=2, height=8, width=8) for n in range(2))

    arrays = network_arrays(NetworkInput(images=images, views=views))

    assert arrays["images"].shape == (2, channels, 8, 8)
    assert arrays["views"].tolist() == [[0, -1, 2, 8, 8], [1, -1, 2, 8, 8]]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"

    with pytest.raises(KeyboardInterrupt), writing(out, replace=False) as into:
        into.put("images/a/0.dcm", b"x")
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []


def test_a_replaced_export_is_whole_and_its_sums_are_right(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content in (b"one", b"two"):
        with writing(out, replace=True) as into:
            into.put("images/a/0.dcm", content)
            into.put("images/b.npz", b"dropped")
            into.drop("images/b.npz")
            into.put("provenance.json", b"{}")

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "images/a/0.dcm").read_bytes() == b"two"
    assert os.popen(f"cd {out} && sha256sum -c --quiet SHA256SUMS").read() == ""
    assert not (out / "images/b.npz").exists()


def test_what_a_killed_process_left_is_cleared_away_and_the_older_export_is_back(tmp_path: Path) -> None:
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "half").write_text("")
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "provenance.json").write_text("old")

    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "out", replace=True):
        raise KeyboardInterrupt

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "provenance.json").read_text() == "old"


def test_what_was_put_aside_does_not_give_way_unasked(tmp_path: Path) -> None:
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "provenance.json").write_text("old")

    with pytest.raises(ConfigurationError, match="--force"):
        check_target(tmp_path / "out", replace=False)
    with pytest.raises(ConfigurationError, match="--force"), writing(tmp_path / "out", replace=False):
        pytest.fail("nothing may be written")
    clear(tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "provenance.json").read_text() == "old"


def test_a_place_is_written_by_one_export_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with writing(out, replace=False) as into:
        into.put("provenance.json", b"first")
        with pytest.raises(ConfigurationError, match="another export is being written"), writing(out, replace=True):
            pytest.fail("two at once")
        with pytest.raises(ConfigurationError, match="another export is being written"):
            clear(out)
        with writing(tmp_path / "beside", replace=False) as other:
            other.put("provenance.json", b"{}")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "out"]
    assert (out / "provenance.json").read_text() == "first"


def test_the_lock_of_a_process_that_died_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / ".out.lock").write_text("")

    with writing(tmp_path / "out", replace=True) as into:
        into.put("provenance.json", b"{}")

    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_lock_that_its_holder_has_just_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.fcntl, "flock", lambda *_: (tmp_path / ".out.lock").unlink())

    with pytest.raises(ConfigurationError, match="another export"), writing(tmp_path / "out", replace=True):
        pytest.fail("the next one to come makes and locks a new file")


def test_an_export_is_on_the_disk_before_it_has_its_name_and_the_older_one_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with writing(out, replace=True) as into:
        into.put("provenance.json", b"older")
    done: list[tuple[str, str, bool]] = []

    def noted(what: str, name: str) -> None:
        done.append((what, name, (tmp_path / ".out.old").exists()))

    monkeypatch.setattr(os, "fsync", lambda handle: noted("sync", Path(f"/proc/self/fd/{handle}").resolve().name))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda one, other: noted("rename", one.name) or rename(one, other))

    with writing(out, replace=True) as into:
        into.put("images/a/0.dcm", b"x")
        into.put("provenance.json", b"newer")

    names = [name for what, name, _ in done if what == "sync"]
    assert set(names[:-1]) == {"images", "a", "0.dcm", "provenance.json", "SHA256SUMS", ".out.part"}
    assert done[-3:] == [("rename", "out", False), ("rename", ".out.part", True), ("sync", tmp_path.name, True)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_older_export_comes_back_where_the_disk_refuses_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path / "out", replace=True) as into:
        into.put("provenance.json", b"older")
    rename = Path.rename

    def refusing(one: Path, other: Path) -> Path:
        if one.name == ".out.part":
            raise OSError(5, "Input/output error")
        return rename(one, other)

    monkeypatch.setattr(Path, "rename", refusing)

    with pytest.raises(StorageFailed, match="Input/output error"), writing(tmp_path / "out", replace=True) as into:
        into.put("provenance.json", b"newer")

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "provenance.json").read_text() == "older"


def test_what_cannot_be_read_is_not_said_to_be_unwritable(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), writing(tmp_path / "out", replace=True):
        raise PermissionError(13, "Permission denied", "a spooled file")


def test_only_an_export_gives_way(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="not an export"):
        check_target(tmp_path / "letters", replace=True)
    with pytest.raises(ConfigurationError, match="is a file"):
        check_target(tmp_path / "file", replace=True)
    with pytest.raises(ConfigurationError, match="mount point"):
        check_target(Path("/"), replace=True)
    (tmp_path / "letters" / "provenance.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="--force"):
        check_target(tmp_path / "letters", replace=False)


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 300 * 1024**2}))

    check_room(tmp_path / "not" / "there", 1_000_000)
    with pytest.raises(StorageFailed, match="100 MB of images"):
        check_room(tmp_path / "not" / "there", 100_000_000)
    with pytest.raises(StorageFailed, match="MB are kept for the receiver"):
        check_room(tmp_path / "not" / "there", 1_000_000, spare_bytes=100 * 1024**2)


def test_a_disk_that_others_fill_meanwhile_ends_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [400 * 1024**2]
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free[0]}))

    with (
        pytest.raises(StorageFailed, match="no room"),
        writing(tmp_path / "o", replace=True, spare_bytes=10**8) as into,
    ):
        into.put("one", b"x")
        free[0] = 300 * 1024**2
        into.put("two", b"x")

    assert list(tmp_path.iterdir()) == []


def test_what_is_taken_back_does_not_count(tmp_path: Path) -> None:
    with writing(tmp_path / "out", replace=True) as into:
        into.put("images/a/0.dcm", b"four")
        into.put("images/a/1.dcm", b"four")
        into.put("provenance.json", b"{}")
        into.drop("images/a")

    assert into.n_bytes == 2


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "export.key"

    secret = secret_of(path, 32)

    assert path.stat().st_mode & 0o777 == 0o600
    assert secret_of(path, 32) == secret
    assert len(set(secret)) > 8
    assert [one.name for one in path.parent.iterdir()] == ["export.key"]
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        secret_of(path, 32)


@pytest.mark.parametrize("content", ["", "zz", "abcd"])
def test_a_key_that_is_damaged_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "export.key"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match="restore it"):
        secret_of(path, 32)
