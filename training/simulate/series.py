r"""Write whole DICOM series of known dose or field, which a node receives, harvests and exports like any other.

The noise of a tube charge (CT) or a field strength (MR) is inserted into seven neighbouring slices of real series,
so that source and inserted noise together match that charge or field. A source counts as scanned with `ct.SOURCE_MAS`;
MR noise is measured, and a source that is already noisier gives no copy at that field.

Technical attributes are those of the source, by the allow-list of the de-identifier; the exposure, or the field and
its resonance frequency, is written so that every rule of the harvest reads the same number. Image Type
(0008,0008) is ORIGINAL\PRIMARY, since a node does not train on derived images: that a series is simulated is recorded
in Patient's Name and ID, Series Description, Derivation Description (0008,2111) and Content Qualification (0018,9004)
RESEARCH. Never send them to a clinical archive.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.header import text
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.part10 import is_part10, read_header
from mediqa_node.dicom.prompts import default_rules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.domain.errors import ConfigurationError, NotScorable, UndecodablePixels
from mediqa_node.domain.images import Stack
from training.data.collection import ImageSet, files_of, held_out_sources
from training.data.manifest import MANIFEST_FILE, Row, write_manifest
from training.simulate import ct, mr
from training.simulate.degraded import quality_of, saturating
from training.simulate.dicom_copy import LEVELS, UNITS, BaseSeries, header_of, save, uid_of

LABELS_FILE, README_FILE = "labels.csv", "README.md"
SLICES = 7
"""Of a series: as many as the harvest needs, neighbours without a gap."""
_COLUMNS = "series_uid reader_id score scale_min scale_max scale_direction criterion study_id"
_README = """# Simulated series

{series} DICOM series of {patients} simulated patients, made by `mediqa-train simulate --dicom` with seed {seed}:
{levels}.
Noise was inserted into real slices; nothing else was degraded, and no reader has scored them. `{labels}` holds the
simulator's own quality (reader SIMULATOR, 0 to 1, larger is better, mean over the slices of a series), for
`mediqa-node annotations import`. It is not an opinion of an expert, and no claim about one can rest on it.
`{manifest}` is what `mediqa-train` reads without a node.
Every series is marked as simulated: Patient ID SIM-<n>, Series Description SIMULATED, Content Qualification
(0018,9004) RESEARCH. Send them to a node for trials, never to an archive of patients.
A copy shows the anatomy of its source, which a node takes for another patient: what is measured on either while the
other was trained on is too good.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A written series: base, folder, UID, level in mA.s or T, and the simulator's quality, 0..1."""

    base: BaseSeries
    paths: tuple[Path, ...]
    series_uid: str
    level: float
    quality: float

    @property
    def modality(self) -> str:
        """CT or MR."""
        return self.base.modality


