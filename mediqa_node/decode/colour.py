"""Decide the colour model of a compressed frame: the codestream where it is unambiguous, else the label.

Photometric Interpretation (0028,0004) is often wrong: encoders transform RGB to YCbCr, and the label stays RGB, or the
reverse. A JPEG stream states its model in an Adobe APP14 marker, a JFIF APP0 marker, component identifiers `RGB`, or
subsampled chroma (ITU-T T.81, T.871, T.872); JPEG 2000 by the multiple component transformation in its COD marker
(ITU-T T.800 A.6.1). JPEG-LS, RLE and native pixels have nothing but the label.
"""

import struct
from dataclasses import dataclass, field

_JPEG = {"1.2.840.10008.1.2.4." + end for end in ("50", "51", "57", "70")}
LOSSY_JPEG = frozenset("1.2.840.10008.1.2.4." + end for end in ("50", "51"))
_JPEG_2000 = {"1.2.840.10008.1.2.4." + end for end in ("90", "91", "201", "202", "203")}

_APP0, _APP14, _START_OF_SCAN = 0xE0, 0xEE, 0xDA
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_ADOBE_TRANSFORMS = {0: "RGB", 1: "YBR_FULL"}
_SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"})
_SIZ, _COD, _START_OF_TILE = 0xFF51, 0xFF52, 0xFF90


@dataclass(frozen=True, slots=True)
class ColourModel:
    """The colour model of one frame.

    Attributes:
        name: `RGB` or `YBR_FULL` of the samples in the codestream, or the label where a codec needs it as it is.
        confirmed: False if only the label states it, where a codestream usually does; if the label is one that the
            samples cannot have; or if the markers of the codestream contradict each other.
    """

    name: str
    confirmed: bool = True


def has_model(transfer_syntax_uid: str) -> bool:
    """Whether codestreams of a transfer syntax may tell their colour model."""
    return transfer_syntax_uid in _JPEG or transfer_syntax_uid in _JPEG_2000


def colour_model(codestream: bytes, transfer_syntax_uid: str, label: str) -> ColourModel:
    """Return the colour model of a frame of three samples.

    Args:
        codestream: of one frame.
        label: Photometric Interpretation (0028,0004).
    """
    if transfer_syntax_uid in _JPEG:
        jpeg = _JpegHeader.of(codestream)
        if found := jpeg.model:
            return ColourModel(found, confirmed=jpeg.consistent)
        bare = transfer_syntax_uid in LOSSY_JPEG and jpeg.components == 3
        return ColourModel(_by_label(label), confirmed=not bare and label not in _SUBSAMPLED)
    if transfer_syntax_uid in _JPEG_2000:
        transformed = _is_transformed(codestream)
        if transformed:
            return ColourModel("RGB")  # every codec undoes the transformation
        claimed = label in ("YBR_ICT", "YBR_RCT")
        return ColourModel("RGB" if claimed else _by_label(label), confirmed=not claimed and label not in _SUBSAMPLED)
    return ColourModel(label)


def _by_label(label: str) -> str:
    return "YBR_FULL" if label.startswith("YBR") else "RGB"


def with_model(codestream: bytes, model: ColourModel) -> bytes:
    """Return a JPEG stream in which only an Adobe marker states the colour model, so that decoders agree on it.

    The markers APP0 and APP14 are replaced; a stream that is not JPEG is returned as it is.
    """
    header = _JpegHeader.of(codestream)
    if not header.components:
        return codestream
    transform = next(code for code, name in _ADOBE_TRANSFORMS.items() if name == model.name)
    adobe = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, transform)
    kept, position = [b"\xff\xd8", adobe], 2
    for start, end in header.markers:
        kept.append(codestream[position:start])
        position = end
    return b"".join((*kept, codestream[position:]))


@dataclass(slots=True)
class _JpegHeader:
    """What the markers before the first scan of a JPEG stream say; empty for another stream."""

    components: int = 0
    model: str | None = None
    consistent: bool = True
    """Whether all that states the model states the same."""
    markers: list[tuple[int, int]] = field(default_factory=list)
    """Start and end of APP0 and APP14 segments."""

    @classmethod
    def of(cls, codestream: bytes) -> "_JpegHeader":
        """Read the segments up to the first scan; a broken stream gives what was read until there."""
        found = cls()
        if codestream[:2] != b"\xff\xd8":
            return found
        jfif, adobe, ids, sampling = False, None, b"", set[int]()
        position = 2
        while position + 4 <= len(codestream) and codestream[position] == 0xFF:
            marker = codestream[position + 1]
            if marker == 0xFF:  # a fill byte
                position += 1
                continue
            end = position + 2 + struct.unpack_from(">H", codestream, position + 2)[0]
            body = codestream[position + 4 : end]
            if marker == _START_OF_SCAN:
                break
            if marker in (_APP0, _APP14):
                found.markers.append((position, end))
                jfif = jfif or (marker == _APP0 and body.startswith(b"JFIF\0"))
                if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
                    adobe = _ADOBE_TRANSFORMS.get(body[11])
            elif marker in _START_OF_FRAME and len(body) >= 6:
                found.components = body[5]
                ids, sampling = body[6::3], set(body[7::3])
            position = end
        if found.components == 3:
            stated = (  # in the order in which they decide
                "YBR_FULL" if len(sampling) > 1 else None,  # RGB has no chroma to subsample
                adobe,
                "RGB" if ids[:3].upper() == b"RGB" else None,
                "YBR_FULL" if jfif else None,
            )
            models = [model for model in stated if model]
            found.model, found.consistent = next(iter(models), None), len(set(models)) < 2
        return found


def _is_transformed(codestream: bytes) -> bool | None:
    """Whether the main header of a JPEG 2000 codestream uses a component transformation; None without a COD marker."""
    position = codestream.find(struct.pack(">HH", 0xFF4F, _SIZ))
    if position < 0:
        return None
    position += 2
    while position + 4 <= len(codestream):
        marker, length = struct.unpack_from(">HH", codestream, position)
        if marker == _START_OF_TILE:
            return None
        if marker == _COD:
            transformation = codestream[position + 8 : position + 9]
            return bool(transformation and transformation[0])
        position += 2 + length
    return None
