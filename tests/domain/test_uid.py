"""One grammar of UIDs: what is refused while its sender has it can be referenced once it is stored."""

from collections.abc import Callable

import pytest
from support.receiving import Listening, Scu, ct, encode
from support.siblings import before_release

from mediqa_node.dicom.report.source import uid_of
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.uid import is_canonical_uid, is_uid

UIDS = ["1.2.3", "2.25.0", "1.2.840.0.1", "1.2." + "3" * 60]
ODD = ["1.02.3", "1" * 64, "9.9", "5"]
NONE = [
    "",
    "0",
    "00",
    "0" * 64,
    ".",
    "1.2.",
    ".1.2",
    "1..2",
    "1.2.840.99999..4",
    "1.2\n",
    "1.a",
    "1" * 65,
    "1 2",
    "١.٢",
]

SENDABLE = [text for text in (*UIDS, *ODD, *NONE) if text.isascii() and text.isprintable() and len(text) <= 64]


@pytest.mark.parametrize("text", UIDS)
def test_a_uid_is_numbers_between_dots(text: str) -> None:
    assert is_uid(text)
    assert is_canonical_uid(text)


@pytest.mark.parametrize("text", ODD)
def test_an_odd_uid_names_something_and_is_not_canonical(text: str) -> None:
    assert is_uid(text)
    assert not is_canonical_uid(text)


@pytest.mark.parametrize("text", NONE)
def test_anything_else_is_no_uid(text: str) -> None:
    assert not is_uid(text)
    assert not is_canonical_uid(text)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", *before_release("SeriesInstanceUID", "StudyInstanceUID")])
@pytest.mark.parametrize("text", SENDABLE)
def test_what_is_stored_can_be_referenced_and_what_cannot_is_refused(
    listening: Callable[..., Listening], keyword: str, text: str
) -> None:
    node = listening()
    image = ct()
    image[keyword]._value = text  # pydicom would warn
    with Scu(node.port) as scu:
        answer = scu.store(str(image.SOPInstanceUID), encode(image))
        scu.release()

    if answer.status == 0x0000:
        assert uid_of(image, keyword) == text
    else:
        assert answer.status == 0xC000
        with pytest.raises(InvalidInstance):
            uid_of(image, keyword)
    assert (answer.status == 0x0000) == is_uid(text)
