"""Settings of a site: plain frozen values, passed in by the composition root.

Field names are the keys of `node.yaml`; `__pydantic_config__` lets the configuration reader
refuse unknown keys without this floor knowing the reader.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import ClassVar, Literal

from mediqa_node.domain.export import Payload
from mediqa_node.domain.quantities import QUANTITIES

_STRICT: dict[str, str] = {"extra": "forbid"}


def plain_address(address: str) -> str:
    """Return an address in one form, whether the socket was IPv4 or both.

    >>> plain_address("::ffff:192.0.2.7")
    '192.0.2.7'
    """
    return address.removeprefix("::ffff:")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowRule:
    """Who may associate: calling AE title and address must both match.

    Attributes:
        ae_title: calling AE title, or `*`.
        address: network in CIDR notation.
        store: False lets the caller verify (C-ECHO) only; C-STORE answers 0x0124.
        source: this caller may correct and reject the images that it has sent itself; needs an AE title.
        max_associations: how many at once for one AE title under this rule.
        max_per_address: concurrent associations from one address, for any AE title.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    ae_title: str = "*"
    address: str = "127.0.0.0/8"
    store: bool = True
    source: bool = False
    max_associations: int | None = None
    max_per_address: int | None = None

    def __post_init__(self) -> None:
        ip_network(self.address, strict=False)
        if self.source and self.ae_title == "*":
            raise ValueError("source: true needs an ae_title; `*` is everybody")

    def matches(self, ae_title: str, address: str) -> bool:
        """Whether a caller with this title and IP address falls under this rule."""
        return self.ae_title in ("*", ae_title) and self.covers(address)

    def covers(self, address: str) -> bool:
        """Whether callers from this IP address, of some title, fall under this rule."""
        caller = ip_address(plain_address(address))
        network = ip_network(self.address, strict=False)
        return caller.version == network.version and caller in network


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverPolicy:
    """Limits of the Storage SCP. Deadlines are seconds of wall time.

    Attributes:
        query: whether callers may find (C-FIND) and retrieve (C-MOVE) the node's own reports and companions.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    max_associations: int = 32
    max_dataset_bytes: int = 2 * 1024**3
    pdu_deadline_s: float = 30.0
    negotiation_deadline_s: float = 5.0
    idle_deadline_s: float = 3600.0
    require_called_ae: bool = True
    durability: Literal["power-loss", "process-crash"] = "power-loss"
    allowed: tuple[AllowRule, ...] = (AllowRule(),)
    private_sop_classes: tuple[str, ...] = ()
    query: bool = False

    def __post_init__(self) -> None:
        for name in ("max_associations", "max_dataset_bytes", "pdu_deadline_s", "negotiation_deadline_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than 0")

    def rule_for(self, ae_title: str, address: str) -> AllowRule | None:
        """Return the first rule that admits the caller, or None.

        The AE title of a source is bound to the addresses of the rules that name it: `*` does not admit it elsewhere.
        """
        bound = any(rule.source and rule.ae_title == ae_title for rule in self.allowed)
        rules = [rule for rule in self.allowed if not bound or rule.ae_title == ae_title]
        return next((rule for rule in rules if rule.matches(ae_title, address)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRules:
    """When a series counts as complete (README of the pipeline: announced, contiguous, quiet, forced)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    contiguous_after_s: float = 2.0
    quiet_after_s: float = 10.0
    deliver_after_s: float = 60.0
    forced_after_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryRule:
    """Which reconstruction of one acquisition is scored; patterns are regular expressions, case ignored."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    kernel: str | None = None
    description: str | None = None
    thickness_at_most_mm: float | None = None

    def __post_init__(self) -> None:
        _check_patterns(self.kernel, self.description)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomRule:
    """Which series are of a phantom of the site; patterns are regular expressions, case ignored, all must be found.

    Attributes:
        name: what the trend is called by, at most 64 characters.
        station: in Station Name (0008,1010).
        protocol: in Protocol Name (0018,1030).
        description: in Series Description (0008,103E).
        patient_id: in Patient ID (0010,0020).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    name: str
    station: str | None = None
    protocol: str | None = None
    description: str | None = None
    patient_id: str | None = None

    def __post_init__(self) -> None:
        patterns = (self.station, self.protocol, self.description, self.patient_id)
        if not 0 < len(self.name.strip()) <= 64:
            raise ValueError("name must have 1 to 64 characters")
        if not any(patterns):
            raise ValueError("needs a pattern: one of station, protocol, description, patient_id")
        _check_patterns(*patterns)


def _check_patterns(*patterns: str | None) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


