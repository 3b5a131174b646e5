"""`mediqa-node score`: score files without a node."""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from mediqa_node.cli import app
from mediqa_node.cli.common import quiet, settings_of
from mediqa_node.cli.measure_table import print_measures
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, count, table
from mediqa_node.cli.progress import progress

INTERRUPTED = 130
"""Exit status after Ctrl-C (128 + SIGINT)."""
_HEADS = ("score", "verdict", "what", "file", "not scored because")
_WIDTHS = (9, 13, 28, 40, 0)
"""Of the columns when each line is printed as its series ends."""
_PROMPTS = ("dimension", "modality", "region", "type")


@app.command()
def score(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="DICOM, JPEG or PNG files, or folders of them.", exists=True)
    ],
    json: Json = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print each series as a line of JSON when done.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Checkpoint to use instead of the active one.", exists=True)
    ] = None,
    dump_input: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the network's input here, one NPZ file per series.")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write score maps here, as pictures and NPZ files.")
    ] = None,
    measures: Annotated[
        bool, typer.Option("--measures", help="Also print what was measured on the pixels, with units.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also print the numbers behind a refusal.")] = False,
) -> None:
    """Score files or folders without a node.

    If interrupted, the command prints the results so far. The exit status is 1 if a file could not be read or
    no image was found, 130 after an interruption.
    """
    from mediqa_node.composition import checkpoints
    from mediqa_node.pipeline.offline import Unreadable, dump_network_input, score_paths
    from mediqa_node.pipeline.score_map_files import write_maps

    quiet()  # logs go to standard error, the answer alone to standard output
    settings = settings_of(context)
    assessor = cache(lambda: checkpoints.open_folder(settings, model) if model else checkpoints.open_active(settings))
    also = [dump_network_input(dump_input)] if dump_input else []
    also += [write_maps(maps)] if maps else []
    shown = _Shown(as_lines=json_lines, as_array=json, verbose=verbose, with_measures=measures)
    unreadable: list[Unreadable] = []
    total = 0
    try:
        with progress("scoring") as advance:

            def note(done: int, n: int) -> None:
                nonlocal total
                total = n
                advance(done, n)

            named = settings.score.measured
            _, unreadable = score_paths(paths, assessor, advance=note, also=also, emit=shown.add, measures=named)
    except KeyboardInterrupt:
        shown.end()
        typer.echo(f"interrupted after {len(shown.results)} of {count(total, 'series', 'series')}", err=True)
        sys.exit(INTERRUPTED)
    shown.end()
    sys.exit(_closing(shown.results, unreadable, paths))


def _closing(results: list[dict[str, Any]], unreadable: list[tuple[Path, str]], paths: list[Path]) -> int:
    """Print what could not be read and the caveats; return the exit status."""
    for path, reason in unreadable:
        typer.echo(f"{path}: {reason}", err=True)
    if not results and not unreadable:
        typer.echo(f"no images found in {', '.join(map(str, paths))}", err=True)
        return 1
    if any(not result["trained"] for result in results if result["raw_score"] is not None):
        typer.echo("UNTRAINED WEIGHTS: these scores have no meaning.", err=True)
    typer.echo("Research use only – not for diagnosis.", err=True)
    return 1 if unreadable else 0


class _Shown:
    """Prints results: each as its series finishes, or all at the end as a table or a JSON array."""

    def __init__(self, *, as_lines: bool, as_array: bool, verbose: bool, with_measures: bool) -> None:
        self._verbose, self._with_measures = verbose, with_measures
        self.results: list[dict[str, Any]] = []
        self._as_lines, self._as_array = as_lines, as_array
        self._at_once = not as_lines and not as_array and not sys.stdout.isatty()

    def add(self, result: dict[str, Any]) -> None:
        if self._at_once and not self.results:
            _print_line(_HEADS)
        self.results.append(result)
        if self._as_lines:
            typer.echo(json.dumps(result, ensure_ascii=False))
        elif self._at_once:
            _print_line(_cells(result))
            self._print_details(result)
        sys.stdout.flush()

    def end(self) -> None:
        if self._as_array:
            as_json(self.results)
        elif self.results and not self._as_lines and not self._at_once:
            table(_HEADS, [_cells(result) for result in self.results])
            for result in self.results:
                self._print_details(result)

    def _print_details(self, result: dict[str, Any]) -> None:
        _print_prediction(result)
        _print_doubts(result)
        _print_range(result)
        if self._verbose and result["measured"]:
            typer.echo(f"{place(result['files'])}: {result['measured']}")
        if self._with_measures and result["measures"]:
            typer.echo(f"{place(result['files'])}: measured")
            print_measures(result["measures"])


