"""`mediqa-node selfcheck` on a node with real series, and what `status` shows of it afterwards."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.bench import Bench, StandInScorer
from support.command import invoke_in
from support.series import ct_series, series_uid, uid

from mediqa_node.domain.policy import ScorePolicy
from mediqa_node.domain.promotion import Promotion, Weights
from mediqa_node.domain.self_check import FEWEST_PAIRS
from mediqa_node.storage import promotions

ACTIVE = Weights(name="stand-in", sha256=StandInScorer.checkpoint.sha256, card_sha256="")


class Site:
    """A node's folder whose active checkpoint is the stand-in scorer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "node.yaml").write_text(yaml.safe_dump({"node": {"data_dir": "var"}}))
        self.bench = Bench(folder / "var", score=ScorePolicy(primary="all", measures=()))
        self.promote(ACTIVE)

    def promote(self, weights: Weights) -> None:
        decision = Promotion(action="promote", at=self.bench.now, by="Curie", reason="", after=weights)
        with self.bench.database.write() as connection:
            promotions.save(connection, decision)

    def pairs(self, n: int, *, n_against: int = 0) -> list[str]:
        """Receive n pairs of thick and thin series; return the UIDs of the thick ones that score lower."""
        against = []
        for number in range(n):
            study, wrong = f"s{number}", number < n_against
            known = {"study": study, "event": study, "FrameOfReferenceUID": uid("frame", study), "slices": range(3)}
            thick = ct_series(
                self.folder / study / "thick", f"{study} thick", RescaleIntercept=-60 if wrong else 0, **known
            )
            thin = ct_series(
                self.folder / study / "thin",
                f"{study} thin",
                SliceThickness=2.5,
                RescaleIntercept=0 if wrong else -60,
                **known,
            )
            for paths in (thick, thin):
                self.bench.receive_all(paths, association=series_uid(paths)[-32:])
            if wrong:
                against.append(series_uid(thick))
        self.bench.pass_time(100)
        return against

    def status(self) -> list[str]:
        return [line for line in invoke_in(self.folder, "status").stdout.splitlines() if line.startswith("self-check")]


def row(shown: str, title: str) -> list[str]:
    """Return the cells of a row of the table."""
    [line] = [line for line in shown.splitlines() if line.startswith(title)]
    return re.split(r" {2,}", line.strip())[1:]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.bench.close()


def test_a_site_without_pairs_is_told_what_would_make_some(site: Site) -> None:
    done = invoke_in(site.folder, "selfcheck")

    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "thick against thin") == ["0", "0", "0", "–", "–"]
    assert f"thickness   too few pairs: {FEWEST_PAIRS} are needed (thicker slices of" in done.stdout
    assert "→ send both reconstructions of an acquisition: the same kernel" in done.stdout
    assert "→ set `score.primary: all`: now one reconstruction" in done.stdout
    assert "index of noise and artefacts" in done.stdout
    assert site.status()[0].endswith(": no pairs; run `mediqa-node selfcheck`")


def test_a_site_that_scores_every_reconstruction_is_not_told_to(site: Site) -> None:
    configured = {"node": {"data_dir": "var"}, "score": {"primary": "all"}}
    (site.folder / "node.yaml").write_text(yaml.safe_dump(configured))

    done = invoke_in(site.folder, "selfcheck")

    assert "→ send both reconstructions" in done.stdout
    assert "score.primary" not in done.stdout


def test_pairs_in_the_expected_order_are_counted_and_kept_for_status(site: Site) -> None:
    assert site.status() == []
    site.pairs(FEWEST_PAIRS)

    done = invoke_in(site.folder, "selfcheck")

    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "thick against thin") == ["8", "8", "0", "1.00", "0.68 to 1.00"]
    assert "thickness   the score orders these pairs as expected (" in done.stdout
    assert "not as expected" not in done.stdout
    [line] = site.status()
    assert line.endswith(": thickness 8 of 8; run `mediqa-node selfcheck`")


