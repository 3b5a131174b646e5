"""A real Orthanc as the PACS, read by its REST interface."""

import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom import Dataset

from support.waiting import free_port, stop, until

_TEMPLATE = Path(__file__).parents[1] / "orthanc.json"


class Orthanc:
    """One Orthanc with its own folder and ports; can be stopped and started again with what it holds."""

    def __init__(self, folder: Path, *, ae_title: str = "PEERPACS") -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.dicom_port = free_port()
        self.http_port = free_port()
        self._read: dict[str, Dataset] = {}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, **changes: Any) -> Self:
        """Start it, with changes to tests/orthanc.json, and wait for its /system."""
        store = str(self.folder / "db")
        settings = json.loads(_TEMPLATE.read_text()) | {
            "Name": self.ae_title,
            "DicomAet": self.ae_title,
            "StorageDirectory": store,
            "IndexDirectory": store,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomModalities": {},
            "Plugins": [],
            "DicomModalitiesInDatabase": True,
            **changes,
        }
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/Orthanc", str(configuration)],
                stdout=log,
                stderr=log,
                env={**os.environ, "TCP_NODELAY": "1"},
            )
        until(self._answers, "Orthanc answers /system")
        return self

    def _answers(self) -> bool:
        try:
            return bool(self.get("/system"))
        except (urllib.error.URLError, ConnectionError):
            return False

    def stop(self) -> None:
        """End it; what it holds stays in its folder."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def _call(self, path: str, *, method: str = "GET", body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=600) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        """Return the JSON behind a path."""
        return json.loads(self._call(path))

    def post(self, path: str, what: Any) -> Any:
        """Post JSON, return JSON."""
        return json.loads(self._call(path, method="POST", body=json.dumps(what).encode()) or b"null")

    def post_for_bytes(self, path: str, what: Any) -> bytes:
        """Post JSON, return what comes back as it is."""
        return self._call(path, method="POST", body=json.dumps(what).encode())

    def delete(self, path: str) -> None:
        """Delete an instance, series, study or patient."""
        self._call(path, method="DELETE")

    def upload(self, part10: bytes) -> None:
        """Put an instance into it, as if from elsewhere."""
        self._call("/instances", method="POST", body=part10)

    def knows(self, name: str, ae_title: str, port: int) -> None:
        """Tell it of a modality that it may send to."""
        body = json.dumps({"AET": ae_title, "Host": "127.0.0.1", "Port": port}).encode()
        self._call(f"/modalities/{name}", method="PUT", body=body)

    def send(self, resource: str, to: str) -> Any:
        """Send a series, study or instance to a known modality."""
        return self.post(f"/modalities/{to}/store", {"Resources": [resource], "Synchronous": True})

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        """Return what /tools/find finds, expanded."""
        found: list[dict[str, Any]] = self.post("/tools/find", {"Level": level, "Query": query, "Expand": True})
        return found

    def file(self, instance: str) -> bytes:
        """Return the Part 10 bytes of an instance by its Orthanc ID; the file meta is Orthanc's."""
        return self._call(f"/instances/{instance}/file")

    def reports(self, **query: str) -> list[Dataset]:
        """Return every SR that it holds, oldest instance number first."""
        ids = [entry["ID"] for entry in self.find("Instance", Modality="SR", **query)]
        for identifier in ids:  # read once: this archive overwrites nothing
            if identifier not in self._read:
                self._read[identifier] = pydicom.dcmread(BytesIO(self.file(identifier)))
        return sorted((self._read[identifier] for identifier in ids), key=lambda report: int(report.InstanceNumber))

    def reports_of(self, series_instance_uid: str) -> list[Dataset]:
        """Return the SRs whose evidence is this series."""
        return [report for report in self.reports() if series_instance_uid in evidence_series(report)]


def evidence_series(report: Dataset) -> set[str]:
    """Return the Series Instance UIDs that a report names as its evidence."""
    return {
        str(series.SeriesInstanceUID)
        for study in report.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
    }


def evidence_instances(report: Dataset) -> set[str]:
    """Return the SOP Instance UIDs that a report names as its evidence."""
    return {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.get("CurrentRequestedProcedureEvidenceSequence", [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def predecessors(report: Dataset) -> set[str]:
    """Return the SOP Instance UIDs of the documents that a report replaces."""
    return {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def dataset_digest(part10: bytes) -> str:
    """Return SHA-256 of the encoded dataset after the file meta, PS3.10 7.1; nothing of the node is used."""
    assert part10[128:132] == b"DICM"
    assert part10[132:136] == b"\x02\x00\x00\x00", "file meta starts with its group length"
    length = int.from_bytes(part10[140:144], "little")
    return hashlib.sha256(part10[144 + length :]).hexdigest()
