"""Where vendors of MR scanners write what the standard has no place for: b-values, and how many slices an image tiles.

One row for each vendor; a new one needs nothing else. Elements are resolved by their creator (PS3.5 section 7.8.1).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrivateElement:
    """A private element: its creator, group and the last two digits of its number."""

    creator: str
    group: int
    element: int

    def __str__(self) -> str:
        """Return the tag with its block left open, as in `(0019,xx0C)`."""
        return f"({self.group:04X},xx{self.element:02X})"


B_VALUES = (
    PrivateElement("SIEMENS MR HEADER", 0x0019, 0x0C),  # Siemens, syngo MR D: DICOM conformance statement
    PrivateElement("Philips Imaging DD 001", 0x2001, 0x03),  # Philips, MR R5: DICOM conformance statement
    PrivateElement("GEMS_PARM_01", 0x0043, 0x39),  # GE, DV26: conformance statement; may add a flag of 10^9
    PrivateElement("Image Private Header", 0x0065, 0x09),  # United Imaging: dcm_qa_uih, dcm2niix #225
)
"""Diffusion b-value in s/mm2, where (0018,9087) is missing."""

TILE_COUNTS = (PrivateElement("SIEMENS MR HEADER", 0x0019, 0x0A),)  # NumberOfImagesInMosaic
"""Number of slices that one image tiles; more than 1 is a mosaic. (United Imaging's (0065,xx50) is the number of slices
of a volume, which untiled images may have too.)"""

TILING_VENDORS = ("SIEMENS", "UIH", "UNITED IMAGING")
"""In Manufacturer (0008,0070) of scanners that tile slices: there the size of an image tells."""

TILED_TYPES = frozenset({"MOSAIC", "VFRAME"})
"""Words of Image Type (0008,0008): Siemens, United Imaging."""
