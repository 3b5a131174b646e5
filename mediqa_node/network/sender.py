"""The SCU side: verify a peer, query a study, store a report, ask for its commitment or report our own.

Low volume, so pynetdicom does all of it, under the watch of `requestor`. A failure is one of two errors: it may work
later (`PeerUnavailable`), or a person has to act (`PeerRefused`). `open_link` is for any peer: one that speaks DICOMweb
is reached by `dicomweb`, and whoever sends does not know which it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pydicom
from pynetdicom import AE, Association, build_context, build_role
from pynetdicom.presentation import PresentationContext

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable
from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.domain.peer import Peer
from mediqa_node.network.associate_pdu import MAX_CONTEXTS
from mediqa_node.network.contexts import SR_SOP_CLASSES, STORAGE_COMMITMENT, VERIFICATION
from mediqa_node.network.pdu_stream import ABORT
from mediqa_node.network.peer_link import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STUDY_ROOT_FIND, Link, PeerLink
from mediqa_node.network.requestor import Watch
from mediqa_node.network.tls import context_for, words_of

_TRANSIENT, _SERVICE_PROVIDER = 2, 3
"""Result and source of a rejection that may pass (PS3.8 Table 9-21): the latter's reasons are load and limits."""


def contexts_for(sop_class_uids: Sequence[str]) -> list[PresentationContext]:
    """Return the contexts proposed to store objects of these classes."""
    return [build_context(uid, [EXPLICIT_LITTLE, IMPLICIT_LITTLE]) for uid in sop_class_uids]


def report_contexts(peer: Peer, companions: Sequence[str] = ()) -> list[PresentationContext]:
    """Return the contexts proposed to a destination of reports.

    Args:
        companions: SOP Class UIDs of companions.
    """
    classes = SR_SOP_CLASSES.values() if peer.sr_sop_class == "auto" else [SR_SOP_CLASSES[peer.sr_sop_class]]
    return [*contexts_for([*classes, *companions]), study_query()]


def study_query() -> PresentationContext:
    """Return the context proposed to ask for a study."""
    return build_context(STUDY_ROOT_FIND, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])


def verification_contexts() -> list[PresentationContext]:
    """Return the contexts proposed for C-ECHO."""
    return [build_context(VERIFICATION, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])]


def commitment_contexts() -> list[PresentationContext]:
    """Return the context proposed to ask for commitment, or to report it."""
    return [build_context(STORAGE_COMMITMENT, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])]


def open_link(
    peer: Peer, contexts: Sequence[PresentationContext], *, ae_title: str, timeout_s: float = 30.0
) -> AbstractContextManager[Link]:
    """Return a link to a peer, by an association with these contexts or by DICOMweb, for the block that follows.

    Raises:
        PeerUnavailable, PeerRefused: as `connect`; by DICOMweb, not before the first question.
    """
    if peer.dicomweb is None:
        return connect(peer, contexts, ae_title=ae_title, timeout_s=timeout_s)
    from mediqa_node.network import dicomweb  # http and TLS are of no use to most nodes

    return dicomweb.connect(peer, peer.dicomweb, timeout_s=timeout_s)


@contextmanager
def connect(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    ae_title: str,
    timeout_s: float = 30.0,
    as_scp: Sequence[str] = (),
) -> Iterator[PeerLink]:
    """Open an association, release it at the end of the block.

    Args:
        as_scp: SOP Class UIDs of which the SCP role is proposed (PS3.7 D.3.3.4). A peer that knows no role selection
            does not answer it, and gets the message all the same.

    Raises:
        PeerUnavailable, PeerRefused: as `associate`.
    """
    with associate(peer, contexts, ae_title=ae_title, timeout_s=timeout_s, as_scp=as_scp) as (association, watch):
        yield PeerLink(association, peer, watch)


@contextmanager
def associate(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    ae_title: str,
    timeout_s: float = 30.0,
    as_scp: Sequence[str] = (),
) -> Iterator[tuple[Association, Watch]]:
    """Open an association and its watch for a link, release it at the end of the block; see `connect`.

    Raises:
        PeerUnavailable: not reachable, no answer in time, aborted, or rejected as transient.
        PeerRefused: rejected for good, or no presentation context accepted.
    """
    entity = AE(ae_title=ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = min(timeout_s, 10.0)
    entity.acse_timeout = entity.dimse_timeout = timeout_s
    entity.network_timeout = None  # an idle association would be aborted twice, where another timeout is due as well
    context = context_for(peer)
    tls = (context, peer.host) if context is not None else None
    with closing(Watch(timeout_s)) as watch:
        try:
            association = entity.associate(
                peer.host,
                peer.port,
                list(contexts),
                ae_title=peer.ae_title,
                evt_handlers=watch.handlers,
                tls_args=tls,
                ext_neg=[build_role(uid, scp_role=True) for uid in as_scp],
            )
        except (OSError, UnicodeError) as error:  # the host name does not resolve, or is none
            reason = error.strerror if isinstance(error, OSError) else "no host name"
            raise PeerUnavailable(f"{peer.name} ({peer.host}): {reason}") from error
        watch.negotiated()
        if not association.is_established:
            tls_failure = (context.failure if context is not None else None) or watch.tls_failure
            if tls_failure is not None and not watch.received:
                where = f"{peer.name} ({peer.ae_title} at {peer.host}:{peer.port})"
                raise PeerUnavailable(f"{where} is not reachable by TLS: {words_of(tls_failure)}")
            raise _failure(association, peer, watch)
        try:
            yield association, watch
        finally:
            watch.release(association)


def _failure(association: Association, peer: Peer, watch: Watch) -> PeerUnavailable | PeerRefused:
    where = f"{peer.name} ({peer.where})"
    if watch.rejections:
        rejection = watch.rejections[0]
        reason = f"{where} rejected the association: {rejection.reason_str}"
        may_pass = rejection.result == _TRANSIENT or rejection.source == _SERVICE_PROVIDER
        return PeerUnavailable(reason) if may_pass else PeerRefused(reason)
    if association.accepted_contexts:
        return PeerUnavailable(f"{where} ended the association as soon as it had accepted it")
    if association.acceptor.primitive is not None and association.acceptor.primitive.result == 0:
        return PeerRefused(f"{where} accepts none of the presentation contexts proposed")
    if ABORT in watch.received:
        return PeerUnavailable(f"{where} aborted the association")
    return PeerUnavailable(f"{where} is not reachable or did not answer")


def send_files(peer: Peer, paths: Sequence[Path], *, ae_title: str) -> Iterator[tuple[Path, str]]:
    """Send Part 10 files; yield each with "" or why it was not stored.

    A presentation context is proposed for each pair of SOP class and transfer syntax. An association holds 128 of them
    (PS3.8 section 7.1.1.13), so that files of more pairs take several associations, one after the other.
    """
    by_pair: dict[tuple[str, str], list[Path]] = {}
    for path in paths:
        meta = pydicom.filereader.read_file_meta_info(path)
        pair = str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("TransferSyntaxUID", IMPLICIT_LITTLE))
        by_pair.setdefault(pair, []).append(path)
    pairs = list(by_pair)
    for some in (pairs[i : i + MAX_CONTEXTS] for i in range(0, len(pairs), MAX_CONTEXTS)):
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in some if sop_class]
        with open_link(peer, contexts, ae_title=ae_title) as link:
            for path in (path for pair in some for path in by_pair[pair]):
                try:
                    link.store(path.read_bytes())
                except (PeerRefused, PeerUnavailable, ValueError) as error:
                    yield path, str(error)
                else:
                    yield path, ""
