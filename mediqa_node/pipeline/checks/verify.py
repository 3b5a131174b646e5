"""Verification: compare database, spool and destinations, and report every difference.

The checker of the fault trials does not import this module, so that the two stay independent.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mediqa_node.dicom.part10 import dataset_sha256
from mediqa_node.domain.errors import MediqaError
from mediqa_node.network.sender import open_link, report_contexts
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import audit
from mediqa_node.storage.audit import KeptFile, SentReport

_SECONDS_TO_WAIT_FOR = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked, and one sentence for each difference."""

    n_instances: int
    n_reports: int
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def verify(node: NodeContext, *, ask_peers: bool, advance: Callable[[int, int], None]) -> Verification:
    """Check every row against its file, every file against its row, every sent report against its destination."""
    present = set(node.spool.files())  # before reading the rows: files that arrive meanwhile then have one
    with node.database.read() as connection:
        kept = audit.kept_files(connection)
        known = audit.all_paths(connection)
        sent = audit.sent_reports(connection)
        beside = audit.sent_companions(connection)
        patience_s = max(_SECONDS_TO_WAIT_FOR, 2 * node.completion.forced_after_s)
        problems = [*audit.broken_promises(connection, now=node.clock(), patience_s=patience_s)]
    for i, file in enumerate(kept):
        problems.extend(_check_file(node, file))
        advance(i + 1, len(kept))
    problems.extend(f"spooled file without a row: {path}" for path in sorted(present - known))
    if ask_peers:
        problems.extend(_ask(node, sent + beside))
    return Verification(n_instances=len(kept), n_reports=len(sent), problems=tuple(problems))


def _check_file(node: NodeContext, file: KeptFile) -> Iterator[str]:
    path = node.spool.path(file.path)
    try:
        digest = dataset_sha256(path)
    except FileNotFoundError:
        with node.database.read() as connection:
            still_kept = file.path in audit.paths_since(connection, file.path)
        if still_kept:  # and was not deleted by retention meanwhile
            yield f"instance {file.sop_instance_uid}: its file {file.path} is missing"
        return
    except Exception:  # a damaged head can make the parser fail in any way
        digest = ""
    if digest != file.sha256:
        yield f"instance {file.sop_instance_uid}: its file {file.path} has changed since it was received"


def _ask(node: NodeContext, sent: list[SentReport]) -> Iterator[str]:
    """Ask each destination, by C-FIND, for the objects that it acknowledged."""
    for name in sorted({report.destination for report in sent}):
        peer = node.peer(name)
        if peer is None:
            yield f"{name} got reports and is no longer a configured peer"
            continue
        try:
            with open_link(peer, report_contexts(peer), ae_title=node.device.ae_title) as link:
                for report in (report for report in sent if report.destination == name):
                    found = link.has_instance(
                        report.study_instance_uid, report.sr_series_instance_uid, report.sop_instance_uid
                    )
                    if found is False:
                        yield f"{name} does not have {report.what} {report.sop_instance_uid}, which it has acknowledged"
        except MediqaError as error:
            yield f"{name} could not be asked: {error}"
