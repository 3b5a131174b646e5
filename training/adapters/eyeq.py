"""EyeQ: quality grades for the fundus photographs of Kaggle's diabetic retinopathy competition.

Layout: `Label_EyeQ_train.csv` and `Label_EyeQ_test.csv` (columns: number, image, quality, DR_grade) and, anywhere
below the folder, the photographs of Kaggle, `10_left.jpeg` or as PNG; both eyes of a patient share the number.
Quality 0 is good, 1 usable, 2 reject: **smaller is better**. Kaggle's own `trainLabels.csv` grades the retinopathy,
not the image, and is refused on its own.
"""

from collections.abc import Iterator
from pathlib import Path

from training.adapters.contract import Match
from training.adapters.files import here_or_below, table
from training.data.dicom_rows import Left
from training.data.manifest import Row

NAME = "eyeq"
LICENCE = "labels CC BY-NC-SA; photographs: rules of Kaggle's Diabetic Retinopathy Detection"
POLARITY = "quality 0 good, 1 usable, 2 reject → 1, 0.5, 0"
EXPECTS = "Label_EyeQ_train.csv and Label_EyeQ_test.csv above the photographs of Kaggle (10_left.jpeg)"
_TABLES = ("Label_EyeQ_train.csv", "Label_EyeQ_test.csv")
_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
_QUALITY = {"0": 1.0, "1": 0.5, "2": 0.0}


def probe(root: Path) -> Match | None:
    """Look for EyeQ's tables; Kaggle's table alone, or EyeQ's without photographs, is recognised but refused."""
    tables = _tables(root)
    if not tables:
        if not any((place / "trainLabels.csv").is_file() for place in here_or_below(root)):
            return None
        return Match(
            root=root,
            found="trainLabels.csv of Kaggle",
            refusal="its `level` is the grade of diabetic retinopathy, not image quality: a sick eye may be perfectly "
            "photographed. Put Label_EyeQ_train.csv and Label_EyeQ_test.csv of EyeQ next to the photographs",
        )
    found = " and ".join(file.name for file in tables)
    if _photographs(root):
        return Match(root=root, found=found)
    why = "no photographs below this folder: EyeQ holds labels only; bring the images of Kaggle's competition"
    return Match(root=root, found=found, refusal=why)


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every photograph, keeping EyeQ's test set."""
    photographs = _photographs(root)
    for file in _tables(root):
        for row in table(file):
            name, quality = Path(row.get("image", "")).stem, row.get("quality", "")
            if quality not in _QUALITY:
                yield Left(reason="quality is not 0, 1 or 2")
            elif (path := photographs.get(name)) is None:
                yield Left(reason=f"photographs that {file.name} grades", missing=True)
            else:
                yield Row(
                    key=name,
                    patient=name.split("_")[0],
                    source="EyeQ",
                    split="test" if file.name == _TABLES[1] else "",
                    dimension="2D",
                    modality="OP",
                    region="retina",
                    type="cfp",
                    payload_kind="image",
                    paths=(path,),
                    mos=_QUALITY[quality],
                    licence=LICENCE,
                )


def _tables(root: Path) -> list[Path]:
    places = [place for one in here_or_below(root) for place in (one, one / "data")]
    found = (place / name for place in places for name in _TABLES)
    return sorted({path for path in found if path.is_file()}, reverse=True)


def _photographs(root: Path) -> dict[str, Path]:
    """Return the photographs by name without suffix."""
    return {path.stem: path.absolute() for path in sorted(root.rglob("*")) if path.suffix.lower() in _SUFFIXES}
