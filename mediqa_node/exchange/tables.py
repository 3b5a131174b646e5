"""Rows as CSV (RFC 4180, UTF-8, an empty field is null) and typed Parquet; the same rows give the same bytes."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mediqa_node.domain.export import Row
from mediqa_node.exchange.columns import Column

if TYPE_CHECKING:
    import pyarrow as pa

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes text that begins so for a formula."""


def csv_bytes(columns: Sequence[Column], rows: Iterable[Row]) -> bytes:
    """Return a CSV file with a header line; floats in the shortest form that reads back the same."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([column.name for column in columns])
    writer.writerows([_cell(row.get(column.name)) for column in columns] for row in rows)
    return text.getvalue().encode("utf-8")


def no_formula(value: object) -> object:
    """Return text of a header so that no spreadsheet takes it for a formula; anything else as it is.

    >>> no_formula("=1+1"), no_formula(-3.5)
    ("'=1+1", -3.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


class ParquetTable:
    """A Parquet file built in chunks of rows and held as columns: a node has hundreds of thousands of slices.

    The field metadata has the unit and meaning of each column.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._schema = _schema(columns)
        self._batches: list[pa.RecordBatch] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        import pyarrow as pa

        arrays = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in self._schema]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def content(self) -> bytes:
        """Return the file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.Table.from_batches(self._batches, self._schema).combine_chunks(), sink, compression="zstd")
        return sink.getvalue()


def _schema(columns: Sequence[Column]) -> "pa.Schema":
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    return pa.schema(
        pa.field(c.name, kinds[c.kind], metadata={"unit": c.unit, "meaning": c.meaning} if c.unit else None)
        for c in columns
    )
