"""Read the rows of a manifest into samples of a store, with pixels read as in the node."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mediqa_node.domain.errors import ConfigurationError, MediqaError
from mediqa_node.domain.preprocessing import PreprocessSpec
from training.data.manifest import Row
from training.data.payload import slices_of
from training.data.store import Sample, Store
from training.data.views import Prepared


def read_rows(
    rows: Sequence[Row], spec: PreprocessSpec, store: Store, *, advance: Callable[[int, int, str], None]
) -> list[str]:
    """Add the salient slices of the series of a manifest to a store; return why some are left out.

    Series already in the store are not read again.

    Raises:
        ConfigurationError: no row has pixels, or none could be read.
    """
    if rows and all(row.payload_kind == "refs" for row in rows):
        raise ConfigurationError(
            "the manifest has no pixels, only keys: export again with `--payload npz` (or dicom, nifti)"
        )
    known = {sample.key for sample in store.samples}
    left_out = []
    for done, row in enumerate(rows):
        advance(done, len(rows), row.key[:12])
        if row.key in known:
            continue
        try:
            slices = np.stack(slices_of(row, spec))
        except (MediqaError, OSError, ValueError) as error:
            left_out.append(f"{row.key}: {error}")
            continue
        store.add([(sample_of(row), slices)])
    advance(len(rows), len(rows), "")
    if not store.samples:
        raise ConfigurationError("no series of the manifest could be read:\n  " + "\n  ".join(left_out[:8]))
    return left_out


def with_rows(data: Prepared, rows: Sequence[Row]) -> Prepared:
    """Return the samples of these rows with the current splits and labels of the manifest.

    Raises:
        ConfigurationError: the prompt of a series has changed since its views were prepared.
    """
    now = {row.key: sample_of(row) for row in rows}
    kept = data.subset(lambda sample: sample.key in now)
    if changed := [one.key for one in kept.samples if one.prompt != now[one.key].prompt]:
        raise ConfigurationError(
            f"the prompts of {len(changed)} series have changed since they were read, for example {changed[0]}: remove "
            f"the folder of samples next to the manifest to read them again"
        )
    kept.samples = [
        replace(one, patient=new.patient, split=new.split, labels=new.labels, weight=new.weight)
        for one, new in ((one, now[one.key]) for one in kept.samples)
    ]
    return kept


def sample_of(row: Row) -> Sample:
    """Return a row as a sample without pixels."""
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