def write_series(
    sets: Sequence[ImageSet],
    out: Path,
    *,
    series: int,
    held_out: Sequence[str] = (),
    seed: int,
    processes: int,
    advance: Callable[[int, int, str], None],
) -> list[Labelled]:
    """Write simulated series of the patients of a collection, `labels.csv`, a manifest and a README.

    Args:
        held_out: names of sources, or one fraction: their copies have split `test` in the manifest, all others `train`.
            If none of them is in the collection, training splits by patient.

    Raises:
        ConfigurationError: the folder is not empty, or the collection has too few series.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigurationError(f"{out} is not empty: give a new folder for simulated series")
    found = list(bases_of(sets))
    plan = _planned(found, series)
    out.mkdir(parents=True, exist_ok=True)
    written: list[Labelled] = []
    with ProcessPoolExecutor(max_workers=processes) as pool:
        tasks = [(base, levels, seed, out) for base, levels in plan]
        for done, one in enumerate(pool.map(_write_copies, tasks), start=1):
            written += one
            advance(done, len(plan), f"patient SIM-{one[0].base.patient}")
    _write_labels(written, out / LABELS_FILE)
    held = held_out_sources((one.base.source for one in written), held_out)
    write_manifest((_row(one, held) for one in written), out / MANIFEST_FILE)
    (out / README_FILE).write_text(_readme(written, seed), encoding="utf-8")
    return written


def bases_of(sets: Sequence[ImageSet]) -> Iterator[BaseSeries]:
    """Yield the patient series that can be copied: those for which a node would accept the copies for training."""
    patients = {source: n for n, source in enumerate(dict.fromkeys(s.source for s in sets if s.split == "dev"), 1)}
    number = 0
    for one in sets:
        for paths in _series_in(one.folder) if one.split == "dev" else ():
            if (base := _base(paths, number, one.source, patients[one.source])) is not None:
                yield base
                number += 1


def _series_in(folder: Path) -> Iterator[list[Path]]:
    """Yield the files of each series of uncompressed or compressed single-frame CT and MR images."""
    found = []
    for path in filter(is_part10, files_of(folder)):
        try:
            header = read_header(path)
        except UndecodablePixels:
            continue
        if modality_of(header) in LEVELS and "NumberOfFrames" not in header:
            found.append((text(header, "SeriesInstanceUID"), path))
    for _, members in groupby(sorted(found), key=lambda pair: pair[0]):
        yield [path for _, path in members]


def _base(paths: Sequence[Path], number: int, source: str, patient: int) -> BaseSeries | None:
    headers = [read_header(path) for path in paths]
    modality = modality_of(headers[0])
    try:
        stacks = assemble_stacks(headers)
    except NotScorable:
        return None
    for stack in stacks:
        for run in _runs(stack):
            mine = tuple(paths[index] for index in run)
            base = BaseSeries(
                number=number,
                patient=patient,
                source=source,
                prompt=prompt_from_header(headers, stack, default_rules()),
                paths=mine,
                spacing_mm=stack.spacing_mm[1],
                levels=_shown_by(modality, mine, [headers[index] for index in run]),
            )
            copies = [header_of(headers[index], base, LEVELS[modality][0], place, 0) for place, index in enumerate(run)]
            if base.levels and harvest(copies).eligible:
                return base
    return None


def _shown_by(modality: str, paths: Sequence[Path], headers: Sequence[Dataset]) -> tuple[float, ...]:
    """Return the levels that can be simulated: noise can be inserted but not removed."""
    if modality == "CT":  # a source counts as scanned with a charge above every level
        return LEVELS["CT"]
    bodies = ((image, mr.body(image)) for image in _images(paths, headers))
    noise = float(np.median([mr.own_noise(image, inside) / _signal(image, inside) for image, inside in bodies]))
    return tuple(level for level in LEVELS["MR"] if mr.NOISE_AT_1_T / level >= noise)


def _signal(image: np.ndarray, inside: np.ndarray) -> float:
    return float(image[inside].mean()) or 1.0


def _runs(stack: Stack) -> list[list[int]]:
    """Return runs of seven neighbouring instances of a stack, starting from its middle."""
    indices = [frame.instance_index for frame in stack.frames]
    starts = range(len(indices) - SLICES + 1)
    middle = (len(indices) - SLICES) / 2
    return [indices[start : start + SLICES] for start in sorted(starts, key=lambda start: abs(start - middle))]


def _planned(bases: Sequence[BaseSeries], series: int) -> list[tuple[BaseSeries, tuple[float, ...]]]:
    """Return the levels of each base, adding one to each base in turn until there are enough series."""
    possible = sum(len(base.levels) for base in bases)
    if series > possible:
        raise ConfigurationError(
            f"{series} series were asked for; {len(bases)} series of the collection can be copied, to {possible}: "
            f"a base has {SLICES} neighbouring single-frame slices of CT or MR that a node would train on"
        )
    longest = max(map(len, LEVELS.values()))
    turns = [(base, turn) for turn in range(longest) for base in bases if turn < len(base.levels)]
    chosen: dict[int, list[float]] = {base.number: [] for base in bases}
    for base, turn in turns[:series]:  # successive bases start at successive levels
        chosen[base.number].append(base.levels[(base.number + turn) % len(base.levels)])
    return [(base, tuple(chosen[base.number])) for base in bases if chosen[base.number]]


# ── one base ─────────────────────────────────────────────────────────────────


def _write_copies(task: tuple[BaseSeries, tuple[float, ...], int, Path]) -> list[Labelled]:
    base, levels, seed, out = task
    headers = [read_header(path) for path in base.paths]
    images = _images(base.paths, headers)
    degrade = _ct_copies if base.modality == "CT" else _mr_copies
    qualities = np.empty((len(levels), len(images)))
    names = [f"{level:g}{UNITS[base.modality]}" for level in levels]
    folders = [out / f"SIM-{base.patient}" / f"{base.number:03}-{name}" for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    for place, (header, image) in enumerate(zip(headers, images, strict=True)):
        random = np.random.default_rng([seed, base.number, place])
        for n, (copy, quality) in enumerate(degrade(image, base, levels, random)):
            qualities[n, place] = quality
            ds = header_of(header, base, levels[n], place, seed)
            save(ds, copy, folders[n] / f"{place + 1:03}.dcm")
    return [
        Labelled(
            base=base,
            paths=tuple(sorted(path.absolute() for path in folders[n].iterdir())),
            series_uid=uid_of(seed, "series", base.number, level),
            level=level,
            quality=float(np.clip(qualities[n].mean(), 0.0, 1.0)),
        )
        for n, level in enumerate(levels)
    ]


def _images(paths: Sequence[Path], headers: Sequence[Dataset]) -> list[np.ndarray]:
    """Return the slices in HU or signal, in the order of the files."""
    [stack] = assemble_stacks(headers)
    with FrameReader() as reader:
        image_at = image_getter(stack, paths, headers, reader, stored=False)
        by_instance = {frame.instance_index: image_at(index) for index, frame in enumerate(stack.frames)}
    return [np.asarray(by_instance[index], dtype=np.float32) for index in range(len(headers))]


Copies = Iterator[tuple[np.ndarray, float]]


def _ct_copies(image: np.ndarray, base: BaseSeries, levels: Sequence[float], random: np.random.Generator) -> Copies:
    """Yield a slice at each tube charge with its quality, all from one noise simulation."""
    spacing_mm = ct.pixel_mm(base.spacing_mm)
    noise = ct.noise_of(image, spacing_mm, random, kernel=ct.kernel_of(base.prompt))
    inside = ct.body(image)
    own_hu = ct.own_noise_hu(image, inside, spacing_mm)
    for mas in levels:
        inserted_mas = 1.0 / (1.0 / mas - 1.0 / ct.SOURCE_MAS)
        added = noise.at(inserted_mas, random.uniform(0.0, 2.0 * np.pi))
        total_hu = float(np.hypot(own_hu, added[inside].std()))
        yield np.clip(image + added, -1024.0, 3071.0), ct.quality_of_noise(total_hu)


def _mr_copies(image: np.ndarray, base: BaseSeries, levels: Sequence[float], random: np.random.Generator) -> Copies:
    """Yield a slice at each field strength with its quality: the magnitude after adding complex noise."""
    inside = mr.body(image)
    signal = _signal(image, inside)
    own = mr.own_noise(image, inside) / signal
    drawn = random.standard_normal((2, *image.shape))
    for tesla in levels:
        wanted = mr.NOISE_AT_1_T / tesla
        noise = drawn * np.sqrt(max(wanted**2 - own**2, 0.0)) * signal
        severity = saturating(max(wanted, own), mr.HALF_WAY["noise"])
        yield np.hypot(image + noise[0], noise[1]), quality_of({"noise": severity})


# ── files ────────────────────────────────────────────────────────────────────


def _write_labels(written: Sequence[Labelled], path: Path) -> None:
    """Write the long table of `mediqa-node annotations import`."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(_COLUMNS.split())
        for one in written:
            table.writerow(
                [one.series_uid, "SIMULATOR", f"{one.quality:.4f}", 0, 1, "higher_better", "overall", "simulated"]
            )


