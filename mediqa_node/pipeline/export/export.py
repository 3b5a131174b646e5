"""An export from beginning to end: select, split, write pixels, label, describe, rename into place.

The same database, spool, key, checkpoint and request give the same bytes: no clock is read, and everything is
sorted by key.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.deidentify.instance import METHODS
from mediqa_node.domain.errors import ConfigurationError, StorageFailed
from mediqa_node.domain.export import SPLITS, Excluded, ExportRequest, ExportSummary, Row, in_words
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.exchange.columns import ANNOTATIONS, EXCLUDED, MANIFEST, MEASURES, SCHEMA_VERSION, SLICES
from mediqa_node.exchange.croissant import croissant
from mediqa_node.exchange.dataset_card import dataset_card
from mediqa_node.exchange.folder import MARK, Writing, check_room, check_target, writing
from mediqa_node.exchange.normalizer import fit_normalizers, normalized
from mediqa_node.exchange.series_row import measure_rows, rating_row, slice_rows
from mediqa_node.exchange.splits import Member, assert_apart, links_of, place, splits_json, withdrawn_links
from mediqa_node.exchange.tables import ParquetTable, csv_bytes
from mediqa_node.pipeline.export.pixels import write_pixels
from mediqa_node.pipeline.export.select import ExportSource, Gathered, gather, reasons_of
from mediqa_node.storage import harvested, ratings

log = structlog.get_logger("export")

Advance = Callable[[str, int, int], None]
"""Called with the current step, how much of it is done, and of how much."""


def export(
    source: ExportSource, request: ExportRequest, out: Path, *, replace: bool = False, advance: Advance
) -> ExportSummary:
    """Write an export into `out`; after an error nothing is left there.

    Args:
        replace: whether to replace an existing export.

    Raises:
        ConfigurationError: `out` is taken, or no series is left to export.
        StorageFailed: no room.
        CheckpointRefused: network input is wanted, and the checkpoint's card cannot be read.
    """
    check_target(out, replace=replace)
    spec = source.spec() if request.payload == "npz" else None
    taken, left_out = gather(source, request, lambda done, total: advance("looking", done, total))
    taken, left_out = _split(taken, left_out, source)
    spare_bytes = source.spool.low_water_bytes  # with less free space the node receives nothing
    check_room(out, sum(series.n_bytes for series in taken), spare_bytes=spare_bytes)
    with writing(out, replace=replace, spare_bytes=spare_bytes) as into:
        leaving = _write_images(source, request, taken, spec, into, left_out, advance)
        if not leaving.rows:
            raise ConfigurationError(_nothing(left_out))
        assert_apart(leaving.rows)
        provenance = _provenance(source, request, spec.fingerprint() if spec else None)
        rows = _labelled(leaving.rows, source, provenance)
        left_out.sort(key=lambda one: one.series_key)
        into.put("slices.parquet", leaving.slices.content())
        into.put("measures.csv", csv_bytes(MEASURES, leaving.measures))
        if annotations := _annotations(source, leaving.keys):
            into.put("annotations.csv", csv_bytes(ANNOTATIONS, annotations))
        _write_tables(into, rows, left_out, provenance, source)
    summary = _summary(out, rows, left_out, into.n_bytes)
    log.info("export written", folder=str(out), series=len(rows), excluded=len(left_out), payload=request.payload)
    return summary


@dataclass(slots=True)
class _Leaving:
    """The export so far; `keys` are the series keys by Series Instance UID."""

    rows: list[Row] = field(default_factory=list)
    slices: ParquetTable = field(default_factory=lambda: ParquetTable(SLICES))
    measures: list[Row] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)


def _write_images(
    source: ExportSource,
    request: ExportRequest,
    taken: Sequence[Gathered],
    spec: PreprocessSpec | None,
    into: Writing,
    left_out: list[Excluded],
    advance: Advance,
) -> _Leaving:
    """Write the pixels of each series, if requested; series that cannot be exported go to `left_out`."""
    leaving = _Leaving()
    with FrameReader() as reader:
        for done, series in enumerate(taken):
            advance("writing", done, len(taken))
            with source.database.read() as connection:
                frames = harvested.frames_of(connection, series.series_instance_uid)
            try:
                path = write_pixels(source, request.payload, series, frames, spec, reader, into)
            except (ConfigurationError, StorageFailed):
                raise
            except Exception as error:  # a broken header or file must not stop the export of all others
                left_out.append(_left_out(series, error, into))
                continue
            key = series.row["series_key"]
            leaving.keys[series.series_instance_uid] = key
            leaving.rows.append(series.row | {"relative_path": path, "payload_kind": request.payload})
            leaving.slices.add(slice_rows(key, frames, source.pseudonyms))
            leaving.measures += measure_rows(key, series.measures)
    advance("writing", len(taken), len(taken))
    return leaving


def _split(
    taken: Sequence[Gathered], left_out: list[Excluded], source: ExportSource
) -> tuple[list[Gathered], list[Excluded]]:
    """Assign a split to every series; one that fits in none is left out."""
    members = [
        Member(
            series_key=series.row["series_key"],
            patient_key=series.row["patient_key"],
            links=tuple(key for name in ("acq_group_key", "pixel_sha256") if (key := series.row[name])),
            received_at=series.received_at,
            former_patients=series.former_patients,
        )
        for series in taken
    ]
    remembered = harvested.remember_links(source.database, links_of(members), withdrawn=withdrawn_links(members))
    placed = place(members, source.pseudonyms, remembered)
    stays = []
    for series in taken:
        where = placed[series.row["series_key"]]
        series.row.update(split=where.split, split_seed=source.pseudonyms.key_id, fold=where.fold)
        if where.split is None:
            left_out.append(_excluded(series, "split_conflict"))
        else:
            stays.append(series)
    return stays, left_out


def _excluded(series: Gathered, *reasons: str) -> Excluded:
    return Excluded(series_key=series.row["series_key"], modality=series.row["modality"], reasons=reasons)


def _left_out(series: Gathered, error: Exception, into: Writing) -> Excluded:
    """Remove what was written of a series, whose files retention may have deleted meanwhile."""
    into.drop(f"images/{series.row['series_key']}")
    return _excluded(series, *reasons_of(error, series.series_instance_uid))


def _nothing(left_out: Sequence[Excluded]) -> str:
    if not left_out:
        return "no series to export: the node has not received any"
    reasons = Counter(code for one in left_out for code in one.reasons)
    said = ", ".join(f"{in_words(reason)} {n}" for reason, n in reasons.most_common(6))
    return f"no series to export; left out: {said}. --all takes what may be scored"


def _provenance(source: ExportSource, request: ExportRequest, fingerprint: str | None) -> dict[str, Any]:
    statement = (
        "Headers: allow-list, everything else dropped, private elements and comments included; UIDs and Patient ID "
        "replaced by keyed pseudonyms (HMAC-SHA256); dates and times removed, reception as a year, age as a decade. "
        "Methods: " + ", ".join(f"{code} {meaning}" for code, meaning in METHODS) + ". Pixels are not altered: "
        "burned-in text is excluded by what headers say of it, faces by region unless `faces` is true."
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "node_version": source.software_version,
        "key_id": source.pseudonyms.key_id,
        "request": request.as_dict(),
        "preprocessing": fingerprint,
        "deidentification": {"statement": statement, "methods": [code for code, _ in METHODS]},
    }


def _labelled(rows: Sequence[Row], source: ExportSource, provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows with label map, version and, over all of it, the id of the export."""
    maps = fit_normalizers(rows)
    provenance["normalizer"] = maps
    done = [{**row, **normalized(row, maps), "node_version": source.software_version} for row in rows]
    export_id = sha256(csv_bytes(MANIFEST, done) + _json(provenance)).hexdigest()
    provenance["export_id"] = export_id
    return [row | {"export_id": export_id} for row in done]


