"""Modality Performed Procedure Steps: kept with the answers of PS3.4 F.7, and what their lists prove about a series."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom import Dataset, dcmread
from pynetdicom import AE, build_context
from support.archive import receiving
from support.bench import Bench
from support.receiving import EXPLICIT, Scu, command, p_data
from support.series import ct_series, series_uid

from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network.contexts import PERFORMED_PROCEDURE_STEP
from mediqa_node.pipeline import procedure_steps as service
from mediqa_node.pipeline.procedure_steps import procedure_step_services
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.storage.procedure_step_tables import procedure_step_instances, procedure_steps

STEP = "1.2.826.0.1.3680043.9.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "bench", receiver=ReceiverPolicy(mpps=True))
    yield made
    made.close()


@pytest.fixture
def port(bench: Bench) -> Iterator[int]:
    with receiving(bench, procedure_step_services(bench.database, clock=bench.node.clock)) as listening:
        yield listening


@contextmanager
def modality(port: int, calling: str = "CT_ROOM_1") -> Iterator[Any]:
    entity = AE(ae_title=calling)
    contexts = [build_context(PERFORMED_PROCEDURE_STEP, [EXPLICIT])]
    association = entity.associate("127.0.0.1", port, contexts, ae_title="MEDIQA")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def step(
    status: str | None = None, series: Mapping[str, Sequence[str]] | None = None, *, non_image: Sequence[str] = ()
) -> Dataset:
    """Return the attributes of a step; `non_image` goes to the last series."""
    ds = Dataset()
    ds.PatientName, ds.PerformedProcedureStepID = "Wasser^Anna", "P1"
    if status is not None:
        ds.PerformedProcedureStepStatus = status
    if series is not None:
        ds.PerformedSeriesSequence = []
        for uid, instances in series.items():
            one = Dataset()
            one.SeriesInstanceUID = uid
            one.ReferencedImageSequence = [reference(instance) for instance in instances]
            one.ReferencedNonImageCompositeSOPInstanceSequence = [reference(instance) for instance in non_image]
            ds.PerformedSeriesSequence.append(one)
    return ds


def reference(uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = CT, uid
    return ds


def create(port: int, ds: Dataset, uid: str | None = STEP, **how: Any) -> int:
    with modality(port, **how) as association:
        status, _ = association.send_n_create(ds, PERFORMED_PROCEDURE_STEP, uid)
    return int(status.Status)


def change(port: int, ds: Dataset, uid: str = STEP, **how: Any) -> int:
    with modality(port, **how) as association:
        status, _ = association.send_n_set(ds, PERFORMED_PROCEDURE_STEP, uid)
    return int(status.Status)


def performed(port: int, paths: Sequence[Path], *, final: str = "COMPLETED", uid: str = STEP) -> None:
    """Create and end a step that lists the instances of files."""
    assert create(port, step("IN PROGRESS"), uid) == 0x0000
    listed = {series_uid(list(paths)): [str(dcmread(path).SOPInstanceUID) for path in paths]}
    assert change(port, step(final, listed), uid) == 0x0000


def arrives(bench: Bench, paths: Sequence[Path], *, released: bool = False) -> None:
    for path in paths:
        bench.receive(path)
        bench.now += 0.1
    if released:
        bench.release()


def completed_after(bench: Bench, series: str, seconds: float) -> tuple[str, str | None]:
    """Return state and reason of completion once some time has passed."""
    bench.pass_time(seconds, step_s=max(1.0, seconds / 30), until=lambda: bench.series(series).state != "RECEIVING")
    row = bench.series(series)
    return ("RECEIVING" if row.state == "RECEIVING" else "complete"), row.completion


# ── what is proven ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", ["images first", "step first"])
def test_a_series_is_complete_as_soon_as_all_that_its_step_lists_is_there(
    bench: Bench, port: int, tmp_path: Path, order: str
) -> None:
    paths = ct_series(tmp_path / "ct", "one", slices=[0, 3, 4])  # uneven: never contiguous
    for work in (arrives, None) if order == "images first" else (None, arrives):
        if work is None:
            performed(port, paths)
        else:
            work(bench, paths)

    assert completed_after(bench, series_uid(paths), 3) == ("complete", "announced")


def test_a_series_is_looked_at_as_soon_as_its_step_ends(bench: Bench, port: int, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one")
    arrives(bench, paths)
    assert bench.complete_series() == 0

    performed(port, paths)

    assert bench.complete_series() == 1


def test_a_series_waits_for_what_its_step_lists_and_is_forced_in_the_end(
    bench: Bench, port: int, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "ct", "one", slices=range(6))
    performed(port, paths)
    arrives(bench, paths[:5], released=True)
    series = series_uid(paths)

    assert completed_after(bench, series, 120) == ("RECEIVING", None), "neither contiguous nor quiet"
    arrives(bench, paths[5:])
    assert completed_after(bench, series, 3) == ("complete", "announced")

    more = ct_series(tmp_path / "two", "two", slices=range(6))
    performed(port, more, uid=f"{STEP}.2")
    arrives(bench, more[:5], released=True)
    assert completed_after(bench, series_uid(more), 1000) == ("complete", "forced")


def test_a_list_that_is_not_all_of_a_series_announces_nothing(bench: Bench, port: int, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one", slices=[0, 3, 4])
    performed(port, paths[:2])
    arrives(bench, paths)

    assert completed_after(bench, series_uid(paths), 60) == ("complete", "quiet")


@pytest.mark.parametrize("what", ["discontinued", "empty", "in progress", "another in progress", "unreadable", "twice"])
def test_what_proves_nothing_leaves_the_decision_to_the_timers(
    bench: Bench, port: int, tmp_path: Path, what: str
) -> None:
    paths = ct_series(tmp_path / "ct", "one", slices=[0, 3, 4])
    series, uids = series_uid(paths), [str(dcmread(path).SOPInstanceUID) for path in paths]
    arrives(bench, paths)
    if what == "discontinued":
        performed(port, paths, final="DISCONTINUED")
    elif what == "another in progress":
        performed(port, paths)
        assert create(port, step("IN PROGRESS", {series: uids[:1]}), f"{STEP}.2") == 0x0000
    elif what == "twice":
        create(port, step("IN PROGRESS"))
        ds, second = step("COMPLETED", {series: uids}), step("COMPLETED", {series: ["1.2.3", "1..2"]})
        ds.PerformedSeriesSequence += list(second.PerformedSeriesSequence)
        assert change(port, ds) == 0x0000
    else:
        create(port, step("IN PROGRESS"))
        listed = {"empty": {series: []}, "unreadable": {series: [*uids, "1..2"]}}.get(what, {series: uids})
        assert change(port, step("IN PROGRESS" if what == "in progress" else "COMPLETED", listed)) == 0x0000

    assert completed_after(bench, series, 5) == ("RECEIVING", None)
    assert completed_after(bench, series, 60) == ("complete", "quiet")


def test_a_step_of_somebody_who_has_sent_nothing_of_a_series_counts_for_nothing(
    bench: Bench, port: int, tmp_path: Path
) -> None:
    paths = ct_series(tmp_path / "ct", "one", slices=[0, 3, 4])
    uids = [str(dcmread(path).SOPInstanceUID) for path in paths]
    arrives(bench, paths[:2])
    create(port, step("IN PROGRESS"), calling="ELSEWHERE")
    change(port, step("COMPLETED", {series_uid(paths): uids[:2]}), calling="ELSEWHERE")
    assert completed_after(bench, series_uid(paths), 3) == ("RECEIVING", None)
    performed(port, paths, uid=f"{STEP}.2")
    arrives(bench, paths[2:])

    assert completed_after(bench, series_uid(paths), 3) == ("complete", "announced")


def test_images_and_other_objects_are_listed_apart_and_count_together(bench: Bench, port: int, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "one", slices=[0, 3, 4])
    uids = [str(dcmread(path).SOPInstanceUID) for path in paths]
    create(port, step("IN PROGRESS", {series_uid(paths): uids[:1]}))
    change(port, step("COMPLETED", {series_uid(paths): uids[:2]}, non_image=uids[2:]))
    arrives(bench, paths)

    assert completed_after(bench, series_uid(paths), 3) == ("complete", "announced")


# ── what is answered ─────────────────────────────────────────────────────────


def rows(bench: Bench) -> list[tuple[str, str]]:
    with bench.database.read() as connection:
        found = connection.execute(sa.select(procedure_steps.c.sop_instance_uid, procedure_steps.c.status))
        return [(row.sop_instance_uid, row.status) for row in found]


def n_listed(bench: Bench) -> int:
    with bench.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(procedure_step_instances)).scalar_one())


def test_a_step_goes_from_in_progress_to_its_end_and_no_further(bench: Bench, port: int) -> None:
    assert create(port, step("IN PROGRESS", {})) == 0x0000
    assert create(port, step("IN PROGRESS", {})) == 0x0111
    assert change(port, step(None, {"1.2.1": ["1.2.3.1", "1.2.3.2"]})) == 0x0000
    assert change(port, step(None)) == 0x0000
    assert n_listed(bench) == 2, "what an update does not have stays"
    assert change(port, step("IN PROGRESS", {"1.2.1": ["1.2.3.1"]})) == 0x0000
    assert n_listed(bench) == 1
    assert change(port, step("COMPLETED")) == 0x0000
    assert rows(bench) == [(STEP, "COMPLETED")]
    assert change(port, step("IN PROGRESS")) == 0x0110
    assert change(port, step("COMPLETED", {})) == 0x0110
    assert n_listed(bench) == 1


def test_the_end_of_a_step_is_named_by_its_error_id(bench: Bench, port: int) -> None:
    create(port, step("IN PROGRESS"))
    change(port, step("DISCONTINUED"))
    with Scu(port, contexts={1: (PERFORMED_PROCEDURE_STEP, [EXPLICIT])}) as scu:
        scu.send(p_data(1, command(PERFORMED_PROCEDURE_STEP, STEP, field=0x0120), is_command=True))
        scu.send(p_data(1, b"", is_command=False))
        _, body = scu.pdu()

    assert b"\x03\x09\x02\0\0\0\x10\xa7" in body, "Error ID (0000,0903) A710"


@pytest.mark.parametrize(("ds", "status"), [(step(), 0x0120), (step("COMPLETED"), 0x0106), (step("SCHEDULED"), 0x0106)])
def test_a_new_step_has_to_be_in_progress(bench: Bench, port: int, ds: Dataset, status: int) -> None:
    assert create(port, ds) == status
    assert rows(bench) == []


def test_an_unknown_step_a_wrong_status_and_another_caller_are_refused(bench: Bench, port: int) -> None:
    assert change(port, step("COMPLETED")) == 0x0112
    create(port, step("IN PROGRESS"))
    assert change(port, step("DONE")) == 0x0106
    assert change(port, step("COMPLETED"), calling="CT_ROOM_2") == 0x0124
    assert rows(bench) == [(STEP, "IN PROGRESS")]


def test_a_step_without_a_uid_is_given_one(bench: Bench, port: int) -> None:
    assert create(port, step("IN PROGRESS"), None) == 0x0000

    [(uid, _)] = rows(bench)
    assert uid.startswith("2.25.")


def test_a_modality_has_no_more_open_than_the_node_can_keep(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_OPEN_AT_MOST", 1)
    monkeypatch.setattr(service, "_LISTED_AT_MOST", 2)
    assert create(port, step("IN PROGRESS")) == 0x0000
    assert create(port, step("IN PROGRESS"), f"{STEP}.2") == 0x0213
    assert create(port, step("IN PROGRESS"), f"{STEP}.2", calling="CT_ROOM_2") == 0x0000
    assert change(port, step(None, {"1.2.1": ["1.2.3.1", "1.2.3.2", "1.2.3.3"]})) == 0x0213
    assert change(port, step("COMPLETED", {"1.2.1": ["1.2.3.1", "1.2.3.2"]})) == 0x0000
    assert create(port, step("IN PROGRESS"), f"{STEP}.3") == 0x0000


def test_old_steps_are_forgotten(bench: Bench, port: int) -> None:
    create(port, step("IN PROGRESS", {"1.2.1": ["1.2.3.1"]}))
    bench.now += 31 * 86_400
    retain(bench.node)

    assert (rows(bench), n_listed(bench)) == ([], 0)
