"""CT series as a table of noise, size and dose, for a site's own review: CSV with a note in its first line."""

from collections.abc import Iterable

from mediqa_node.domain.export import Row
from mediqa_node.domain.measures import MeasuredStack
from mediqa_node.exchange.columns import columns_of
from mediqa_node.exchange.tables import csv_bytes, no_formula

NOTE = (
    "# not the eCQM calculation (CMS1056, CMS1074, CMS1206): measured by mediqa-node on each series; "
    "no exam is categorised and no threshold is applied. Research use only"
)
EXAMS = columns_of("""
study_instance_uid    str   -    Study Instance UID (0020,000D): one exam
series_instance_uid   str   -    Series Instance UID (0020,000E)
acquired              str   -    date and time of acquisition as recorded
scanner               str   -    Station Name (0008,1010), else model
protocol              str   -    Protocol Name (0018,1030), else Series Description
body_part             str   -    head, body, or empty
noise_hu              float HU   ct.noise.soft
noise_uncertainty_hu  float HU   its standard uncertainty, k = 1
noise_validity        str   -    valid, limited or not measurable
dw_mm                 float mm   ct.dw, water-equivalent diameter
dw_uncertainty_mm     float mm   its standard uncertainty, k = 1
dw_validity           str   -    valid, limited or not measurable
ctdi_vol_mgy          float mGy  CTDIvol of images or dose report
ctdi_phantom_cm       float cm   16 or 32; empty for any other phantom or none
ssde_mgy              float mGy  ct.ssde, size-specific dose estimate
ssde_validity         str   -    valid, limited or not measurable
kernel                str   -    Convolution Kernel (0018,1210)
recon_class           str   -    fbp, hybrid_ir, mbir, dlr or unknown
slice_thickness_mm    float mm   Slice Thickness (0018,0050)
reasons               str   -    why a measure is limited or not measurable
""")
_MEASURES = {"noise": ("ct.noise.soft", "hu"), "dw": ("ct.dw", "mm"), "ssde": ("ct.ssde", "mgy")}
_CONTEXT = (
    "study_instance_uid", "series_instance_uid", "acquired", "scanner", "protocol", "body_part", "ctdi_vol_mgy",
    "ctdi_phantom_cm", "kernel", "recon_class",
)  # fmt: skip


def exam_csv(measured: Iterable[MeasuredStack]) -> bytes:
    """Return CT series as CSV (UTF-8), sorted by study and series; the first line says what it is not."""
    rows = sorted((_row(one) for one in measured if one.modality == "CT"), key=_order)
    return f"{NOTE}\r\n".encode() + csv_bytes(EXAMS, rows)


def _order(row: Row) -> tuple[str, str]:
    return str(row["study_instance_uid"]), str(row["series_instance_uid"])


def _row(one: MeasuredStack) -> Row:
    row = {name: no_formula(getattr(one, name)) for name in _CONTEXT}
    row["slice_thickness_mm"] = one.thickness_mm
    reasons = []
    for column, (name, unit) in _MEASURES.items():
        if (measure := one.measure(name)) is None:
            continue
        row |= {
            f"{column}_{unit}": measure.value,
            f"{column}_uncertainty_{unit}": measure.uncertainty,
            f"{column}_validity": str(measure.validity),
        }
        reasons += [f"{name}: {measure.reason}"] * bool(measure.reason)
    return row | {"reasons": "; ".join(reasons) or None}
