"""MR-ART (OpenNeuro ds004173): brain MR at rest and with head motion on command, scored by neuroradiologists.

Layout (BIDS): `sub-000103/anat/sub-000103_acq-headmotion1_T1w.nii.gz` (acq: standard, headmotion1, headmotion2) and
`derivatives/scores.tsv` with bids_name and score. Score 1 is good, 2 medium, 3 bad: **smaller is better**.
"""

from collections.abc import Iterator
from pathlib import Path

from training.adapters.contract import Match
from training.adapters.files import here_or_below, number, opinion, table
from training.data.dicom_rows import Left
from training.data.manifest import Row

NAME = "mr-art"
LICENCE = "CC0 (OpenNeuro ds004173)"
POLARITY = "score 1 good, 2 medium, 3 bad → 1, 0.5, 0"
EXPECTS = "ds004173: sub-*/anat/*_acq-*_T1w.nii.gz and derivatives/scores.tsv"
_SCORES = Path("derivatives") / "scores.tsv"
_BEST, _WORST = 1.0, 3.0


def probe(root: Path) -> Match | None:
    """Look for its scores next to subject folders."""
    for place in here_or_below(root):
        if (place / _SCORES).is_file() and any(place.glob("sub-*/anat")):
            return Match(root=place, found=str(_SCORES))
    return None


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every scored scan; the patient is the BIDS subject."""
    for row in table(root / _SCORES, delimiter="\t"):
        name, score = row.get("bids_name", "").removesuffix(".nii.gz"), number(row.get("score"))
        subject = name.split("_")[0]
        path = root / subject / "anat" / f"{name}.nii.gz"
        if (mos := opinion(score, worst=_WORST, best=_BEST)) is None:
            yield Left(reason="score is not 1 to 3")
        elif not subject.startswith("sub-") or not path.is_file():
            yield Left(reason="scans that scores.tsv rates", missing=True)
        else:
            yield Row(
                key=name,
                patient=subject,
                source="MR-ART",
                dimension="3D",
                modality="MR",
                region="brain",
                type="t1",
                payload_kind="nifti",
                paths=(path.absolute(),),
                label_name="tesla",
                label_value=3.0,
                mos=mos,
                licence=LICENCE,
            )
