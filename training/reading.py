"""From a manifest's rows to samples in a store: pixels by the node's own code, labels as the manifest has them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mediqa_node.domain.errors import ConfigurationError, NotScorable
from mediqa_node.domain.preprocessing import PreprocessSpec
from training.collection import stacks_of_files
from training.manifest import Row
from training.store import Sample, Store


def read_rows(
    rows: Sequence[Row], spec: PreprocessSpec, store: Store, *, advance: Callable[[int, int, str], None]
) -> list[str]:
    """Put the series of a manifest into a store, their salient slices by `spec`; return why some are left out.

    What the store holds already is not read again.

    Raises:
        ConfigurationError: no row has pixels, or not one could be read.
    """
    if all(row.payload_kind == "refs" for row in rows):
        raise ConfigurationError(
            "the manifest holds keys alone, no pixels: export again with `--payload npz` (or dicom, nifti)"
        )
    known = {sample.key for sample in store.samples}
    left_out = []
    for done, row in enumerate(rows):
        advance(done, len(rows), row.key[:12])
        if row.key in known:
            continue
        try:
            slices = read_slices(row, spec)
        except (OSError, ValueError, KeyError, NotScorable) as error:
            left_out.append(f"{row.key}: {error}")
            continue
        store.add([(sample_of(row), slices)])
    advance(len(rows), len(rows), "")
    if not store.samples:
        raise ConfigurationError("not one series of the manifest could be read:\n  " + "\n  ".join(left_out[:8]))
    return left_out


def sample_of(row: Row) -> Sample:
    """Return a row as a sample whose pixels are still to come."""
    labels = {}
    if row.label_name and row.label_value is not None:
        labels[row.label_name] = row.label_value
    if row.mos is not None:
        labels["quality"] = row.mos
    return Sample(
        key=row.key,
        base=row.key,
        patient=row.patient,
        source=row.source,
        split=row.split,
        prompt={"dimension": row.dimension, "modality": row.modality, "region": row.region, "type": row.type},
        labels=labels,
        weight=row.weight,
    )


def read_slices(row: Row, spec: PreprocessSpec) -> np.ndarray:
    """Return the slices of one row, (n, rows, columns[, 3]), in HU, signal or 0..255.

    Raises:
        ValueError, KeyError, OSError: the payload is damaged, or holds nothing.
        NotScorable: the node would not look at it.
    """
    reader = {"npz": _npz, "dicom": _dicom, "nifti": _nifti, "image": _picture}.get(row.payload_kind)
    if reader is None:
        raise ValueError(f"payload {row.payload_kind!r} holds no pixels")
    return np.stack(list(reader(row.paths, spec)))


def _npz(paths: Sequence[Path], spec: PreprocessSpec) -> Iterable[np.ndarray]:
    with np.load(paths[0], allow_pickle=False) as file:
        slices = file["slices"].astype(np.float32)
    return list(slices)


def _dicom(paths: Sequence[Path], spec: PreprocessSpec) -> Iterable[np.ndarray]:
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    for stack in stacks_of_files(files, spec):
        if stack.images:
            return list(stack.images)
        raise NotScorable("refused", stack.refused or "no images")
    raise ValueError("no DICOM images")


def _nifti(paths: Sequence[Path], spec: PreprocessSpec) -> Iterable[np.ndarray]:
    import nibabel

    from mediqa_node.assess.salient import salient_indices

    volume = np.asarray(nibabel.load(paths[0]).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    volume = volume.reshape(*volume.shape[:3], -1)[..., 0]
    # in-plane axes as a viewer shows them: rows run down
    return [np.ascontiguousarray(volume[..., k].T[::-1]) for k in salient_indices(volume.shape[2], spec.slices)]


def _picture(paths: Sequence[Path], spec: PreprocessSpec) -> Iterable[np.ndarray]:
    for path in paths:
        with Image.open(path) as picture:
            colour = picture.mode not in ("L", "I", "F", "I;16")
            yield np.asarray(picture.convert("RGB") if colour else picture, dtype=np.float32)