def _print_line(cells: tuple[str, ...]) -> None:
    typer.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip())


def _cells(result: dict[str, Any]) -> tuple[str, ...]:
    prompt = result["prompt"] or {}
    words = " ".join(str(prompt[key]["value"]) for key in _PROMPTS if key in prompt)
    quality = result["quality"]
    return (
        _quality(result) if isinstance(quality, float) else _raw(result["raw_score"]),
        str(result["verdict"] or "–").replace("_", " "),
        words or str(result["modality"] or "–"),
        place(result["files"]),
        str(result["not_scored"] or ""),
    )


def _quality(result: dict[str, Any]) -> str:
    """Return the quality with two decimals, or more where two would show it on the other side of a threshold."""
    from mediqa_node.domain.assessment import Calibration, rounded

    calibration = result["calibration"]
    return str(rounded(result["quality"], Calibration(**calibration) if calibration else None))


def place(files: list[str]) -> str:
    """Return where the files of a series are: the file, or their folder and how many there are.

    >>> place(["scans/a.dcm"]), place(["scans/a.dcm", "scans/b.dcm"])
    ('scans/a.dcm', 'scans (2 files)')
    """
    if len(files) == 1:
        return files[0]
    folders = [Path(file).parent for file in files]
    if len({folder.is_absolute() for folder in folders}) > 1:  # given in both ways
        folders = [folder.absolute() for folder in folders]
    return f"{os.path.commonpath(folders)} ({len(files)} files)"


def _raw(score: object) -> str:
    """Return a raw score, for a checkpoint that does not map it to 0..1."""
    return f"raw {score:.3f}" if isinstance(score, float) else "–"


def _print_doubts(result: dict[str, Any]) -> None:
    """Print which header values of a scored series contradict each other or the images."""
    from mediqa_node.domain.technique import DOUBTS, doubts_in

    if result["raw_score"] is not None:
        flags = [*result["technique"]["flags"], *result["stacks"][0]["flags"]]
        if words := "; ".join(DOUBTS[doubt] for doubt in doubts_in(flags)):
            typer.echo(f"{place(result['files'])}: in doubt: {words}")


def _print_range(result: dict[str, Any]) -> None:
    """Print how far a stack is from the limit of the training range, if it is near or outside."""
    from mediqa_node.domain.range_position import RangePosition

    for stack in result["stacks"]:
        found = dict(stack["range_position"] or {})
        is_outside = found.pop("outside", False)
        if found and (position := RangePosition(**found)).is_near:
            what = "outside the training range" if is_outside else "near the limit of the training range"
            where = f"{place(result['files'])}: " if stack is result["stacks"][0] else f"  stack {stack['label']}: "
            typer.echo(f"{where}{what}: {position.details()}")


def _print_prediction(result: dict[str, Any]) -> None:
    """Print a supported prediction of the parameter head, with its error, next to the recorded value."""
    predicted = result["predicted"]
    if not predicted or not predicted["supported"]:
        return
    low, high = predicted["likely"]
    looks = f"looks like {low:.3g} to {high:.3g} {predicted['unit']}"
    recorded = predicted["recorded"]
    typer.echo(f"{place(result['files'])}: {looks}; {f'{recorded:.3g} recorded' if recorded else 'nothing recorded'}")
