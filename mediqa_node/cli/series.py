"""`mediqa-node series | show | explain`: list the series, and show or reproduce one of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import open_node
from mediqa_node.cli.dates import day
from mediqa_node.cli.measure_table import in_line
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, count, date, fact, held_step, since, table

if TYPE_CHECKING:
    from mediqa_node.config import Settings
    from mediqa_node.domain.series import SeriesState
    from mediqa_node.pipeline.origin import Origin
    from mediqa_node.storage.assessments import Scored
    from mediqa_node.storage.database import Connection
    from mediqa_node.storage.index import SeriesRow

SHOWN_AT_MOST = 40
Key = Annotated[str, typer.Argument(metavar="SERIES", help="Series Instance UID, or its last digits.")]


@app.command()
def series(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Show only this state, such as parked.")] = None,
    after: Annotated[
        str | None, typer.Option("--since", metavar="YYYY-MM-DD", help="Show series received on or after this day.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help=f"Show the newest N; 0 shows all. The default is {SHOWN_AT_MOST}."),
    ] = None,
    json: Json = False,
) -> None:
    """List the series, newest last.

    The first column is a short key that `show`, `explain` and `retry` accept. With --json all series are
    printed unless --limit is given.
    """
    from mediqa_node.storage import assessments, index, lookup

    chosen = [_state(state)] if state else []
    earliest = day(after, "--since") or 0.0
    with open_node(context) as (settings, database), database.read() as connection:
        rows = [row for row in index.series_in(connection, *chosen) if row.last_instance_at >= earliest]
        at_most = limit if limit is not None else 0 if json else SHOWN_AT_MOST
        n_older = max(0, len(rows) - at_most) if at_most else 0
        rows = rows[n_older:]
        uids = [row.series_instance_uid for row in rows]
        scored = assessments.scored(connection, uids)
        keys = lookup.short_keys(uids, lookup.all_series_uids(connection))
        origins = {} if json else _origins(settings, connection, uids)
    if json:
        as_json([_series_dict(row, scored.get(row.series_instance_uid), keys) for row in rows])
        return
    table(
        ("key", "received", "scanner", "series", "images", "state", "score", "reason"),
        [_cells(row, keys, origins[row.series_instance_uid], scored.get(row.series_instance_uid)) for row in rows],
    )
    if n_older:
        typer.echo(f"{n_older:,} older; `--limit 0` shows all")
    if any(not score.trained for score in scored.values()):
        typer.echo("UNTRAINED WEIGHTS: these scores have no meaning.")
    typer.echo(f"→ mediqa-node show {keys[rows[-1].series_instance_uid]}" if rows else "no series")


def _state(name: str) -> SeriesState:
    from mediqa_node.domain.series import SeriesState

    try:
        return SeriesState(name.upper())
    except ValueError:
        known = ", ".join(SeriesState).lower()
        raise typer.BadParameter(f"{name!r}: must be one of {known}", param_hint="--state") from None


def _origins(settings: Settings, connection: Connection, uids: list[str]) -> dict[str, Origin]:
    """Return scanner, date and description of each series, from the header of one of its kept instances."""
    from mediqa_node.composition import resources
    from mediqa_node.pipeline.origin import Origin, read_origin
    from mediqa_node.storage import lookup

    spool, files = resources.open_spool(settings), lookup.first_files(connection, uids)
    return {uid: read_origin(spool.path(files[uid])) if uid in files else Origin() for uid in uids}


def _cells(row: SeriesRow, keys: Mapping[str, str], origin: Origin, score: Scored | None) -> tuple[str, ...]:
    return (
        keys[row.series_instance_uid],
        date(row.last_instance_at)[5:16],
        origin.scanner or row.calling_ae_title,
        " ".join(filter(None, (row.modality, origin.description))),
        str(row.n_instances),
        row.state.lower().replace("_", " "),
        _short_score(score),
        str(row.reason or row.completion or ""),
    )


def _short_score(score: Scored | None) -> str:
    """Return the score, with its verdict if the site has calibrated it, or that it is outside the training range."""
    from mediqa_node.domain.assessment import rounded

    if score is None:
        return "–"
    quality = str(rounded(score.quality, score.calibration))
    return quality if score.verdict == "uncalibrated" else f"{quality} {score.verdict.replace('_', ' ')}"


def _series_dict(row: SeriesRow, score: Scored | None, keys: Mapping[str, str]) -> dict[str, object]:
    judged = {name: getattr(score, name, None) for name in ("quality", "verdict", "trained")}
    return {**row.as_dict(), **judged, "key": keys[row.series_instance_uid]}


# ── one series ───────────────────────────────────────────────────────────────


@app.command()
def show(context: typer.Context, uid: Key, json: Json = False) -> None:
    """Show one series.

    Prints origin, times, state, reason, score, measures, technique, deliveries and the next step; with --json
    everything on record.
    """
    from mediqa_node.storage import index, lookup, overview

    with open_node(context) as (settings, database), database.read() as connection:
        found_uid = lookup.series_uid(connection, uid)
        row = index.find_series(connection, found_uid) if found_uid else None
        if row is None:
            typer.echo(f"no series {uid}; `mediqa-node series` lists them", err=True)
            sys.exit(1)
        found = overview.whole_series(connection, row)
        key = lookup.short_keys([row.series_instance_uid], lookup.all_series_uids(connection))
        origin = _origins(settings, connection, [row.series_instance_uid])[row.series_instance_uid]
    if json:
        as_json(found)
        return
    for name, text in _facts(row, found, origin):
        fact(name, text)
    typer.echo(f"→ {_next_step(row, found, key[row.series_instance_uid])}")


def _facts(row: SeriesRow, found: Mapping[str, Any], origin: Origin) -> Iterator[tuple[str, str]]:
    from mediqa_node.domain.series import DeliveryState

    assessment, technique = found["assessment"], found["technique"]
    yield "series", row.series_instance_uid
    what = " ".join(filter(None, (row.modality, origin.description)))
    copies = ", ".join(f"{n} {status}" for status, n in found["copies"].items() if status != "current")
    yield "what", f"{what}, {count(row.n_instances, 'image')}{f' ({copies})' if copies else ''}"
    scanner = " ".join(filter(None, (origin.scanner, f"({origin.model})" if origin.model else "")))
    yield "from", ", ".join(filter(None, (scanner, f"sent by {row.calling_ae_title}")))
    yield "acquired", origin.acquired or "unknown"
    yield "received", since(row.last_instance_at)
    yield "state", f"{row.state.lower().replace('_', ' ')} since {since(row.state_at)}, revision {row.revision}"
    yield "reason", str(row.reason or (f"complete: {row.completion}" if row.completion else "still arriving"))
    yield "score", _score(assessment) if assessment else "–"
    if position := _position(assessment):
        yield "range", position
    yield "measures", in_line(found["measures"])
    if found["stands_out"]:
        yield "stands out", "; ".join(found["stands_out"])
    for score in found["back_scores"]:
        yield "back-scored", _back_score(score)
    if predicted := _predicted(assessment):
        yield "predicted", predicted
    yield "technique", _technique(technique) if technique else "–"
    if doubts := _doubts(technique, assessment):
        yield "in doubt", doubts
    deliveries = [delivery for delivery in found["deliveries"] if delivery["state"] != DeliveryState.SUPERSEDED]
    yield "report", "; ".join(_delivery(delivery) for delivery in deliveries[-3:]) or "not sent to any peer"
    for made in found["corrections"][-3:]:
        what = made["action"].replace("_", " ")
        yield (
            "corrected",
            f"{since(made['at'])} by {made['by']} ({what}): {count(made['n_set_aside'], 'copy', 'copies')}",
        )
    for back in found["retractions"]:
        waits = f"{back['state']}: {back['message'] or 'not tried yet'}"
        how = f", {back['message']}" if back["message"] else ""
        done = f"since {since(back['done_at'])}{how}" if back["done_at"] else waits
        yield "taken back", f"report at {back['destination']} ({back['reason'].replace('_', ' ')}), {done}"


def _score(assessment: Mapping[str, Any]) -> str:
    from mediqa_node.domain.assessment import Calibration, rounded

    primary, checkpoint = assessment["primary"], assessment["checkpoint"]
    words = " ".join(str(primary["prompt"][name]["value"]) for name in ("dimension", "modality", "region", "type"))
    slices = " ".join(f"{part['quality']:.2f}" for part in primary["slices"] if part["quality"] is not None)
    untrained = "" if checkpoint["trained"] else "; UNTRAINED WEIGHTS: the score has no meaning"
    calibration = Calibration(**assessment["calibration"]) if assessment["calibration"] else None
    quality = f"{rounded(primary['quality'], calibration)} of 1, {assessment['verdict'].replace('_', ' ')}"
    return f"{quality}, as {words}; slices {slices}; checkpoint {checkpoint['name']}{untrained}"


def _back_score(score: Mapping[str, Any]) -> str:
    kept = "kept alongside" if score["state"] == "alongside" else "as"
    what = f"{score['quality']:.2f} of 1, {score['verdict'].replace('_', ' ')}, by {score['weights_name']}"
    return f"{what} in set {score['set_id']}, {date(score['done_at'])}; {kept} revision {score['revision']}"


def _position(assessment: Mapping[str, Any] | None) -> str:
    """Return how far a series is from the limit of the training range, if it is near or outside."""
    from mediqa_node.domain.range_position import RangePosition

    found = assessment["primary"].get("range_position") if assessment else None
    position = RangePosition(**found) if found else None
    if position is None or not position.is_near:
        return ""
    what = "outside the training range" if position.is_outside else "near the limit of the training range"
    return f"{what}: {position.details()}"


def _predicted(assessment: Mapping[str, Any] | None) -> str:
    from mediqa_node.domain.scoring import Prediction

    found = assessment["primary"].get("prediction") if assessment else None
    predicted = Prediction(**found) if found else None
    if predicted is None or predicted.likely is None or not predicted.is_supported:
        return ""
    low, high = predicted.likely
    return f"{predicted.name} {low:.3g} to {high:.3g} {predicted.unit}"


_COVARIATES = (
    ("kvp_kv", "{:g} kV"),
    ("kernel", "kernel {}"),
    ("repetition_time_ms", "TR {:g} ms"),
    ("echo_time_ms", "TE {:g} ms"),
    ("slice_thickness_mm", "slices of {:g} mm"),
)


def _technique(technique: Mapping[str, Any]) -> str:
    values = []
    if technique["tube_charge_mas"] is not None:
        values.append(f"{technique['tube_charge_mas']:g} mAs ({technique['source']})")
    if technique["field_strength_t"] is not None:
        values.append(f"{technique['field_strength_t']:g} T ({technique['source']})")
    known = technique["covariates"]
    values += [form.format(known[name]) for name, form in _COVARIATES if known.get(name) is not None]
    excluded = ", ".join(exclusion["code"] for exclusion in technique["exclusions"])
    fit = "fit for training" if technique["eligible"] else f"not for training: {excluded or 'no label'}"
    return ", ".join([*values, fit])


def _doubts(technique: Mapping[str, Any] | None, assessment: Mapping[str, Any] | None) -> str:
    """Return in words which header values contradict each other or the images."""
    from mediqa_node.domain.technique import DOUBTS, doubts_in

    flags = list(technique["flags"]) if technique else []
    flags += assessment["primary"]["stack"]["flags"] if assessment else []
    return "; ".join(DOUBTS[doubt] for doubt in doubts_in(flags))


def _delivery(delivery: Mapping[str, Any]) -> str:
    at = f" {date(delivery['done_at'])}" if delivery["done_at"] else ""
    message = f" ({delivery['message']})" if delivery["message"] else ""
    return f"{delivery['destination']}: {delivery['state']}{at}{message}"


def _next_step(row: SeriesRow, found: Mapping[str, Any], key: str) -> str:
    from mediqa_node.domain.series import HELD, SeriesState

    if found["undecided"]:
        return f"mediqa-node retry {key} --keep-first"
    if any(row["state"] in HELD for row in found["retractions"]):
        return f"mediqa-node retry {key}"
    held = [delivery for delivery in found["deliveries"] if delivery["state"] in HELD]
    if held:
        return held_step(held[0]["id"], held[0]["destination"], held[0]["state"], held[0]["reason_code"])
    if row.state in (SeriesState.PARKED, SeriesState.WITHHELD):
        return f"mediqa-node retry {key}"
    if any(delivery["report_sop_instance_uid"] for delivery in found["deliveries"]):
        return f"mediqa-node explain {key}"
    return f"mediqa-node show {key} --json"
