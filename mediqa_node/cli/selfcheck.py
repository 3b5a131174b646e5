"""`mediqa-node selfcheck`: does the score order the site's own pairs, whose order of quality is known from headers?"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mediqa_node import __version__
from mediqa_node.cli import app
from mediqa_node.cli.common import open_node, quiet
from mediqa_node.cli.dates import day
from mediqa_node.cli.options import Json
from mediqa_node.cli.present import as_json, count, fact, table
from mediqa_node.cli.progress import progress

if TYPE_CHECKING:
    from mediqa_node.domain.self_check import Figures, PairKind, ScoredPair, SelfCheck
    from mediqa_node.pipeline.checks.self_check import Compared

SHOWN_AT_MOST = 20


@app.command()
def selfcheck(
    context: typer.Context,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="thickness, kernel, repeat or dose; may be repeated. The default is all."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Compare series received on or after this day.")
    ] = None,
    json: Json = False,
) -> None:
    """Check that the score orders the site's own pairs.

    Two series of one study are a pair if their headers tell which has less noise: thick and thin slices or a soft and
    a sharp kernel of one acquisition, a repetition and the first series, two tube charges. Only scores of the active
    checkpoint are compared. The result without --kind and --since is kept for `status`. The exit status is 1 if the
    score does not order a kind with enough pairs.
    """
    from mediqa_node.composition import checkpoints, resources
    from mediqa_node.domain.self_check import Figures, SelfCheck
    from mediqa_node.pipeline.checks.self_check import compare_pairs
    from mediqa_node.storage import lookup, promotions, self_checks

    kinds, start = _kinds(kind), day(since, "--since")
    quiet()
    with open_node(context) as (settings, database):
        with database.read() as connection:
            weights = checkpoints.active_weights(settings, promotions.standing(connection))
        spool, rules = resources.open_spool(settings), checkpoints.prompt_rules(settings)
        with progress("comparing studies") as advance:
            found = compare_pairs(database, spool, rules, weights, kinds=kinds, since=start or 0.0, advance=advance)
        figures = tuple(Figures.of(one, found.pairs) for one in kinds)
        check = SelfCheck(checked_at=time.time(), software_version=__version__, weights=weights, figures=figures)
        is_whole = not kind and start is None
        if is_whole:
            with database.write() as connection:
                self_checks.save(connection, check)
        against = [pair for pair in found.pairs if not pair.agrees]
        uids = [uid for pair in against for uid in (pair.better, pair.worse)]
        with database.read() as connection:
            keys = lookup.short_keys(uids, lookup.all_series_uids(connection)) if uids else {}
    if json:
        as_json(_as_dict(check, found, against, keys, recorded=is_whole))
    else:
        _print(check, found, scores_all=settings.score.primary == "all")
        if against:
            _print_against(against, keys)
        if not is_whole:
            typer.echo("not kept for `status`: --kind or --since was given")
    sys.exit(not check.holds)


def _kinds(given: Sequence[str] | None) -> tuple[PairKind, ...]:
    from mediqa_node.domain.self_check import PairKind

    known = tuple(PairKind)
    for name in given or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r}: must be one of {', '.join(known)}", param_hint="--kind")
    return tuple(one for one in known if not given or one in given)


def _as_dict(
    check: SelfCheck, found: Compared, against: Sequence[ScoredPair], keys: Mapping[str, str], *, recorded: bool
) -> dict[str, object]:
    from mediqa_node.domain.self_check import TOLERANCE

    return {
        **check.as_dict(),
        "recorded": recorded,
        "tolerance": TOLERANCE,
        "interval": "Wilson, 95 %",
        "n_studies": found.n_studies,
        "n_headers": found.n_headers,
        "n_gone": found.n_gone,
        "disagree": [_pair_dict(pair, keys) for pair in against],
    }


def _pair_dict(pair: ScoredPair, keys: Mapping[str, str]) -> dict[str, object]:
    return {
        "kind": str(pair.kind),
        "better": pair.better,
        "better_key": keys[pair.better],
        "better_quality": pair.better_quality,
        "worse": pair.worse,
        "worse_key": keys[pair.worse],
        "worse_quality": pair.worse_quality,
        "difference": pair.difference,
        "tie": pair.is_tie,
    }


def _print(check: SelfCheck, found: Compared, *, scores_all: bool) -> None:
    """Print the figures of each kind, what they mean, and what would make more pairs."""
    from mediqa_node.domain.self_check import EXPECTATIONS, OF_ONE_ACQUISITION, SENTENCES, TOLERANCE, State

    fact("score of", check.weights.label)
    studies = count(found.n_studies, "study", "studies")
    fact("compared", f"{studies} with several scored series, {count(found.n_headers, 'header')} read")
    if found.n_gone:
        gone = count(found.n_gone, "series", "series")
        fact("", f"{gone} left out: the images are no longer kept, or a header cannot be read")
    table(("pairs", "n", "as expected", "ties", "share", "95 % (Wilson)"), [_cells(one) for one in check.figures])
    typer.echo(f"The score is an index of noise and artefacts; scores that differ by less than {TOLERANCE} are ties.")
    few = [one.kind for one in check.figures if one.state in (State.TOO_FEW, State.UNDECIDED)]
    for one in check.figures:
        fact(one.kind, f"{SENTENCES[one.state]} ({EXPECTATIONS[one.kind].because})")
        if one.kind in few:
            fact("", f"→ {EXPECTATIONS[one.kind].needs}")
    if not scores_all and OF_ONE_ACQUISITION & set(few):
        fact("", "→ set `score.primary: all`: now one reconstruction of an acquisition is scored, the others are not")


def _cells(one: Figures) -> tuple[str, ...]:
    from mediqa_node.domain.self_check import EXPECTATIONS

    interval = one.interval
    share = "–" if one.share is None else f"{one.share:.2f}"
    limits = "–" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
    return EXPECTATIONS[one.kind].title, str(one.n), str(one.n_expected), str(one.n_ties), share, limits


def _print_against(against: Sequence[ScoredPair], keys: Mapping[str, str]) -> None:
    """Print the pairs that the score does not order as expected, the largest difference first."""
    worst = sorted(against, key=lambda pair: pair.difference)
    heads = ("not as expected", "should be higher", "score", "should be lower", "score", "difference")
    rows = [
        (
            str(pair.kind),
            keys[pair.better],
            f"{pair.better_quality:.3f}",
            keys[pair.worse],
            f"{pair.worse_quality:.3f}",
            f"{pair.difference:+.3f}",
        )
        for pair in worst[:SHOWN_AT_MOST]
    ]
    table(heads, rows)
    if len(worst) > SHOWN_AT_MOST:
        typer.echo(f"{len(worst) - SHOWN_AT_MOST:,} more; `mediqa-node selfcheck --json` has all")
    typer.echo(f"→ mediqa-node show {keys[worst[0].better]}")
