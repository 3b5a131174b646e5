"""Pictures of received images for pages: the scored slices, where they lie, patch maps, and the report as a tree.

Slices are decoded and converted by the code that scores, so that a reader sees what was scored. Gray slices leave as
16-bit numbers, which the page maps to gray levels by its own window.
"""

import gzip
import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.header import frame_header
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.images import FrameRef
from mediqa_node.image.foreground import background
from mediqa_node.image.maps.native import native_map
from mediqa_node.storage import assessments, lookup, outbox
from mediqa_node.storage.database import Database
from mediqa_node.storage.spool import Spool

THUMB_PX, SCOUT_PX, MAP_PX = 96, 256, 128
_SCOUT_SLICES = 96
_NO_MAP = 255
_INT16 = (-32768, 32767)
_LEAST_VALUES = 1024.0
"""A signal with a smaller range, such as a normalised one, is scaled up before it is rounded."""
_HEAD = struct.Struct("<IIddddI")


class NoPicture(MediqaError):
    """There is nothing to show: the images were deleted after retention, or the series was not scored."""


@dataclass(frozen=True, slots=True)
class PictureMaker:
    """Makes pictures from what a node has stored."""

    database: Database
    spool: Spool

    def make(self, what: str, arguments: Mapping[str, object]) -> bytes:
        """Return a picture, or another document, by name.

        Args:
            what: `slice`, `thumb`, `scout`, `map` or `report`.
            arguments: those of the method of this name.

        Raises:
            NoPicture: there is nothing to show.
            UndecodablePixels: the images cannot be decoded any more.
        """
        makers: dict[str, Callable[..., bytes]] = {
            "slice": self.slice,
            "thumb": self.thumb,
            "scout": self.scout,
            "map": self.map,
            "report": self.report,
        }
        return makers[what](**arguments)

    def slice(self, *, series: str, revision: int, index: int) -> bytes:
        """Return a scored slice: PNG of a colour photograph, else gzip of a head and little-endian int16.

        The head has rows, columns, slope, intercept, and center and width of the window in the file (PS3.3 C.11.2;
        width 0: none), and the height of a pixel over its width in millionths.
        """
        assessment = self._assessment(series, revision)
        frame = self._frame(assessment, index)
        image, header = self._image(frame)
        if image.ndim == 3:
            return _png(np.clip(image, 0, 255).astype(np.uint8))
        values, slope, intercept = _as_int16(image)
        center, width = _window(header, frame.frame_number)
        _, row_mm, column_mm = assessment.primary.stack.spacing_mm
        aspect = row_mm / column_mm if row_mm > 0 and column_mm > 0 else 1.0
        head = _HEAD.pack(image.shape[0], image.shape[1], slope, intercept, center, width, round(1e6 * aspect))
        return gzip.compress(head + values.astype("<i2").tobytes(), 1, mtime=0)

    def thumb(self, *, series: str, revision: int) -> bytes:
        """Return a small PNG of the middle one of the scored slices, in the window that the network read."""
        assessment = self._assessment(series, revision)
        slices = assessment.primary.slices
        image, _ = self._image(slices[len(slices) // 2].frame)
        return _png(_gray(image, assessment.primary.window), THUMB_PX)

    def scout(self, *, series: str, revision: int) -> bytes:
        """Return a PNG of the volume seen from the front or the side: the brightest value along each line.

        Rows are slices, the highest position first, so that the page can draw where the scored ones lie.
        """
        assessment = self._assessment(series, revision)
        stack = assessment.primary.stack
        if not stack.is_volume:
            raise NoPicture("a series without positions has no view from the side")
        count = len(stack.frames)
        chosen = sorted(
            {round(i * (count - 1) / (min(count, _SCOUT_SLICES) - 1)) for i in range(min(count, _SCOUT_SLICES))}
        )
        lines = self._lines([stack.frames[i] for i in chosen], assessment.primary.window)
        order = np.argsort([-stack.positions_mm[i] for i in chosen])
        low, high = min(stack.positions_mm), max(stack.positions_mm)
        wide_mm = stack.spacing_mm[2] * lines.shape[1] if stack.spacing_mm[2] > 0 else high - low
        tall = int(np.clip(SCOUT_PX * (high - low) / max(wide_mm, 1.0), 24, 2 * SCOUT_PX))
        picture = Image.fromarray(lines[order]).resize((SCOUT_PX, tall), Image.Resampling.BILINEAR)
        return _saved(picture)

    def _lines(self, frames: Sequence[FrameRef], window: tuple[float, float] | None) -> np.ndarray:
        """Return one line of gray levels for each frame: the mean over the middle third of its rows."""
        lines = []
        with FrameReader() as reader:
            paths, headers = self._files(frames)
            for frame in frames:
                uid = frame.sop_instance_uid
                image = to_image(reader.raw(paths[uid], frame.frame_number), headers[uid], frame.frame_number)
                rows = image.shape[0]
                lines.append(image[rows // 3 : max(rows // 3 + 1, 2 * rows // 3)].mean(axis=0))
        width = max(len(line) for line in lines)
        padded = np.stack([np.pad(line, (0, width - len(line)), mode="edge") for line in lines])
        return _gray(padded, window)

    def map(self, *, series: str, revision: int, index: int) -> bytes:
        """Return the patch map of a slice: gzip of rows and columns, then quality and weight of each cell as bytes.

        Quality is 0..254 for 0..1, 255 where there is none or only air.
        """
        assessment = self._assessment(series, revision)
        with self.database.read() as connection:
            maps = assessments.load_maps(connection, series, revision)
        if maps is None:
            raise NoPicture("the patch map was deleted after retention")
        frame = self._frame(assessment, index)
        image, _ = self._image(frame)
        found = native_map(maps, index, (image.shape[0], image.shape[1]))
        air = background(image, modality=assessment.primary.prompt.modality.value)
        quality = np.array(found.shown, dtype=np.float64)
        if found.quality is None:
            low, high = np.nanmin(quality), np.nanmax(quality)
            quality = (quality - low) / max(high - low, 1e-9)
        if air is not None:
            quality[air] = np.nan
        shape = (min(MAP_PX, image.shape[0]), min(MAP_PX, image.shape[1]))
        rows, columns = (np.linspace(0, n - 1, m).round().astype(int) for n, m in zip(image.shape, shape, strict=False))
        quality, weight = (part[rows][:, columns] for part in (quality, np.asarray(found.weights)))
        levels = np.where(np.isnan(quality), _NO_MAP, np.clip(np.nan_to_num(quality), 0, 1) * 254).astype(np.uint8)
        weights = (np.nan_to_num(weight) / max(float(np.nanmax(weight, initial=0.0)), 1e-9) * 255).astype(np.uint8)
        return gzip.compress(struct.pack("<II", *shape) + levels.tobytes() + weights.tobytes(), 1, mtime=0)

    def report(self, *, report: str) -> bytes:
        """Return the content tree of a report as JSON: depth, concept and value of each item."""
        with self.database.read() as connection:
            row = outbox.report_by_uid(connection, report)
        if row is None:
            raise NoPicture("there is no such report")
        tree: list[dict[str, object]] = []
        _walk(dcmread(io.BytesIO(row.part10)), 0, tree)
        return json.dumps(tree).encode()

    def _assessment(self, series: str, revision: int) -> Assessment:
        with self.database.read() as connection:
            assessment = assessments.load_assessment(connection, series, revision)
        if assessment is None:
            raise NoPicture("the series was not scored")
        return assessment

    @staticmethod
    def _frame(assessment: Assessment, index: int) -> FrameRef:
        slices = assessment.primary.slices
        if not 0 <= index < len(slices):
            raise NoPicture(f"there are {len(slices)} scored slices")
        return slices[index].frame

    def _files(self, frames: Sequence[FrameRef]) -> tuple[dict[str, Path], dict[str, Dataset]]:
        uids = list(dict.fromkeys(frame.sop_instance_uid for frame in frames))
        with self.database.read() as connection:
            found = lookup.files_of(connection, uids)
        if len(found) < len(uids):
            raise NoPicture("the images were deleted after retention")
        paths = {uid: self.spool.path(path) for uid, path in found.items()}
        try:
            return paths, {uid: read_header(path) for uid, path in paths.items()}
        except OSError as error:
            raise NoPicture(f"the images cannot be read: {error.strerror}") from error

    def _image(self, frame: FrameRef) -> tuple[np.ndarray, Dataset]:
        paths, headers = self._files([frame])
        uid = frame.sop_instance_uid
        with FrameReader() as reader:
            raw = reader.raw(paths[uid], frame.frame_number)
        return to_image(raw, headers[uid], frame.frame_number), headers[uid]


def _as_int16(image: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return an image as int16 with slope and intercept, exact for whole numbers in their range."""
    low, high = float(image.min()), float(image.max())
    exact = high - low >= _LEAST_VALUES and low >= _INT16[0] and high <= _INT16[1]
    if exact:
        return np.rint(image).astype(np.int16), 1.0, 0.0
    slope = (high - low) / (_INT16[1] - _INT16[0]) or 1.0
    intercept = low - slope * _INT16[0]
    return np.rint((image - intercept) / slope).clip(*_INT16).astype(np.int16), slope, intercept


def _window(header: Dataset, frame_number: int | None) -> tuple[float, float]:
    """Return Window Center (0028,1050) and Width (0028,1051), the first pair; (0, 0) without a usable one."""
    frame = frame_header(header, frame_number)
    center, width = frame.numbers("WindowCenter", signed=True), frame.numbers("WindowWidth")
    return (center[0], width[0]) if center and width and width[0] > 0 else (0.0, 0.0)


def _gray(image: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    if image.ndim == 3:
        return np.asarray(image.clip(0, 255), dtype=np.uint8)
    low, high = window if window is not None else (float(at) for at in np.percentile(image, (0.5, 99.5)))
    share = (image - low) / max(high - low, 1e-6)
    return np.asarray(255 * share.clip(0, 1), dtype=np.uint8)


def _png(pixels: np.ndarray, longest_px: int | None = None) -> bytes:
    picture = Image.fromarray(pixels)
    if longest_px is not None:
        picture.thumbnail((longest_px, longest_px))
    return _saved(picture)


def _saved(picture: Image.Image) -> bytes:
    into = io.BytesIO()
    picture.save(into, "PNG", compress_level=1)
    return into.getvalue()


def _walk(item: Dataset, depth: int, tree: list[dict[str, object]]) -> None:
    concept = item.get("ConceptNameCodeSequence")
    name = str(concept[0].CodeMeaning) if concept else ""
    tree.append({"depth": depth, "name": name, "kind": str(item.get("ValueType", "")), "value": _value(item)})
    for child in item.get("ContentSequence", ()):
        _walk(child, depth + 1, tree)


def _value(item: Dataset) -> str:
    """Return the value of a content item as text."""
    kind = str(item.get("ValueType", ""))
    if kind == "NUM":
        measured = item.get("MeasuredValueSequence")
        if not measured:
            return "no value"
        unit = measured[0].get("MeasurementUnitsCodeSequence")
        return f"{measured[0].NumericValue} {unit[0].CodeValue if unit else ''}".strip()
    if kind == "CODE":
        code = item.ConceptCodeSequence[0]
        return f"{code.CodeMeaning} ({code.CodeValue}, {code.CodingSchemeDesignator})"
    if kind in ("IMAGE", "COMPOSITE"):
        reference = item.ReferencedSOPSequence[0]
        frame = reference.get("ReferencedFrameNumber")
        return f"…{str(reference.ReferencedSOPInstanceUID)[-16:]}" + (f", frame {_plain(frame)}" if frame else "")
    for keyword in ("TextValue", "UID", "PersonName", "DateTime", "Date", "Time"):
        if keyword in item:
            return str(item[keyword].value)
    return ""


def _plain(value: object) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, MultiValue) else str(value)
