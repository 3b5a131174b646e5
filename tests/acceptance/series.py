"""The CT and MR series of a collection, and the tables that acceptance tests print of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acceptance.collection import image_sets

from mediqa_node.dicom.prompt_rules import default_rules
from mediqa_node.dicom.prompts import prompt_from_header
from mediqa_node.dicom.technique.stack_facts import body_part
from mediqa_node.domain.images import Stack
from mediqa_node.pipeline.score import SeriesFiles, read_headers


@dataclass(frozen=True)
class Series:
    """A series of the collection, with its stacks."""

    set_name: str
    files: SeriesFiles
    stacks: tuple[Stack, ...]
    body_part: str | None


def ct_and_mr(collection: Path, made: Path) -> dict[str, Series]:
    """Return the CT and MR series by Series Instance UID, without what the manifest wants refused.

    Args:
        made: folder for what has to be written.
    """
    found = {}
    for each in image_sets(collection, made):
        if not each.name.startswith(("ct_", "mr_")) or each.refused:
            continue
        for uid, files in by_uid(each.paths):
            region = prompt_from_header(files.headers, files.stacks[0], default_rules()).region.value
            found[uid] = Series(each.name, files, tuple(files.stacks), body_part(region))
    return found


def by_uid(paths: tuple[Path, ...]) -> Iterator[tuple[str, SeriesFiles]]:
    """Yield the files of each series of a set by Series Instance UID."""
    whole = read_headers(paths)
    uids = [str(header.SeriesInstanceUID) for header in whole.headers]
    for uid in dict.fromkeys(uids):
        yield uid, read_headers([path for path, own in zip(paths, uids, strict=True) if own == uid])


def print_table(heads: str, lines: list[str], *more: str) -> None:
    """Print a table, seen with `-s`."""
    print("\n" + "\n".join([heads, *lines, *more]))  # noqa: T201 (the table is what the run is for)
