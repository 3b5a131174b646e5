"""Training, validation and test split: 8 : 1 : 1 by patient, the same in every export.

A patient's split is drawn from the patient's key alone (HMAC), so that further series, patients or exports cannot
change it. Patients who turn out to be the same person (one acquisition or the same pixels under two Patient IDs) form a
group. If their splits differ, no patient may change split, yet the group must not span two: it keeps the split of the
patient received first, and series of patients in other splits are left out. Links between patients have to be
remembered, because they are visible only while the series of both are kept. A series whose patient was corrected goes
over to the split of the right one, and links neither: two patients are not one because their images were mixed up.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.export import SPLITS, Row

FOLDS = 5
NO_LINKS: Mapping[tuple[str, str], float] = {}
_UP_TO = (0.8, 0.9, 1.0)
PATIENTS_FOR_EVERY_SPLIT = 35
"""With so many patients, validation and test are both filled with a probability of 95 %: 1 - 2 x 0.9^n + 0.8^n."""


class SplitsOverlap(MediqaError):
    """A patient, acquisition or image would be in two splits. Nothing is written; this is a bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One series, with the facts that decide its split.

    Attributes:
        links: keys that link it to other series: acquisition, pixels.
        received_at: when the node received its first instance, seconds since 1970.
        former_patients: keys of the patients whom it named until it was corrected.
    """

    series_key: str
    patient_key: str
    links: tuple[str, ...]
    received_at: float
    former_patients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The split of a series; None if it is left out."""

    split: str | None
    fold: int


def split_of(patient_key: str, pseudonyms: Pseudonyms) -> str:
    """Return the permanent split of a patient's key."""
    share = pseudonyms.share("split", patient_key)
    return next(split for split, bound in zip(SPLITS, _UP_TO, strict=True) if share < bound)


def links_of(members: Iterable[Member]) -> dict[tuple[str, str], float]:
    """Return, by link and patient key, when the node received the first such series; stored between exports."""
    found: dict[tuple[str, str], float] = {}
    for member in members:
        for link in member.links:
            bond = link, member.patient_key
            found[bond] = min(member.received_at, found.get(bond, member.received_at))
    return found


def withdrawn_links(members: Iterable[Member]) -> set[tuple[str, str]]:
    """Return the links, with patient keys, that past exports saw in series that have been corrected since."""
    members = tuple(members)
    former = {(link, patient) for member in members for link in member.links for patient in member.former_patients}
    return former - links_of(members).keys()


def place(
    members: Sequence[Member], pseudonyms: Pseudonyms, remembered: Mapping[tuple[str, str], float] = NO_LINKS
) -> dict[str, Placed]:
    """Return the split of every series, by its key.

    Args:
        remembered: `links_of` all members of past exports; may include the present ones.
    """
    links = links_of(members) | dict(remembered)
    first: dict[str, float] = {}
    for patient, at in [*((m.patient_key, m.received_at) for m in members), *((p, at) for (_, p), at in links.items())]:
        first[patient] = min(at, first.get(patient, at))
    speaks_for = {
        patient: min(group, key=lambda key: (first[key], key)) for group in _groups(first, links) for patient in group
    }
    placed = {}
    for member in members:
        speaker = speaks_for[member.patient_key]
        own, of_group = (split_of(key, pseudonyms) for key in (member.patient_key, speaker))
        fold = int(FOLDS * pseudonyms.share("fold", speaker))
        placed[member.series_key] = Placed(split=of_group if own == of_group else None, fold=fold)
    return placed


def _groups(patients: Iterable[str], links: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Return the patients that belong together, by union-find over shared links."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for patient in patients:
        root(patient)
    sharing: defaultdict[str, list[str]] = defaultdict(list)
    for link, patient in links:
        sharing[link].append(patient)
    for linked in sharing.values():
        for one, other in pairwise(linked):
            parent[root(one)] = root(other)
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for patient in parent:
        groups[root(patient)].add(patient)
    return list(groups.values())


def assert_apart(rows: Iterable[Row]) -> None:
    """Raise SplitsOverlap if two splits share a patient, an acquisition or an image."""
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        for name in ("patient_key", "acq_group_key", "pixel_sha256"):
            there = seen.setdefault((name, row[name]), row["split"]) if row.get(name) else row["split"]
            if there != row["split"]:
                raise SplitsOverlap(f"{name} {row[name]} would be in {there} and {row['split']}; please report it")


def splits_json(rows: Sequence[Row], pseudonyms: Pseudonyms) -> dict[str, Any]:
    """Return `splits.json`: series by split, and a leave-one-out split for each scanner."""
    by_split = {split: [row["series_key"] for row in rows if row["split"] == split] for split in SPLITS}
    return {
        "rule": "8:1:1 by patient, HMAC of the patient key; a patient never moves",
        "key_id": pseudonyms.key_id,
        "n_patients": {s: len({row["patient_key"] for row in rows if row["split"] == s}) for s in SPLITS},
        "split": by_split,
        "split_site": leave_scanner_out(rows),
    }


def leave_scanner_out(rows: Sequence[Row]) -> dict[str, dict[str, list[str]]]:
    """Return, by device key, `test`: its series, and `left_out`: other series of its patients; train on the rest."""
    result = {}
    for device in sorted({row["device_key"] for row in rows if row.get("device_key")}):
        patients = {row["patient_key"] for row in rows if row.get("device_key") == device}
        test = [row["series_key"] for row in rows if row.get("device_key") == device]
        others = [row for row in rows if row["patient_key"] in patients and row.get("device_key") != device]
        result[device] = {"test": test, "left_out": [row["series_key"] for row in others]}
    return result
