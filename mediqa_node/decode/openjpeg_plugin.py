"""HTJ2K for pydicom through pylibjpeg-openjpeg alone (pydicom's own plugin also asks for pylibjpeg).

The interface of a pydicom decoding plugin: `is_available`, `DECODER_DEPENDENCIES` and a function.
"""

from importlib.util import find_spec

from pydicom.pixels.decoders import HTJ2KDecoder, HTJ2KLosslessDecoder, HTJ2KLosslessRPCLDecoder
from pydicom.pixels.decoders.base import DecodeRunner

_DECODERS = (HTJ2KDecoder, HTJ2KLosslessDecoder, HTJ2KLosslessRPCLDecoder)
_LABEL = "mediqa-openjpeg"

DECODER_DEPENDENCIES = {decoder.UID: ("pylibjpeg-openjpeg>=2.4",) for decoder in _DECODERS}


def register() -> None:
    """Register OpenJPEG with pydicom's HTJ2K decoders; a second call does nothing."""
    for decoder in _DECODERS:
        if _LABEL not in decoder.available_plugins:
            decoder.add_plugin(_LABEL, (__name__, "decode_frame"))


def is_available(uid: str) -> bool:
    """Whether `uid` can be decoded here."""
    return uid in DECODER_DEPENDENCIES and find_spec("openjpeg") is not None


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one HTJ2K frame; colour is returned as RGB, samples in 1, 2 or 4 bytes depending on precision."""
    from openjpeg import decode_pixel_data

    frame = bytearray(decode_pixel_data(source, version=2, **runner.options))
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16 if precision <= 16 else 32)
    return frame