def _row(one: Labelled, held_out: frozenset[str]) -> Row:
    """Return a series as a row of the training manifest, without going through a node."""
    label = {"CT": "mas", "MR": "tesla"}[one.modality]
    words = one.base.prompt.words
    return Row(
        dimension=words["dimension"],
        modality=words["modality"],
        region=words["region"],
        type=words["type"],
        key=one.series_uid,
        patient=f"SIM-{one.base.patient}",
        source=one.base.source,
        split="" if not held_out else "test" if one.base.source in held_out else "train",
        payload_kind="dicom",
        paths=one.paths,
        label_name=label,
        label_value=one.level,
        mos=one.quality,
        eligible=True,
    )


def levels_of(written: Sequence[Labelled]) -> str:
    """Return a sentence with the number of series written by modality and level."""
    parts = []
    for modality, unit in UNITS.items():
        mine = [one.level for one in written if one.modality == modality]
        if mine:
            parts.append(f"{len(mine)} {modality} at {', '.join(f'{level:g}' for level in sorted(set(mine)))} {unit}")
    return "; ".join(parts)


def _readme(written: Sequence[Labelled], seed: int) -> str:
    patients = len({one.base.patient for one in written})
    return _README.format(
        series=len(written),
        patients=patients,
        seed=seed,
        levels=levels_of(written),
        labels=LABELS_FILE,
        manifest=MANIFEST_FILE,
    )
