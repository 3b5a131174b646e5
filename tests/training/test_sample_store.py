"""What a store keeps, what an interruption costs, and that training is shown what the node shows."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from support.bench import StandInScorer
from support.samples import ct_store, disc, sample
from support.series import ct_series

from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.card import DEFAULT_PREPROCESSING
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from mediqa_node.pipeline.score import Assessor, assess, harvest_series, read_headers, shown_again
from training.data.manifest import Row
from training.data.read import read_rows, sample_of, with_rows
from training.data.store import INDEX, PIXELS, Store
from training.data.views import prepare


def quiet(*_: object) -> None:
    """Say nothing."""


@pytest.mark.parametrize("name", [INDEX, PIXELS])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 0.999])
def test_what_an_interrupted_add_left_is_cut_back_and_the_store_goes_on(tmp_path, name, share):
    ct_store(tmp_path, bases=2, copies=1)
    before = (tmp_path / INDEX).stat().st_size, (tmp_path / PIXELS).stat().st_size
    Store(tmp_path).add([(sample("third"), disc(64, noise=5, seed=9))])
    end = before[0] if name == INDEX else before[1]
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: end + int(share * (len(whole) - end))])

    store = Store(tmp_path)
    assert [one.key for one in store.samples] == ["0-0", "1-0"]
    store.add([(sample("again"), disc(64, noise=5, seed=9))])

    [*_, last] = Store(tmp_path).samples
    assert last.key == "again"
    assert np.array_equal(Store(tmp_path).slices(last), disc(64, noise=5, seed=9))


@pytest.mark.parametrize(
    ("slices", "dtype", "error"),
    [
        (disc(32, noise=20, seed=1), "int16", 0.0),
        (np.random.default_rng(0).normal(0, 0.3, (2, 9, 7)).astype(np.float32), "int16", 4e-5),
        (np.full((1, 4, 4), 90_000.0, dtype=np.float32), "int16", 2.0),
        (np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.float32), "uint8", 0.0),
    ],
    ids=["HU", "fractions", "beyond 16 bits", "colour"],
)
def test_pixels_come_back_as_they_were(tmp_path, slices, dtype, error):
    Store(tmp_path).add([(sample("one"), slices)])

    store = Store(tmp_path)
    [one] = store.samples
    assert one.dtype == dtype
    assert store.slices(one).dtype == np.float32
    assert np.abs(store.slices(one) - slices).max() <= error


@pytest.mark.parametrize("line", [b"{}\n", b"nonsense\n", b"[]\n"])
def test_a_damaged_line_is_named_by_its_number(tmp_path, line):
    ct_store(tmp_path, bases=2, copies=1)
    first, _ = (tmp_path / INDEX).read_bytes().splitlines(keepends=True)
    (tmp_path / INDEX).write_bytes(first + line)

    with pytest.raises(ConfigurationError, match=r"samples\.jsonl, line 2: no sample"):
        Store(tmp_path)


def test_views_are_made_once_and_what_was_cut_off_is_made_again(tmp_path):
    store = ct_store(tmp_path, bases=2, copies=2)
    first = prepare(store, DEFAULT_PREPROCESSING)
    wanted = [first.views(place) for place in range(4)]
    [folder] = tmp_path.glob("shown-*")
    views = folder / "views.f16"
    views.write_bytes(views.read_bytes()[:-7])
    made: list[int] = []

    again = prepare(Store(tmp_path), DEFAULT_PREPROCESSING, advance=lambda done, total: made.append(done))

    assert made == [4]
    assert all(np.array_equal(again.views(place), one) for place, one in enumerate(wanted))
    assert prepare(store, DEFAULT_PREPROCESSING, advance=lambda *_: pytest.fail("made again")).views(3).shape[1] == 3


def test_views_of_other_samples_under_the_same_folder_are_not_believed(tmp_path):
    prepare(ct_store(tmp_path, bases=1, copies=1), DEFAULT_PREPROCESSING)
    for name in (INDEX, PIXELS):
        (tmp_path / name).unlink()
    store = Store(tmp_path)
    store.add([(sample("other"), disc(64, noise=90, seed=4))])

    shown = prepare(store, DEFAULT_PREPROCESSING)

    fresh = tmp_path / "fresh"
    again = Store(fresh)
    again.add([(sample("other"), disc(64, noise=90, seed=4))])
    assert np.array_equal(shown.views(0), prepare(again, DEFAULT_PREPROCESSING).views(0))


def row(paths: list[Path], **more: object) -> Row:
    return Row(
        key="k", patient="p", source="s", split="train", dimension="3D", modality="CT", region="abdomen", type="soft",
        payload_kind="dicom", paths=tuple(paths), **more,
    )  # fmt: skip


def test_training_and_node_show_the_network_the_same(tmp_path):
    paths = ct_series(tmp_path / "dicom", "phantom", slices=range(12), size_px=96, Manufacturer="SIEMENS")
    store = Store(tmp_path / "store")

    left_out = read_rows([row(paths)], DEFAULT_PREPROCESSING, store, advance=quiet)
    trained = prepare(store, DEFAULT_PREPROCESSING)

    files = read_headers(paths)
    scorer = StandInScorer()
    scorer.spec = DEFAULT_PREPROCESSING
    assessor = Assessor(scorer=scorer, prompts=checkpoints.prompt_rules(config.load(None, {})))
    result = assess(files, harvest_series(files), assessor, revision=1, assessed_at=datetime.now(UTC)).primary
    inputs = shown_again(files, result, DEFAULT_PREPROCESSING)
    assert left_out == []
    assert np.array_equal(trained.views(0), inputs.images.astype(np.float16).astype(np.float32))
    assert np.array_equal(trained.slice_of(0), inputs.slice_of)
    assert np.array_equal(store.slices(store.samples[0]), np.stack(inputs.slices))
    assert np.array_equal(FOUR_ONE_HOTS.encode(trained.samples[0].words), FOUR_ONE_HOTS.encode(result.prompt))


def test_labels_follow_the_manifest_although_pixels_are_read_once(tmp_path):
    paths = ct_series(tmp_path / "dicom", "phantom")
    store = Store(tmp_path / "store")
    read_rows([row(paths, mos=0.4)], DEFAULT_PREPROCESSING, store, advance=quiet)
    paths[0].unlink()

    read_rows([row(paths, mos=0.5)], DEFAULT_PREPROCESSING, store, advance=quiet)
    prepared = prepare(store, DEFAULT_PREPROCESSING)

    [one] = with_rows(prepared, [row(paths, mos=0.5)]).samples
    assert one.labels == {"quality": 0.5}
    assert with_rows(prepared, []).samples == []


def test_a_row_becomes_a_sample_with_both_labels():
    told = sample_of(row([], mos=0.4, label_name="mas", label_value=120.0))

    assert told.labels == {"mas": 120.0, "quality": 0.4}
    assert (told.modality, told.image_type, told.split) == ("CT", "soft", "train")


def test_a_series_that_was_read_under_another_prompt_is_not_trained_on(tmp_path):
    paths = ct_series(tmp_path / "dicom", "phantom")
    store = Store(tmp_path / "store")
    read_rows([row(paths, mos=0.4)], DEFAULT_PREPROCESSING, store, advance=quiet)
    corrected = replace(row(paths, mos=0.4), type="lung")

    with pytest.raises(ConfigurationError, match="prompts of 1 series have changed since they were read"):
        with_rows(prepare(store, DEFAULT_PREPROCESSING), [corrected])
