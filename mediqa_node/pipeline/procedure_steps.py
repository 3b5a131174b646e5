"""What the receiver serves of Modality Performed Procedure Step (PS3.4 section F.7): N-CREATE and N-SET.

A modality creates a step when it begins and completes it with the list of what it has made, so that a series is known
to be complete without waiting. Only states and lists are kept. An N-SET replaces the attributes it has and leaves the
others (PS3.4 table F.7.2-1); a step that has ended cannot be changed.
"""

from collections.abc import Callable
from uuid import uuid4

import structlog
from pydicom import Dataset

from mediqa_node.dicom.values import has_value, items, text
from mediqa_node.domain.procedure_step import StepStatus
from mediqa_node.domain.uid import is_uid
from mediqa_node.network import dimse
from mediqa_node.network.contexts import PERFORMED_PROCEDURE_STEP
from mediqa_node.network.services import Answer, ServiceRefused, ServiceRequest, Services
from mediqa_node.storage import procedure_steps
from mediqa_node.storage.database import Database
from mediqa_node.storage.procedure_steps import Lists

log = structlog.get_logger("receiver")

_STATUS = 0x00400252
_ERROR_ID, _AFFECTED_INSTANCE = 0x0903, 0x1000
_MAY_NOT_BE_UPDATED = 0xA710
"""Error ID (0000,0903), PS3.4 section F.7.2.2.2."""
_OPEN_AT_MOST = 1000
"""Steps of one AE title that have not ended."""
_LISTED_AT_MOST = 20_000
"""Instances of one step."""
_LISTS = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")


def procedure_step_services(database: Database, *, clock: Callable[[], float]) -> Services:
    """Return the services by abstract syntax and Command Field."""
    steps = _Steps(database, clock)
    return {
        (PERFORMED_PROCEDURE_STEP, dimse.N_CREATE_RQ): steps.create,
        (PERFORMED_PROCEDURE_STEP, dimse.N_SET_RQ): steps.update,
    }


class _Steps:
    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def create(self, request: ServiceRequest) -> list[Answer]:
        """Keep a step that begins; without a UID of the caller it is given one (PS3.7 section 10.1.5.1.4)."""
        uid = request.command.sop_instance_uid or f"2.25.{uuid4().int}"
        if not is_uid(uid):
            raise ServiceRefused(dimse.INVALID_ARGUMENT, "malformed Affected SOP Instance UID", offending=0x00001000)
        with request.dataset() as ds:
            status, series = _status(ds), _series(ds) or {}
        if status is not StepStatus.IN_PROGRESS:
            what = "has no status" if status is None else f"is {status}"
            raise ServiceRefused(
                dimse.MISSING_ATTRIBUTE if status is None else dimse.INVALID_VALUE,
                f"a new step {what}; it has to be IN PROGRESS",
                offending=_STATUS,
            )
        caller = request.caller.calling_ae_title
        with self._database.write() as connection:
            if procedure_steps.n_open(connection, caller) >= _OPEN_AT_MOST:
                raise ServiceRefused(dimse.RESOURCE_LIMITATION, f"{_OPEN_AT_MOST} steps of this AE title are open")
            is_new = procedure_steps.create(
                self._database, connection, uid, calling_ae_title=caller, series=series, at=self._clock()
            )
        if not is_new:
            raise ServiceRefused(dimse.DUPLICATE_INSTANCE, "there is a step of this UID")
        log.info("procedure step begun", calling_ae=caller, step=uid)
        return [Answer(more={_AFFECTED_INSTANCE: dimse.uid_value(uid)})]

    def update(self, request: ServiceRequest) -> list[Answer]:
        """Take over what a modality reports of its step."""
        uid, caller = request.command.sop_instance_uid, request.caller.calling_ae_title
        with request.dataset() as ds:
            status, series = _status(ds), _series(ds)
        with self._database.write() as connection:
            known = procedure_steps.find(connection, uid)
            if known is None:
                raise ServiceRefused(dimse.NO_SUCH_INSTANCE, "there is no step of this UID")
            if known[0] != caller:
                raise ServiceRefused(dimse.NOT_AUTHORIZED, "another AE title has created this step")
            if known[1] != StepStatus.IN_PROGRESS:
                raise ServiceRefused(
                    dimse.PROCESSING_FAILURE,
                    "Performed Procedure Step Object may no longer be updated",
                    more={_ERROR_ID: dimse.number_value(_MAY_NOT_BE_UPDATED)},
                )
            procedure_steps.update(connection, uid, status=status, series=series, at=self._clock())
        log.info("procedure step updated", calling_ae=caller, step=uid, status=status)
        return [Answer()]


def _status(ds: Dataset) -> StepStatus | None:
    """Return the status in a dataset, or None without one."""
    value = text(ds, "PerformedProcedureStepStatus")
    if not value:
        return None
    try:
        return StepStatus(value)
    except ValueError:
        raise ServiceRefused(dimse.INVALID_VALUE, "no status of PS3.3 table C.4-14", offending=_STATUS) from None


def _series(ds: Dataset) -> Lists | None:
    """Return the instances that a dataset lists for each series; None if it says nothing of series.

    A series with a reference that cannot be read, in any of its items, is left out: a list that lacks one announces too
    early. So are all, if an item does not name its series.
    """
    if "PerformedSeriesSequence" not in ds:
        return None
    found: dict[str, set[str]] = {}
    for one in items(ds, "PerformedSeriesSequence"):
        found.setdefault(text(one, "SeriesInstanceUID"), set()).update(_listed(one) or [""])
    if sum(map(len, found.values())) > _LISTED_AT_MOST:
        raise ServiceRefused(dimse.RESOURCE_LIMITATION, f"more than {_LISTED_AT_MOST} instances in one step")
    if not all(map(is_uid, found)):
        return {}
    return {name: uids for name, uids in found.items() if all(map(is_uid, uids))}


def _listed(series: Dataset) -> list[str]:
    """Return the instances of an item; "" for what cannot be read."""
    unread = [""] * any(has_value(series, keyword) and not items(series, keyword) for keyword in _LISTS)
    return unread + [text(one, "ReferencedSOPInstanceUID") for keyword in _LISTS for one in items(series, keyword)]
