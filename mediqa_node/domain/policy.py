"""Settings of a site: plain frozen values, passed in by the composition root; its rules are in `rules`.

Field names are the keys of `node.yaml`; `__pydantic_config__` lets the configuration reader
refuse unknown keys without this floor knowing the reader.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import ClassVar, Literal

from mediqa_node.domain.export import Payload
from mediqa_node.domain.peer import check_ae_title
from mediqa_node.domain.quantities import QUANTITIES
from mediqa_node.domain.rules import CompletionRule, PhantomRule, PrimaryRule, ScoreRule
from mediqa_node.domain.tls import Proof, TlsServer, normal

_STRICT: dict[str, str] = {"extra": "forbid"}


def plain_address(address: str) -> str:
    """Return an IP address in one form, however it is written and whether the socket was IPv4 or both.

    >>> plain_address("::ffff:192.0.2.7"), plain_address("2001:DB8:0::1")
    ('192.0.2.7', '2001:db8::1')

    Raises:
        ValueError: it is none.
    """
    found = ip_address(address)
    return str((found.version == 6 and found.ipv4_mapped) or found)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowRule:
    """Who may associate: calling AE title and address must both match.

    Attributes:
        ae_title: calling AE title, or `*`.
        address: network in CIDR notation.
        store: False lets the caller verify (C-ECHO) and answer requests of this node only; all else answers 0x0124.
        source: this caller may correct and reject the images that it has sent itself; needs an AE title.
        max_associations: how many at once for one AE title under this rule.
        max_per_address: concurrent associations from one address, for any AE title.
        tls: this rule is for callers on the TLS port only.
        certificate: for those that presented this certificate there: `sha256:` of its DER, or `san:` and a name in it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    ae_title: str = "*"
    address: str = "127.0.0.0/8"
    store: bool = True
    source: bool = False
    max_associations: int | None = None
    max_per_address: int | None = None
    tls: bool = False
    certificate: str | None = None

    def __post_init__(self) -> None:
        network = ip_network(self.address, strict=False)
        if network.version == 6 and network.network_address.ipv4_mapped is not None:
            raise ValueError(f"address {self.address} is IPv4 within IPv6: write it as IPv4")
        if self.ae_title != "*":
            check_ae_title(self.ae_title)
        if self.certificate is not None:
            normal(self.certificate)
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

    @property
    def needs_tls(self) -> bool:
        """Whether it is for callers on the TLS port only."""
        return self.tls or self.certificate is not None

    def is_met_by(self, proof: Proof) -> bool:
        """Whether a connection shows what this rule demands of it."""
        if self.certificate is not None:
            return proof is not None and normal(self.certificate) in proof
        return proof is not None or not self.tls


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverPolicy:
    """Limits and services of the SCP. Deadlines are seconds of wall time.

    Attributes:
        commit_with: name of the archive that has to commit to instances before this node commits to them; None: storage
            commitment is not offered.
        commitment_deadline_s: what that archive has not answered by then has failed.
        mpps: take Modality Performed Procedure Steps, which announce what a series has.
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
    tls: TlsServer | None = None
    proxies: tuple[str, ...] = ()
    commit_with: str | None = None
    commitment_deadline_s: float = 86400.0
    mpps: bool = False
    query: bool = False

    def __post_init__(self) -> None:
        for name in ("max_associations", "max_dataset_bytes", "pdu_deadline_s", "negotiation_deadline_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than 0")
        for address in self.proxies:
            ip_address(address)
        if self.tls is None and any(rule.needs_tls for rule in self.allowed):
            raise ValueError("a rule in `allowed` demands TLS, and `tls` is null")
        if any(rule.certificate is not None for rule in self.allowed) and (self.tls is None or self.tls.ca is None):
            raise ValueError("a rule in `allowed` demands a certificate, and without `tls.ca` none is asked for")

    def rule_for(self, ae_title: str, address: str, proof: Proof = None) -> AllowRule | None:
        """Return the first rule that admits the caller, or None."""
        return next((rule for rule in self.rules_of(ae_title, address) if rule.is_met_by(proof)), None)

    def rules_of(self, ae_title: str, address: str) -> list[AllowRule]:
        """Return the rules for a title and an address, whatever they demand of the connection.

        An AE title that is named as a source, or with TLS or a certificate, is bound to the rules that name it: `*`
        admits it neither elsewhere nor without them.
        """
        binding = (rule for rule in self.allowed if rule.source or rule.needs_tls)
        bound = any(rule.ae_title == ae_title for rule in binding)
        rules = [rule for rule in self.allowed if not bound or rule.ae_title == ae_title]
        return [rule for rule in rules if rule.matches(ae_title, address)]

    def is_source(self, ae_title: str, address: str) -> bool:
        """Whether everybody who is admitted with this title from this address is a source, with TLS or without."""
        rules = self.rules_of(ae_title, address)
        last = next((i for i, rule in enumerate(rules) if rule.is_met_by(None)), len(rules))
        return bool(rules) and all(rule.source for rule in rules[: last + 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRules:
    """When a series counts as complete (README of the pipeline: announced, contiguous, quiet, forced).

    Attributes:
        rules: other times for series that match; the first that matches decides.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    contiguous_after_s: float = 1.0
    quiet_after_s: float = 10.0
    deliver_after_s: float = 60.0
    forced_after_s: float = 900.0
    rules: tuple[CompletionRule, ...] = ()

    def with_rule(self, rule: CompletionRule | None) -> "CompletionRules":
        """Return the times of a series that a rule matches."""
        if rule is None:
            return self
        times = ("contiguous_after_s", "quiet_after_s", "deliver_after_s", "forced_after_s")
        own = {name: value for name in times if (value := getattr(rule, name)) is not None}
        return replace(self, **own)


