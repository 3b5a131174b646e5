"""Weights are promoted while a node works: who scores, what a report says, and what must not change."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.bench import Bench
from support.checkpoints import checkpoint
from support.node import Node
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, series_uid
from support.waiting import until

from mediqa_node import config
from mediqa_node.composition import checkpoints, resources
from mediqa_node.domain.assessment import Calibration
from mediqa_node.domain.constancy import Constancy
from mediqa_node.domain.errors import CheckpointRefused, PromotionRefused
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.promotion import Promotion, Who
from mediqa_node.model.lock import LOCK_FILE, WEIGHTS_FILE
from mediqa_node.model.prompt_classifier import ClassifierCard, ClassifierNetwork, save_classifier
from mediqa_node.network.sender import send_files
from mediqa_node.pipeline.checkpoints import promote as promotion
from mediqa_node.pipeline.checks.constancy import check
from mediqa_node.storage import assessments, constancy_checks

pytestmark = pytest.mark.usefixtures("one_decoder")

WHO = Who(by="Dr. Curie", reason="readers agree with it", at=1000.0)


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted() as running:
        yield running


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints, as training leaves them."""
    folder = tmp_path_factory.mktemp("trained")
    return checkpoint(folder, "first", seed=1), checkpoint(folder, "second", seed=2)


@pytest.fixture
def settings(tmp_path: Path, folders: tuple[Path, Path]) -> config.Settings:
    """A node whose configuration names the first, and that has a database."""
    (tmp_path / "node.yaml").write_text(f"model: {{lock: {folders[0]}/models.lock, checkpoint: first, device: cpu}}")
    found = config.load(tmp_path / "node.yaml", {})
    resources.prepare(found)
    return found


def promote(settings: config.Settings, folder: Path) -> Promotion:
    database = resources.open_database(settings)
    stored, assessor = checkpoints.take_into_store(settings, str(folder))
    made, _ = promotion.promote(
        database,
        stored.weights,
        assessor,
        configured=checkpoints.configured(settings),
        who=WHO,
        software_version="0.1.0",
    )
    database.close()
    return made


def send(node: Node, paths: list[Path]) -> None:
    us = Peer(name="us", ae_title="MEDIQA", host="127.0.0.1", port=node.port)
    assert all(not failure for _, failure in send_files(us, paths, ae_title="CT1"))


def spoken(report: bytes) -> str:
    """The weights that an encoded report names."""
    return report.partition(b"weights-sha256=")[2][:64].decode()


def test_a_late_image_after_a_promotion_is_scored_by_the_new_weights_and_its_report_says_so(
    settings: config.Settings, folders: tuple[Path, Path], pacs: ScriptedPacs, tmp_path: Path
) -> None:
    peers = [Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)]
    paths = ct_series(tmp_path / "ct", "late", slices=range(6))
    bench = Bench(tmp_path / "bench", peers=peers, scorer=checkpoints.open_active(settings).scorer)
    bench.receive_all(paths[:5])
    bench.pass_time(10)
    [before] = pacs.received

    made = promote(settings, folders[1])
    again = Bench(tmp_path / "bench", peers=peers, scorer=checkpoints.open_active(settings).scorer)  # the next worker
    again.now = bench.now
    again.receive_all(paths[5:], association="a2")
    again.pass_time(90)

    assert made.before is not None
    assert made.after is not None
    assert len(pacs.received) == 2
    assert pacs.received[0] == before, "what was delivered keeps its bytes"
    assert [spoken(report) for report in pacs.received] == [made.before.sha256, made.after.sha256]
    with again.database.read() as connection:
        found = [assessments.load_assessment(connection, series_uid(paths), revision) for revision in (1, 2)]
    assert [one.checkpoint.sha256 for one in found if one] == [made.before.sha256, made.after.sha256]
    bench.close()
    again.close()


def test_a_promotion_outlives_the_folder_it_came_from_and_overrides_the_configuration(
    settings: config.Settings, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path, "brief", seed=3)
    made = promote(settings, folder)
    (folder / WEIGHTS_FILE).unlink()

    assessor = checkpoints.open_active(settings)

    assert made.after is not None
    assert assessor.scorer.checkpoint.sha256 == made.after.sha256
    assert "brief" in checkpoints.sentence(settings, checkpoints.standing(settings))
    assert checkpoints.open_pinned(settings, "brief", made.after.sha256).scorer.checkpoint.name == "brief"