class Refuse(StrEnum):
    """What becomes of a stack outside the training range; other refusals are the same for both."""

    STRICT = "strict"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePolicy:
    """What is scored at all; everything is harvested.

    Attributes:
        primary: `first` complete reconstruction of an acquisition, `all`, or rules of which one must match.
        max_age_days: older studies (prefetched priors) are not scored; None: no limit.
        phantoms: series that are measured, not scored; the first rule that matches names the trend.
        measures: names of the quantities that are measured on the pixels of every series; `all`, or some of
            `domain.quantities`.
        refuse: a stack outside the training range is not scored (`strict`), or scored and flagged, without a verdict.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    primary: Literal["first", "all"] | tuple[PrimaryRule, ...] = "first"
    max_age_days: float | None = None
    phantoms: tuple[PhantomRule, ...] = ()
    measures: Literal["all"] | tuple[str, ...] = "all"
    refuse: Refuse = Refuse.STRICT

    @property
    def measured(self) -> frozenset[str]:
        """Names of the quantities that are measured."""
        return frozenset(QUANTITIES if self.measures == "all" else self.measures)

    def __post_init__(self) -> None:
        if unknown := sorted(self.measured - QUANTITIES.keys()):
            raise ValueError(f"no measures {', '.join(unknown)}; known: all, or a list of {', '.join(QUANTITIES)}")
        names = [rule.name for rule in self.phantoms]
        if len(names) != len(set(names)):
            raise ValueError(f"two rules of `phantoms` have one name: {', '.join(names)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRule:
    """Where the report of a series goes; the first matching rule decides.

    Attributes:
        sender: configured name or calling AE title of who sent the series, or `*`.
        modality: CT, MR, OP or `*`.
        to: names of configured peers; `sender` means the peer whose AE title sent the series.
        when: `flagged` sends only what is borderline or worse.
        wait_for_study_s: how long to wait for the study to appear at the destination.
    """

    sender: str = "*"
    modality: str = "*"
    to: tuple[str, ...] = ()
    when: Literal["always", "flagged", "never"] = "always"
    wait_for_study_s: float = 0.0

    def matches(self, senders: tuple[str, ...], modality: str) -> bool:
        """Whether this rule is for a series of this modality from any of these names."""
        return (self.sender == "*" or self.sender in senders) and self.modality in ("*", modality)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    """How long and how often a report is tried at a destination.

    Attributes:
        revisions_apart_s: least time between two reports of one series: late slices must not flood a PACS.
        identity_within_s: how long a peer that fails to answer C-FIND holds a report.
        identity_unanswered: what happens then: `withhold` it for a person, or `send` it, which is recorded.
        allow_empty_patient_id: report images without Patient ID (0010,0020); otherwise they are withheld.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    retry_first_s: float = 5.0
    retry_at_most_s: float = 300.0
    give_up_after_s: float = 7 * 86400.0
    timeout_s: float = 30.0
    revisions_apart_s: float = 60.0
    identity_within_s: float = 900.0
    identity_unanswered: Literal["withhold", "send"] = "withhold"
    allow_empty_patient_id: bool = False

    def backoff_s(self, attempt: int) -> float:
        """Return the pause after the given failed attempt (from 1): doubling, capped."""
        return float(min(self.retry_first_s * 2 ** max(0, min(attempt - 1, 30)), self.retry_at_most_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRules:
    """What a report states in addition to the rating.

    Attributes:
        predicted_parameters: the exposure or field strength that the network predicts from the image, where the value
            lies within what was learned and the card states the error on held-out sources.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    predicted_parameters: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanionRules:
    """The companions to send with each report to each destination; none by default.

    Attributes:
        secondary_capture: one picture of the score map for each scored slice (Secondary Capture, RGB).
        parametric_map: the map's numbers on the pixels of the scored slices (Parametric Map, float32; CT, MR).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    secondary_capture: bool = False
    parametric_map: bool = False

    @property
    def wanted(self) -> tuple[str, ...]:
        """The kinds that are on."""
        return tuple(kind for kind in ("secondary_capture", "parametric_map") if getattr(self, kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRules:
    """The nightly export of harvested labels; off unless a site sets a time.

    Attributes:
        nightly: time of day in the node's time zone, `02:30`; None: off.
        folder: of all exports, one for each day; relative to the data folder.
        payload: see `domain.export.ExportRequest`.
        keep: how many exports stay.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    nightly: str | None = None
    folder: Path = Path("exports")
    payload: Payload = "refs"
    keep: int = 7

    def __post_init__(self) -> None:
        if self.nightly is not None and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.nightly):
            raise ValueError(f"nightly must be a time of day like '02:30', in quotation marks, found {self.nightly!r}")
        if self.keep < 1:
            raise ValueError("keep must be at least 1")

    @property
    def hour_and_minute(self) -> tuple[int, int] | None:
        """When it is time, or None."""
        if self.nightly is None:
            return None
        hour, minute = self.nightly.split(":")
        return int(hour), int(minute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the network is run. What can move a score is off by default, and named in every report.

    Attributes:
        device: `auto` (CUDA if there is one, else CPU), `cpu`, `cuda`, `cuda:1`.
        threads: images at once on a CPU; None: as many as this process may use cores.
        batch_images: images at once on a GPU, always so many: what is missing is black, so that the bits do not
            depend on who else waits. The bound of its memory; halved when it runs out.
        precision: `fp32`, or `bf16` for everything but the heads (GPU, or a CPU with AMX).
        fold_tab: merge two of the three projections of channel attention; moves a score by about 5e-7.
        compile: let torch.compile fuse the network; costs half a minute at the start.
        cuda_graph: record the kernels of a batch once and replay them (GPU).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    device: str = "auto"
    threads: int | None = None
    batch_images: int = 7
    precision: Literal["fp32", "bf16"] = "fp32"
    fold_tab: bool = False
    compile: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.batch_images < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError("batch_images and threads must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice(Execution):
    """Which weights, and how they are run.

    Attributes:
        checkpoint: entry of the lock.
        lock: the site's own list of pinned checkpoints, relative to this file; None: that of the package.
        classifier: entry of the lock that tells region and type from the image where headers do not; None: off.
        allow_untrained: lets weights that were never trained report; for a demo only.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    checkpoint: str = "default"
    lock: Path | None = None
    classifier: str | None = None
    allow_untrained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long source instances stay, and how much room the spool keeps free."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    days: float = 30.0
    low_water_bytes: int = 2 * 1024**3
