"""The exported pixels of one series: decoded by the node's own code, under pseudonyms."""

from collections.abc import Iterator, Sequence

import numpy as np

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter, salient_images
from mediqa_node.dicom.deidentify.instance import deidentify
from mediqa_node.dicom.deidentify.native_pixels import put_pixels
from mediqa_node.dicom.header import frame_count
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.images import Stack
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.domain.technique import FrameTechnique
from mediqa_node.exchange import payload
from mediqa_node.exchange.folder import Writing
from mediqa_node.image.preprocess import preprocess
from mediqa_node.pipeline.export.select import ExportSource, Gathered
from mediqa_node.pipeline.score import SeriesFiles, check_scorable, read_headers
from mediqa_node.system import npz


def write_pixels(
    source: ExportSource,
    kind: str,
    series: Gathered,
    frames: Sequence[FrameTechnique],
    spec: PreprocessSpec | None,
    reader: FrameReader,
    into: Writing,
) -> str | None:
    """Write the payload of one series; return its path relative to the export, or None for no pixels.

    Args:
        kind: of `domain.export.PAYLOADS`.
        frames: technique of each image.
        spec: of the configured checkpoint; for `npz`.

    Raises:
        UndecodablePixels: a file cannot be decoded, or needs an attribute that may not leave.
        NotScorable: no even grid (`nifti`), or no input for the network (`npz`).
    """
    if kind == "refs":
        return None
    files = read_headers(series.paths)
    stacks = assemble_stacks(files.headers)
    place = f"images/{series.row['series_key']}"
    if kind == "dicom":
        for number, content in enumerate(_instances(source, stacks, files, reader)):
            into.put(f"{place}/{number:04}.dcm", content)
    elif kind == "nifti":
        payload.check_grid(stacks[0])
        image_at = image_getter(stacks[0], files.paths, files.headers, reader, stored=False)
        volume = payload.volume_of(image_at, len(stacks[0].frames))
        into.put(place := f"{place}.nii.gz", payload.nifti_bytes(volume, stacks[0]))
    elif kind == "npz":
        assert spec is not None
        into.put(place := f"{place}.npz", npz.packed(_arrays(series, frames, stacks[0], files, reader, spec)))
    return place


def _instances(
    source: ExportSource, stacks: tuple[Stack, ...], files: SeriesFiles, reader: FrameReader
) -> Iterator[bytes]:
    """Yield each instance with an image plane, in order of stacks and positions, de-identified."""
    order = dict.fromkeys(frame.instance_index for stack in stacks for frame in stack.frames)
    for index in order:
        header = files.headers[index]
        count = frame_count(header)
        numbers = range(1, count + 1) if count is not None else (None,)
        dataset = deidentify(header, source.pseudonyms)
        put_pixels(dataset, [reader.raw(files.paths[index], number) for number in numbers], header)
        yield payload.dicom_bytes(dataset)


def _arrays(
    series: Gathered,
    frames: Sequence[FrameTechnique],
    stack: Stack,
    files: SeriesFiles,
    reader: FrameReader,
    spec: PreprocessSpec,
) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ.

    `slices`: (n, rows, columns[, 3]), the salient slices in HU, rescaled signal or RGB 0..255, int16 if that holds
    them, else float32; `images`, `views`: see `payload.network_arrays`; `positions_mm`: (n,), empty without geometry;
    for CT `tube_charge_mas`: (n,), NaN where unknown.
    """
    modality, image_type = series.prompt.modality.value, series.prompt.type.value
    check_scorable(stack, series.prompt, spec)
    shown_at = image_getter(stack, files.paths, files.headers, reader, stored=spec.reads_stored_values)
    found = salient_images(stack, shown_at, spec, modality=modality)
    if found.failed:
        raise NotScorable("undecodable")
    inputs = preprocess(found.images, spec, modality=modality, image_type=image_type)
    places = {frame: index for index, frame in enumerate(stack.frames)}
    indices = [places[frame] for frame in found.frames]
    image_at = image_getter(stack, files.paths, files.headers, reader, stored=False)
    arrays = {
        "slices": payload.compact(np.stack([image_at(index) for index in indices])),
        **payload.network_arrays(inputs),
        "positions_mm": np.array([stack.positions_mm[index] for index in indices] if stack.positions_mm else []),
    }
    if modality == "CT":
        charge = {(one.sop_instance_uid, one.frame_number): one.tube_charge_mas for one in frames}
        values = [charge.get((frame.sop_instance_uid, frame.frame_number)) for frame in found.frames]
        arrays["tube_charge_mas"] = np.array([np.nan if mas is None else mas for mas in values])
    return arrays
