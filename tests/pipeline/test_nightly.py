"""The nightly export: when it runs, what stays, and what a person is told."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.bench import Bench, KeptJobs, StandInScorer
from support.series import ct_series

from mediqa_node.composition import checkpoints, resources
from mediqa_node.config import Settings, load
from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.domain.policy import ExportRules
from mediqa_node.pipeline.export.nightly import Interrupted, NightlyExport, last_outcome
from mediqa_node.pipeline.export.select import ExportSource
from mediqa_node.pipeline.sweeps import schedule

DAY = 86_400.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "node")
    yield made
    made.close()


def nightly(bench: Bench, folder: Path, **rules: Any) -> NightlyExport:
    source = ExportSource(
        database=bench.database,
        spool=bench.spool,
        prompts=checkpoints.prompt_rules(Settings()),
        pseudonyms=Pseudonyms(b"n" * 32),
        spec=lambda: StandInScorer.spec,
        software_version="0.1.0",
    )
    return NightlyExport(
        source=lambda: source,
        rules=ExportRules(nightly="02:30", **rules),
        folder=folder,
        time_zone=UTC,
        clock=lambda: bench.now,
    )


def receive(bench: Bench, folder: Path) -> None:
    bench.receive_all(ct_series(folder, "one", slices=range(9), size_px=32))
    bench.pass_time(20, step_s=5)


def test_nights_on_a_wrong_clock_take_no_newer_export_away(bench: Bench, tmp_path: Path) -> None:
    receive(bench, tmp_path / "in")
    job = nightly(bench, tmp_path / "exports", keep=2)
    first = job.run(lambda: False)
    bench.now += 400 * 86400
    wrong = job.run(lambda: False)
    bench.now -= 399 * 86400

    right = job.run(lambda: False)

    assert [Path(str(made.folder)).is_dir() for made in (first, wrong, right)] == [False, True, True]


def test_each_night_has_its_folder_and_the_newest_stay(bench: Bench, tmp_path: Path) -> None:
    receive(bench, tmp_path / "in")
    job = nightly(bench, tmp_path / "exports", keep=2)
    (tmp_path / "exports" / "2020-01-01").mkdir(parents=True)  # somebody else's

    for _ in range(4):
        outcome = job.run(lambda: False)
        again = job.run(lambda: False)
        bench.now += DAY

    days = sorted(path.name for path in (tmp_path / "exports").iterdir() if not path.name.startswith("."))
    assert days == ["2020-01-01", "2026-11-22", "2026-11-23"]
    assert outcome.n_series == again.n_series == 1
    assert last_outcome(tmp_path / "exports") == again
    assert (tmp_path / "exports" / "2026-11-23" / "manifest.csv").is_file()


def test_a_night_without_anything_to_export_leaves_its_reason(bench: Bench, tmp_path: Path) -> None:
    outcome = nightly(bench, tmp_path / "exports").run(lambda: False)

    assert outcome.problem is not None
    assert outcome.problem.startswith("no series to export")
    assert last_outcome(tmp_path / "exports") == outcome


def test_a_process_that_ends_breaks_it_off_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    receive(bench, tmp_path / "in")

    with pytest.raises(Interrupted):
        nightly(bench, tmp_path / "exports").run(lambda: True)

    assert not (tmp_path / "exports").exists()


def test_what_was_left_by_nights_that_were_killed_is_tidied_up(bench: Bench, tmp_path: Path) -> None:
    receive(bench, tmp_path / "in")
    exports = tmp_path / "exports"
    for name in (".2026-11-17.part", ".2026-11-18.old", ".2026-11-19.part", "2026-11-19", ".2026-11-19.old"):
        (exports / name).mkdir(parents=True)
        (exports / name / "provenance.json").write_text(name)
    (exports / ".2026-11-17.lock").write_text("")
    (exports / ".mine.part").mkdir()

    nightly(bench, exports, keep=3).run(lambda: False)

    left = sorted(path.name for path in exports.iterdir())
    assert left == [".last.json", ".mine.part", "2026-11-18", "2026-11-19", "2026-11-20"]
    assert (exports / "2026-11-18" / "provenance.json").read_text() == ".2026-11-18.old"
    assert (exports / "2026-11-19" / "provenance.json").read_text() == "2026-11-19"


def test_an_export_that_is_half_forgotten_is_none(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(bench, tmp_path / "in")
    exports = tmp_path / "exports"
    (exports / "2026-11-19").mkdir(parents=True)
    (exports / "2026-11-19" / "provenance.json").write_text("{}")
    job = nightly(bench, exports, keep=1)

    def killed(folder: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("shutil.rmtree", killed)
        job.run(lambda: False)

    assert not (exports / "2026-11-19").exists()
    job.run(lambda: False)
    assert sorted(path.name for path in exports.iterdir()) == [".last.json", "2026-11-20"]


def test_a_fault_is_noted_by_its_kind_and_raised(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbling(*_: object, **__: object) -> None:
        raise ZeroDivisionError("Zwiebelfisch")

    monkeypatch.setattr("mediqa_node.pipeline.export.nightly.export", stumbling)

    with pytest.raises(ZeroDivisionError):
        nightly(bench, tmp_path / "exports").run(lambda: False)

    outcome = last_outcome(tmp_path / "exports")
    assert outcome is not None
    assert outcome.problem == "ZeroDivisionError; the courier's log says more"


def test_it_is_due_at_its_time_in_the_time_zone_of_the_node(bench: Bench, tmp_path: Path) -> None:
    job = nightly(bench, tmp_path / "exports")
    berlin = NightlyExport(
        source=job.source, rules=job.rules, folder=job.folder, time_zone=ZoneInfo("Europe/Berlin"), clock=job.clock
    )

    scheduler = schedule(bench.node, KeptJobs(), nightly=berlin)  # type: ignore[arg-type]
    without = schedule(bench.node, KeptJobs())  # type: ignore[arg-type]

    due = scheduler.get_job("export").trigger.get_next_fire_time(None, datetime.now(UTC))
    assert (due.hour, due.minute, str(due.tzinfo)) == (2, 30, "Europe/Berlin")
    assert without.get_job("export") is None


def test_it_is_off_unless_a_site_sets_a_time(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "node.yaml").write_text("export: {nightly: '02:30', folder: out, payload: npz}")
    settings = load(tmp_path / "node.yaml", {})

    assert resources.nightly_export(Settings(), bench.database) is None
    found = resources.nightly_export(settings, bench.database)
    assert found is not None
    assert found.folder == tmp_path / "var" / "out"
    assert found.source().pseudonyms.key_id == found.source().pseudonyms.key_id