def test_the_prompt_classifier_stays_that_of_the_configuration(
    settings: config.Settings, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    words = {"modality": ("CT", "MR"), "region": (), "type": ()}
    card = ClassifierCard(name="words", shape="small", words=words, sure=0.9)
    made = save_classifier(tmp_path / "words", ClassifierNetwork("small", words), card)
    pins = {"directory": str(tmp_path / "words"), "sha256": made.sha256, "card_sha256": made.card_sha256}
    lock = yaml.safe_load((folders[0] / LOCK_FILE).read_text()) | {"words": pins}
    lock["first"]["directory"] = str(folders[0])
    (tmp_path / "both.lock").write_text(yaml.safe_dump(lock))
    model = replace(settings.model, lock=tmp_path / "both.lock", classifier="words")
    settings = settings.model_copy(update={"model": model})

    promote(settings, folders[1])
    assessor = checkpoints.open_active(settings)

    assert assessor.scorer.checkpoint.name == "second"
    assert assessor.classifier is not None


def test_weights_that_were_changed_in_the_store_never_score(
    settings: config.Settings, folders: tuple[Path, Path]
) -> None:
    promote(settings, folders[1])
    [stored] = checkpoints.model_store(settings).all()
    file = stored.directory / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")

    with pytest.raises(CheckpointRefused, match="the model lock pins"):
        checkpoints.open_active(settings)


def test_what_is_tried_is_the_copy_that_will_score(
    settings: config.Settings, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    open_at = checkpoints.open_at
    monkeypatch.setattr(
        checkpoints, "open_at", lambda *of, **how: loaded.append(of[1][0].parent) or open_at(*of, **how)
    )

    stored, _ = checkpoints.take_into_store(settings, str(folders[1]))
    file = stored.directory / WEIGHTS_FILE
    content = file.read_bytes()
    file.write_bytes(content[:-1])  # a disk that lost a byte
    again, _ = checkpoints.take_into_store(settings, str(folders[1]))

    assert loaded == [stored.directory] * 2
    assert again == stored
    assert file.read_bytes() == content


def test_a_checkpoint_that_cannot_report_leaves_no_copy_behind(settings: config.Settings, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "raw", seed=5, quality=None)

    with pytest.raises(CheckpointRefused, match="maps no raw score"):
        promote(settings, folder)

    assert checkpoints.model_store(settings).all() == []


def test_a_name_that_means_two_checkpoints_is_refused_and_a_digest_tells_them_apart(
    settings: config.Settings, tmp_path: Path
) -> None:
    other = checkpoints.take_into_store(settings, str(checkpoint(tmp_path, "first", seed=8)))[0]
    configured = checkpoints.configured(settings)

    with pytest.raises(CheckpointRefused) as refused:
        checkpoints.find_checkpoint(settings, "first")

    assert all(one.label in str(refused.value) for one in (other.weights, configured))
    assert checkpoints.find_checkpoint(settings, other.weights.sha256[:12]) == (other.directory / LOCK_FILE, "first")
    assert checkpoints.find_checkpoint(settings, configured.card_sha256[:12]) == (settings.model_lock, "first")
    with pytest.raises(CheckpointRefused, match="neither a folder nor a known checkpoint"):
        checkpoints.find_checkpoint(settings, "0" * 64)


def test_a_rollback_needs_what_it_puts_back_and_nothing_else(
    settings: config.Settings, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    first = promote(settings, folders[1])
    promote(settings, checkpoint(tmp_path, "third", seed=6))
    without_lock = settings.model_copy(update={"model": replace(settings.model, lock=tmp_path / "gone.lock")})

    previous, decision = checkpoints.open_previous(without_lock)
    [stored] = [one for one in checkpoints.model_store(settings).all() if one.weights == first.after]
    (stored.directory / WEIGHTS_FILE).unlink()

    assert (previous, decision) == (first.after, 2)
    with pytest.raises(CheckpointRefused) as refused:
        checkpoints.open_previous(settings)
    assert "model rollback" not in str(refused.value)


def test_a_rollback_to_the_configuration_needs_its_weights(
    settings: config.Settings, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    own = checkpoint(tmp_path, "own", seed=7)
    model = replace(settings.model, lock=own / LOCK_FILE, checkpoint="own")
    settings = settings.model_copy(update={"model": model})
    promote(settings, folders[1])
    (own / WEIGHTS_FILE).unlink()

    with pytest.raises(CheckpointRefused, match="cannot be read"):
        checkpoints.open_previous(settings)


def test_weights_that_do_not_score_the_reference_set_as_their_card_says_stay_out(
    settings: config.Settings, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path, "drifted", seed=4, constancy=Constancy(raw={"ct_chest": 99.0}))

    with pytest.raises(PromotionRefused, match=r"drifted .* was not promoted: raw score of ct_chest"):
        promote(settings, folder)

    assert checkpoints.standing(settings).current is None


def test_a_card_that_fails_withholds_nothing_of_the_weights_in_force(
    settings: config.Settings, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    other_card = checkpoint(tmp_path, "first-again", seed=1, constancy=Constancy(raw={"ct_chest": 99.0}))
    database = resources.open_database(settings)
    check(checkpoints.open_active(settings), database, software_version="0.1.0", at=900.0)

    with pytest.raises(PromotionRefused, match=r"first-again .* was not promoted"):
        promote(settings, other_card)

    with database.read() as connection:
        checks = constancy_checks.history(connection, at_most=9)
        failed = constancy_checks.failed(connection)
    database.close()
    assert [one.made_by for one in checks] == ["worker"]
    assert failed is None


def test_a_card_that_pins_nothing_gets_its_baseline_at_the_promotion(
    settings: config.Settings, folders: tuple[Path, Path]
) -> None:
    made = promote(settings, folders[1])

    database = resources.open_database(settings)
    with database.read() as connection:
        assert made.after is not None
        baseline = constancy_checks.first_scores(connection, made.after.sha256)
    database.close()
    assert baseline is not None
    assert set(baseline) == {"ct_chest", "mr_breast", "op_fundus"}


def test_only_calibrations_of_the_weights_and_the_card_before_become_void(
    settings: config.Settings, folders: tuple[Path, Path]
) -> None:
    made = promote(settings, folders[1])
    assert made.before is not None
    same = {"modality": "CT", "station_name": "*", "protocol_name": "*", "borderline_below": 0.5, "review_below": 0.3}
    same |= {"n_series": 50, "n_readers": 3, "approved_by": "x", "approved_on": "2026-01-01", "fingerprint": "f"}
    before = made.before
    records = [Calibration(id=name, weights_sha256=name * 64, card_sha256=name * 64, **same) for name in "xy"]
    records.append(Calibration(id="old", weights_sha256=before.sha256, card_sha256=before.card_sha256, **same))
    records.append(Calibration(id="other card", weights_sha256=before.sha256, card_sha256="0" * 64, **same))
    another_card = replace(made, after=replace(before, name="again", card_sha256="1" * 64))

    assert [record.id for record in promotion.void_calibrations(records, made)] == ["old"]
    assert [record.id for record in promotion.void_calibrations(records, another_card)] == ["old"]
    assert promotion.void_calibrations(records, replace(made, after=replace(before, name="again"))) == []


@pytest.mark.acceptance
def test_a_running_worker_takes_a_promotion_up_between_two_series(
    folders: tuple[Path, Path], pacs: ScriptedPacs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    peers = {"PACS": {"ae_title": "SCRIPTED", "host": "127.0.0.1", "port": pacs.port}}
    choice = {"lock": f"{folders[0]}/models.lock", "checkpoint": "first", "device": "cpu"}
    node = Node(tmp_path / "node", peers=peers, model=choice)
    request.addfinalizer(node.close)
    node.start()
    worker = node.pid("worker")
    one, two = (ct_series(tmp_path / name, name, study=name) for name in ("one", "two"))
    send(node, one)
    node.reaches(series_uid(one), "DELIVERED")

    promoted = node.command("model", "promote", str(folders[1]), "--unevaluated", "--by", "Dr. Curie")
    beside = node.command("model", "shadow", str(folders[0]), "--name", "first-again", "--by", "Dr. Curie")
    until(lambda: len(node.log("scoring")) > 1, "the worker is back")
    send(node, two)
    node.reaches(series_uid(two), "DELIVERED")

    assert (promoted.returncode, beside.returncode) == (0, 0), promoted.stderr + beside.stderr
    assert "→ mediqa-node status: the worker switches within seconds" in promoted.stdout
    assert node.pid("worker") != worker
    assert node.log("process ended and is started again") == []
    configured, now = (checkpoints.open_folder(config.load(None, {}), folder).scorer.checkpoint for folder in folders)
    assert [spoken(report) for report in pacs.received] == [configured.sha256, now.sha256]
    until(lambda: node.command("model", "compare").returncode == 0, "the shadow has scored")
    assert len(pacs.received) == 2, "of the shadow nothing is sent"