def _annotations(source: ExportSource, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the raw ratings of the series that leave, by series, in order of import."""
    with source.database.read() as connection:
        kept = [one.rating for one in ratings.kept(connection) if one.rating.series_instance_uid in keys]
    rows = [rating_row(keys[rating.series_instance_uid], rating, source.pseudonyms) for rating in kept]
    return sorted(rows, key=lambda row: str(row["series_key"]))


def _write_tables(
    into: Writing,
    rows: Sequence[Row],
    left_out: Sequence[Excluded],
    provenance: dict[str, Any],
    source: ExportSource,
) -> None:
    """Write the manifest and the list of excluded series."""
    excluded = [
        {
            "series_key": one.series_key,
            "modality": one.modality,
            "reason": ";".join(one.reasons),
            "reason_text": in_words(*one.reasons),
        }
        for one in left_out
    ]
    into.put("manifest.csv", csv_bytes(MANIFEST, rows))
    manifest = ParquetTable(MANIFEST)
    manifest.add(rows)
    into.put("manifest.parquet", manifest.content())
    into.put("excluded.csv", csv_bytes(EXCLUDED, excluded))
    into.put("normalizer.json", _json(provenance.pop("normalizer")))
    into.put("splits.json", _json(splits_json(rows, source.pseudonyms)))
    into.put("croissant.json", _json(croissant(provenance["export_id"], into.sums, provenance)))
    card = dataset_card(provenance["export_id"], rows, left_out, provenance)
    into.put("README.md", card.encode())
    into.put(MARK, _json(provenance))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _summary(out: Path, rows: Sequence[Row], left_out: Sequence[Excluded], n_bytes: int) -> ExportSummary:
    return ExportSummary(
        folder=out,
        export_id=rows[0]["export_id"],
        n_series=len(rows),
        n_patients=len({row["patient_key"] for row in rows}),
        n_bytes=n_bytes,
        splits={split: sum(row["split"] == split for row in rows) for split in SPLITS},
        reasons=dict(Counter(code for one in left_out for code in one.reasons).most_common()),
    )
