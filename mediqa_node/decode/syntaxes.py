"""The transfer syntaxes that this installation can decode, and so the receiver may accept.

This is a table because asking pydicom would load every codec, and the receiver must stay small. A test compares the
table with pydicom. PS3.5 section 10 and annex A.

JPEG Extended (1.2.840.10008.1.2.4.51) is left out: it carries 12 bits in practice, and the decoders here read
only its 8-bit kind.
"""

from importlib.util import find_spec

_NATIVE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."

_BY_MODULE: dict[str, tuple[str, ...]] = {
    "gdcm": tuple(_JPEG + end for end in ("70", "57", "50")),
    "PIL": (_JPEG + "50",),
    "jpeg_ls": (_JPEG + "80", _JPEG + "81"),
    "openjpeg": tuple(_JPEG + end for end in ("90", "91", "201", "202", "203")),
}
_PACKAGES = {"gdcm": "python-gdcm", "PIL": "pillow", "jpeg_ls": "pyjpegls", "openjpeg": "pylibjpeg-openjpeg"}


def decodable_transfer_syntaxes() -> tuple[str, ...]:
    """Return the UIDs of all decodable transfer syntaxes, preferred ones first."""
    found = dict.fromkeys((*_NATIVE, _RLE))
    for module, syntaxes in _BY_MODULE.items():
        if find_spec(module) is not None:
            found.update(dict.fromkeys(syntaxes))
    return tuple(found)


def missing_decoders() -> dict[str, tuple[str, ...]]:
    """Map each missing decoder package to the transfer syntaxes that cannot be decoded without it."""
    readable = decodable_transfer_syntaxes()
    missing = {
        _PACKAGES[module]: tuple(uid for uid in syntaxes if uid not in readable)
        for module, syntaxes in _BY_MODULE.items()
        if find_spec(module) is None
    }
    return {package: syntaxes for package, syntaxes in missing.items() if syntaxes}
