"""Image planes and their position in the patient, without pixels."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRef:
    """One image plane: an instance, or one frame of a multi-frame instance.

    Attributes:
        frame_number: from 1, as in Referenced Frame Number (0008,1160); None for single-frame objects.
        instance_index: position of the instance in the sequence of headers the stack was made from.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    instance_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StackKey:
    """The attributes that distinguish the stacks of a series; None if the header has no value."""

    orientation: tuple[float, ...] | None = None
    echo_time_ms: float | None = None
    temporal_position: int | None = None
    b_value: float | None = None
    acquisition_number: int | None = None
    image_type: str | None = None
    separated_by: str | None = None
    """What else separates planes at the same or interleaved positions, e.g. `phase 30 %` or `kernel B70f`."""

    def label(self) -> str:
        """Return a short label of the stack, e.g. `echo 80 ms, b 1000`."""
        parts = [
            f"echo {self.echo_time_ms:g} ms" if self.echo_time_ms is not None else "",
            f"time {self.temporal_position}" if self.temporal_position is not None else "",
            f"b {self.b_value:g}" if self.b_value is not None else "",
            f"acquisition {self.acquisition_number}" if self.acquisition_number is not None else "",
            self.image_type or "",
            self.separated_by or "",
        ]
        return ", ".join(part for part in parts if part) or "all images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Image planes of one series that belong together, in order along their normal.

    A series may hold several (localisers, echoes, time points, b-values). A 2-D image is a
    stack of one frame without geometry.

    Attributes:
        frames: in order of position along the normal; every position once.
        positions_mm: along the normal, ascending, one per frame; empty where there is no geometry.
        spacing_mm: slice, row and column spacing; slice spacing is the median step between
            positions, 0.0 for a single frame; row and column 0.0 where the header has none.
        origin_mm: Image Position (Patient) (0020,0032) of the first frame, LPS.
        orientation: Image Orientation (Patient) (0020,0037), or None.
        flags: what a physicist should know: `gap`, `uneven_spacing`, `gantry_tilt`,
            `duplicate_position`, ... Flags are never fatal.
    """

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str | None
    modality: str
    key: StackKey
    frames: tuple[FrameRef, ...]
    rows: int
    columns: int
    positions_mm: tuple[float, ...]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    flags: tuple[str, ...] = ()

    @property
    def is_volume(self) -> bool:
        """Whether the planes have positions along a common normal, so that a z-axis exists."""
        return len(self.positions_mm) > 1
