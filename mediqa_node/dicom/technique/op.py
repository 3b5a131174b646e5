"""Read how a fundus photograph was taken (PS3.3 C.8.17). There is no dose-like label, so it is for stage 2 only."""

from mediqa_node.dicom.header import FrameHeader, text


def op_covariates(header: FrameHeader) -> dict[str, float | str | None]:
    """Return the acquisition of an ophthalmic photograph; units in the names, None where absent."""
    spacing = header.numbers("PixelSpacing")
    return {
        "manufacturer": header.text("Manufacturer"),
        "model": header.text("ManufacturerModelName"),
        "device_type": _meaning(header, "AcquisitionDeviceTypeCodeSequence"),
        "illumination_type": _meaning(header, "IlluminationTypeCodeSequence"),
        "light_path_filter": _meaning(header, "LightPathFilterTypeStackCodeSequence"),
        "image_path_filter": _meaning(header, "ImagePathFilterTypeStackCodeSequence"),
        "mydriatic_agent": "yes" if header.items("MydriaticAgentSequence") else None,
        "horizontal_field_of_view_deg": header.number("HorizontalFieldOfView"),
        "pupil_dilated": header.text("PupilDilated") or None,
        "degree_of_dilation_mm": header.number("DegreeOfDilation"),
        "illumination_power_uw": header.number("IlluminationPower"),
        "illumination_wavelength_nm": header.number("IlluminationWaveLength"),
        "emmetropic_magnification": header.number("EmmetropicMagnification"),
        "laterality": header.text("ImageLaterality") or None,
        "rows_px": header.number("Rows"),
        "columns_px": header.number("Columns"),
        "pixel_spacing_row_mm": next(iter(spacing), None),
        "lossy_ratio": header.number("LossyImageCompressionRatio"),
        # A vendor's own rating: a candidate stage-2 label.
        "vendor_quality_rating": _meaning(header, "WideFieldOphthalmicPhotographyQualityRatingSequence"),
    }


def _meaning(header: FrameHeader, sequence: str) -> str | None:
    return next((text(item, "CodeMeaning") for item in header.items(sequence)), None) or None
