"""The series of a back-scored set as a table, one row each: CSV."""

from collections.abc import Iterable

from mediqa_node.domain.export import Row
from mediqa_node.exchange.columns import columns_of
from mediqa_node.exchange.tables import csv_bytes, no_formula

SCORES = columns_of("""
study_instance_uid    str   -    Study Instance UID (0020,000D)
series_instance_uid   str   -    Series Instance UID (0020,000E)
acquired              str   -    date and time of acquisition as recorded
modality              str   -    Modality (0008,0060)
scanner               str   -    Station Name (0008,1010), else model
protocol              str   -    Protocol Name (0018,1030), else Series Description
outcome               str   -    scored, alongside, refused, failed, changed or cancelled; else waiting or queued
reason                str   -    why it has no score
quality               float 1    score of the set, 0..1
verdict               str   -    against the calibration that was active
weights_sha256        str   -    of the set's checkpoint
own_quality           float 1    score of the series' own last assessment, 0..1
own_weights_sha256    str   -    of the checkpoint that made it
revision              int   -    assessment that the set made, or that its score is kept alongside
done_at               float s    since 1970-01-01 UTC
""")


def backscore_csv(rows: Iterable[Row]) -> bytes:
    """Return the series of a set as CSV (UTF-8), in the order given."""
    return csv_bytes(SCORES, ({name: no_formula(value) for name, value in row.items()} for row in rows))
