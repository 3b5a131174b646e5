"""Rows as files: CSV (RFC 4180, UTF-8, an empty field is null) and typed Parquet, the same rows the same bytes."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from mediqa_node.domain.export import Row
from mediqa_node.exchange.columns import Column


def csv_bytes(columns: Sequence[Column], rows: Iterable[Row]) -> bytes:
    """Return a CSV file with a header line; floats in the shortest form that reads back the same."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([column.name for column in columns])
    writer.writerows([_cell(row.get(column.name)) for column in columns] for row in rows)
    return text.getvalue().encode("utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def parquet_bytes(columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
    """Return a Parquet file; unit and meaning of each column stand in its field's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    fields = [
        pa.field(c.name, kinds[c.kind], metadata={"unit": c.unit, "meaning": c.meaning} if c.unit else None)
        for c in columns
    ]
    arrays = [pa.array([row.get(c.name) for row in rows], type=kinds[c.kind]) for c in columns]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), sink, compression="zstd")
    return sink.getvalue()
