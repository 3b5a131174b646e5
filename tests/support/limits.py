"""Domains learnt from the patients in tests/data: real limits, although of very few sources."""

from collections.abc import Mapping
from pathlib import Path

from mediqa_node.image.measure.slice_statistics import SliceStatistics, slice_statistics
from mediqa_node.image.preprocess import preprocess
from mediqa_node.image.training_range import TrainingRange, fit_training_range
from mediqa_node.model.card import DEFAULT_PREPROCESSING as SPEC
from training.data.collection import stacks_of

DATA = Path(__file__).parents[1] / "data"
DEMO = Path(__file__).parents[2] / "mediqa_node" / "demo_series"
THIGH, PELVIS, ABDOMEN = (DATA / name for name in ("ct_sts003_lowdose", "ct_sts036_lowdose", "ct_body_totalseg_j2k"))


def statistics_of(folder: Path) -> list[SliceStatistics]:
    """Return the statistics of every stack in a folder, as the node would be shown it."""
    return [
        slice_statistics(
            preprocess(stack.images, SPEC, modality=stack.modality, image_type=stack.image_type),
            SPEC,
            modality=stack.modality,
        )
        for stack in stacks_of(folder, SPEC)
        if stack.images
    ]


def ct_domain(*folders: Path) -> TrainingRange:
    """Return the limits that these patients make, each a source."""
    sources: Mapping[str, list[SliceStatistics]] = {folder.name: statistics_of(folder) for folder in folders}
    return fit_training_range(sources, modality="CT", fingerprint=SPEC.fingerprint())
