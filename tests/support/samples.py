"""Small stores of samples to train on: discs in noise, whose quality is how little noise there is."""

from pathlib import Path

import numpy as np

from training.data.store import Sample, Store

WORDS = {
    "CT": {"dimension": "3D", "modality": "CT", "region": "chest", "type": "soft"},
    "MR": {"dimension": "3D", "modality": "MR", "region": "brain", "type": "t1"},
    "OP": {"dimension": "2D", "modality": "OP", "region": "retina", "type": "cfp"},
}


def disc(edge: int, *, noise: float, seed: int, slices: int = 1) -> np.ndarray:
    """Return water of 40 HU in air, with noise in HU: (slices, edge, edge), float32."""
    y, x = np.mgrid[-1 : 1 : edge * 1j, -1 : 1 : edge * 1j]
    clean = np.where(x**2 + y**2 < 0.6, 40.0, -1000.0)
    added = np.random.default_rng(seed).normal(0.0, noise, (slices, edge, edge))
    return np.rint(clean + added).astype(np.float32)


def sample(key: str, *, base: str = "", modality: str = "CT", split: str = "train", **more: object) -> Sample:
    """Return a sample whose pixels are still to come."""
    base = base or key
    known: dict[str, object] = {"labels": {"quality": 0.5}, "patient": base, "source": base}
    return Sample(key=key, base=base, split=split, prompt=WORDS[modality], **known | more)  # type: ignore[arg-type]


def ct_store(folder: Path, *, bases: int = 3, copies: int = 4, slices: int = 1) -> Store:
    """Write copies of discs that differ in noise and mAs."""
    store = Store(folder)
    for base in range(bases):
        store.add(
            [
                (
                    sample(
                        f"{base}-{copy}",
                        base=f"b{base}",
                        labels={"quality": 1.0 - 0.2 * copy, "mas": 200.0 / (1 + copy)},
                    ),
                    disc(64, noise=5.0 + 40.0 * copy, seed=10 * base + copy, slices=slices),
                )
                for copy in range(copies)
            ]
        )
    return store
