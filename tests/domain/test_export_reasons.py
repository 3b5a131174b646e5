"""Every reason for which an export leaves a series out has words."""

import re
from pathlib import Path

from mediqa_node.domain.export import REASONS, in_words

PRODUCT = Path(__file__).parents[2] / "mediqa_node"
SOURCES = [
    PRODUCT / "pipeline" / "export" / "select.py",
    PRODUCT / "pipeline" / "export" / "export.py",
    *(PRODUCT / "dicom").glob("*exclusions.py"),
    PRODUCT / "dicom" / "technique" / "harvest.py",
]
CODE = re.compile(r'(?:yield|return|code=|_excluded\(series,|NotScorable\() ?"([a-z_]+)"(?=[,)\n])')


def test_every_code_in_the_sources_has_words() -> None:
    codes = {code for path in SOURCES for code in CODE.findall(path.read_text(encoding="utf-8"))}

    assert len(codes) > 30
    assert codes - REASONS.keys() == set()


def test_an_unknown_code_is_shown() -> None:
    assert in_words("localizer", "some_new_code") == "localizer; some new code"