class Refuse(StrEnum):
    """What becomes of a stack outside the training range; other refusals are the same for both."""

    STRICT = "strict"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePolicy:
    """What is scored at all; everything is harvested.

    Attributes:
        primary: `first` complete reconstruction of an acquisition, `all`, or rules of which one must match.
        rules: which series are scored at all; the first that matches decides, without one a series is scored.
        max_age_days: older studies (prefetched priors) are not scored; None: no limit.
        phantoms: series that are measured, not scored; the first rule that matches names the trend.
        measures: names of the quantities that are measured on the pixels of every series; `all`, or some of
            `domain.quantities`.
        refuse: a stack outside the training range is not scored (`strict`), or scored and flagged, without a verdict.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    primary: Literal["first", "all"] | tuple[PrimaryRule, ...] = "first"
    max_age_days: float | None = None
    rules: tuple[ScoreRule, ...] = ()
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
class DeliveryRules:
    """How long and how often a report is tried at a destination.

    Attributes:
        revisions_apart_s: least time between two reports of one series: late slices must not flood a PACS.
        identity_within_s: how long a peer that fails to answer C-FIND holds a report.
        identity_unanswered: what happens then: `withhold` it for a person, or `send` it, which is recorded.
        commitment_within_s: how long an archive may take to commit to a report before it is asked again.
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
    commitment_within_s: float = 3600.0
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
class ObjectStore:
    """A place for copies of exports: a bucket of S3 or its like. Its credentials come from the environment.

    Attributes:
        url: `s3://bucket/prefix`, or another address that obstore knows.
        endpoint: of a store that is not Amazon's, `https://s3.example`; None: the usual one.
        region: None: from the environment.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    url: str
    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        if "://" not in self.url or "@" in self.url:
            raise ValueError(f"url must be like s3://bucket/prefix, without credentials, found {self.url!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRules:
    """The nightly export of harvested labels; off unless a site sets a time.

    Attributes:
        nightly: time of day in the node's time zone, `02:30`; None: off.
        folder: of all exports, one for each day; relative to the data folder.
        payload: see `domain.export.ExportRequest`.
        keep: how many exports stay in the folder.
        store: each nightly export is copied there, too; None: it is not.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    nightly: str | None = None
    folder: Path = Path("exports")
    payload: Payload = "refs"
    keep: int = 7
    store: ObjectStore | None = None

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
class Retention:
    """How long source instances stay, and how much room the spool keeps free."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    days: float = 30.0
    low_water_bytes: int = 2 * 1024**3