def test_a_score_that_does_not_order_the_pairs_fails_and_names_them(site: Site) -> None:
    against = site.pairs(FEWEST_PAIRS, n_against=5)

    done = invoke_in(site.folder, "selfcheck")
    listed = json.loads(invoke_in(site.folder, "selfcheck", "--json").stdout)
    keys = {row["series_instance_uid"]: row["key"] for row in json.loads(_series(site))}

    assert done.returncode == 1
    assert "thickness   the score does not order these pairs as expected (" in done.stdout
    assert "NOT ORDERED" in site.status()[0]
    assert {pair["better"] for pair in listed["disagree"]} == set(against)
    for pair in listed["disagree"]:
        assert pair["better_key"] == keys[pair["better"]]
        assert pair["better_key"] in done.stdout
        assert pair["difference"] == pytest.approx(pair["better_quality"] - pair["worse_quality"])
        assert not pair["tie"]
    assert "→ mediqa-node show " in done.stdout


def _series(site: Site) -> str:
    return invoke_in(site.folder, "series", "--json").stdout


def test_json_has_the_same_keys_with_pairs_and_without(site: Site) -> None:
    empty = json.loads(invoke_in(site.folder, "selfcheck", "--json").stdout)
    site.pairs(FEWEST_PAIRS)
    full = json.loads(invoke_in(site.folder, "selfcheck", "--json").stdout)

    assert set(empty) == set(full) == {
        "checked_at", "software_version", "weights", "figures", "holds", "recorded", "tolerance", "interval",
        "n_studies", "n_headers", "n_gone", "disagree",
    }  # fmt: skip
    assert [one["kind"] for one in full["figures"]] == ["thickness", "kernel", "repeat", "dose"]
    assert {key for one in (*empty["figures"], *full["figures"]) for key in one} == {
        "kind", "n", "n_expected", "n_ties", "share", "low", "high", "state",
    }  # fmt: skip
    first = full["figures"][0]
    assert (first["n"], first["n_expected"], first["share"], first["state"]) == (8, 8, 1.0, "orders")
    assert (full["holds"], full["recorded"], full["weights"]["sha256"]) == (True, True, ACTIVE.sha256)


def test_a_result_of_another_checkpoint_is_shown_as_outdated(site: Site) -> None:
    site.pairs(2)
    invoke_in(site.folder, "selfcheck")
    before = json.loads(invoke_in(site.folder, "status", "--json").stdout)["self_check"]

    site.promote(replace(ACTIVE, name="site", card_sha256="cd" * 32))

    [line] = site.status()
    after = json.loads(invoke_in(site.folder, "status", "--json").stdout)["self_check"]
    assert f": outdated, of stand-in {ACTIVE.sha256[:12]}: thickness 2 of 2; run `mediqa-node selfcheck`" in line
    assert (before["outdated"], after["outdated"]) == (False, True)
    assert before["figures"] == after["figures"]
    again = invoke_in(site.folder, "selfcheck")
    assert (again.returncode, "outdated" in site.status()[0]) == (0, False)


def test_a_part_of_the_check_is_not_kept(site: Site) -> None:
    site.pairs(2)

    of_kind = invoke_in(site.folder, "selfcheck", "--kind", "thickness")
    later = invoke_in(site.folder, "selfcheck", "--since", "2026-11-21", "--json")
    earlier = invoke_in(site.folder, "selfcheck", "--since", "2026-11-20", "--kind", "thickness", "--json")

    assert "soft against sharp" not in of_kind.stdout
    assert "not kept for `status`" in of_kind.stdout
    assert [one["n"] for one in json.loads(later.stdout)["figures"]] == [0, 0, 0, 0]
    assert [(one["kind"], one["n"]) for one in json.loads(earlier.stdout)["figures"]] == [("thickness", 2)]
    assert not json.loads(later.stdout)["recorded"]
    assert site.status() == []


@pytest.mark.parametrize(
    ("options", "named"), [(["--kind", "noise"], "thickness, kernel, repeat, dose"), (["--since", "today"], "today")]
)
def test_an_option_that_is_none_is_misuse(site: Site, options: list[str], named: str) -> None:
    refused = invoke_in(site.folder, "selfcheck", *options)

    assert (refused.returncode, named in refused.stderr) == (2, True)


def test_without_a_database_it_is_misuse(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(yaml.safe_dump({"node": {"data_dir": "var"}}))

    assert invoke_in(tmp_path, "selfcheck").returncode == 2


def test_no_identifier_of_a_patient_is_printed(site: Site) -> None:
    site.pairs(FEWEST_PAIRS, n_against=8)

    shown = [invoke_in(site.folder, "selfcheck", *options) for options in ([], ["--json"])]

    for done in shown:
        assert "SYN001" not in done.stdout + done.stderr
        assert "Wasser" not in done.stdout + done.stderr
