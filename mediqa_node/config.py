"""Settings: one YAML file with environment overrides; strict and frozen.

An error names the file, the key, the value and what is allowed. Only the composition root and what is above it know
this module; every room receives plain values.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mediqa_node.domain.assessment import Calibration
from mediqa_node.domain.cluster import HOST_ID
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.execution import ModelChoice
from mediqa_node.domain.identity import EXACT, IdentityRules
from mediqa_node.domain.match import Match, key_of
from mediqa_node.domain.peer import DicomWeb, ForwardStyle, Peer, check_ae_title
from mediqa_node.domain.policy import (
    CompanionRules,
    CompletionRules,
    DeliveryRules,
    ExportRules,
    ReceiverPolicy,
    ReportRules,
    Retention,
    ScorePolicy,
)
from mediqa_node.domain.returns import SENDER
from mediqa_node.domain.rules import ForwardRule, ReturnRule
from mediqa_node.domain.tls import TlsClient, TlsServer
from mediqa_node.domain.uid import is_canonical_uid

ENVIRONMENT_PREFIX = "MEDIQA__"
DEFAULT_PATH = Path("config/node.yaml")


AeTitle = Annotated[str, AfterValidator(check_ae_title)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class Node(_Strict):
    """The node itself. `data_dir` is relative to the configuration file; `host_id` tells its hosts apart."""

    host_id: str | None = None
    ae_title: AeTitle = "MEDIQA"
    ae_titles: tuple[AeTitle, ...] = ()
    host: str = "127.0.0.1"
    port: int = Field(default=11112, ge=0, le=65535)
    data_dir: Path = Path("var")
    device_uid: str | None = None
    time_zone: str | None = None

    @field_validator("host_id")
    @classmethod
    def _name(cls, host_id: str | None) -> str | None:
        if host_id is not None and not HOST_ID.fullmatch(host_id):
            raise ValueError("must be null or up to 24 lower-case letters, digits and hyphens, such as north-1")
        return host_id

    @field_validator("device_uid")
    @classmethod
    def _uid(cls, device_uid: str | None) -> str | None:
        if device_uid is not None and not is_canonical_uid(device_uid):
            raise ValueError("must be null or a UID such as 1.2.840.99999.1")
        return device_uid


class Database(_Strict):
    """The database. Null: SQLite in `data_dir`."""

    url: str | None = None

    @field_validator("url")
    @classmethod
    def _known_dialect(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("postgresql+psycopg://", "sqlite:///")):
            raise ValueError("must be null, postgresql+psycopg://… or sqlite:///…")
        return url


class PeerSettings(_Strict):
    """A DICOM application entity, or a DICOMweb server, that reports may be sent to."""

    ae_title: AeTitle | None = None
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    dicomweb: DicomWeb | None = None
    sr_sop_class: str = Field(default="auto", pattern="^(auto|comprehensive3d|comprehensive|enhanced)$")
    authority: bool = False
    retraction: Literal["void", "note"] = "void"
    commitment: bool = False
    identity: IdentityRules = EXACT
    forward: ForwardStyle = ForwardStyle()
    tls: TlsClient | None = None

    @model_validator(mode="after")
    def _has_one_address(self) -> "PeerSettings":
        address = {"ae_title": self.ae_title, "host": self.host, "port": self.port}
        if self.dicomweb is None and (missing := [key for key, value in address.items() if value is None]):
            raise ValueError(f"{', '.join(missing)} required, or dicomweb for a server that speaks DICOMweb")
        if self.dicomweb is not None and (given := [key for key, value in address.items() if value is not None]):
            raise ValueError(f"dicomweb stands in place of {', '.join(given)}")
        if self.dicomweb is not None and (self.commitment or self.tls):
            raise ValueError("dicomweb has neither storage commitment nor `tls`: its certificates are under dicomweb")
        return self

    def as_peer(self, name: str, folder: Path) -> Peer:
        """Return the peer, with files relative to the folder of the configuration."""
        values = {key: value for key, value in self if value is not None}
        if self.tls is not None:
            values["tls"] = self.tls.below(folder)
        if self.dicomweb is not None:
            files = ("token_file", "certificate", "key", "ca")
            named = {key: folder / file for key in files if (file := getattr(self.dicomweb, key)) is not None}
            values["dicomweb"] = replace(self.dicomweb, **named)
        return Peer(name=name, **values)


class WebSettings(_Strict):
    """The workbench: pages and API. Behind TLS, `secure` keeps the cookie from plain connections."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=8105, ge=0, le=65535)
    secure: bool = False
    proxies: tuple[str, ...] = ("127.0.0.1",)
    idle_minutes: float = Field(default=30.0, gt=0)
    viewer: str | None = None

    @field_validator("viewer")
    @classmethod
    def _address(cls, viewer: str | None) -> str | None:
        if viewer is not None and not viewer.startswith(("https://", "http://")):
            raise ValueError("must be null or an address that begins with https:// or http://")
        return viewer

    @property
    def is_in_plain_text(self) -> bool:
        """Whether other machines reach the pages without TLS."""
        return not self.secure and self.host not in ("127.0.0.1", "::1", "localhost")


class Settings(_Strict):
    """Everything a site can set. `file` is the file that was read, or None for the defaults."""

    node: Node = Node()
    database: Database = Database()
    peers: dict[str, PeerSettings] = {}
    returns: tuple[ReturnRule, ...] = ()
    forward: tuple[ForwardRule, ...] = ()
    receiver: ReceiverPolicy = ReceiverPolicy()
    completion: CompletionRules = CompletionRules()
    score: ScorePolicy = ScorePolicy()
    model: ModelChoice = ModelChoice()
    delivery: DeliveryRules = DeliveryRules()
    report: ReportRules = ReportRules()
    companions: CompanionRules = CompanionRules()
    calibrations: tuple[Calibration, ...] = ()
    retention: Retention = Retention()
    export: ExportRules = ExportRules()
    web: WebSettings = WebSettings()
    prompts: Path | None = None
    kernels: Path | None = None
    file: Path | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _rules_are_meaningful(self) -> "Settings":
        lists: dict[str, Sequence[Match]] = {
            "returns": self.returns,
            "forward": self.forward,
            "score.rules": self.score.rules,
            "score.primary": () if isinstance(self.score.primary, str) else self.score.primary,
            "score.phantoms": self.score.phantoms,
            "completion.rules": self.completion.rules,
        }
        for key, rules in lists.items():
            for i, rule in enumerate(rules):
                try:
                    _check_keywords(rule)
                except ValueError as error:
                    raise ValueError(f"{key}.{i}: {error}") from error
        self._check_destinations("returns", self.returns, [*self.peers, SENDER])
        by_dimse = [name for name, peer in self.peers.items() if peer.dicomweb is None]
        self._check_destinations("forward", self.forward, by_dimse)
        if any(not rule.to for rule in self.forward):
            raise ValueError("every rule of `forward` needs `to`, a list of peers")
        if self.forward and self.receiver.durability != "power-loss":
            raise ValueError(
                "forward needs `receiver.durability: power-loss`: a sender deletes what this node has answered for"
            )
        if (archive := self.receiver.commit_with) is not None and archive not in by_dimse:
            known = ", ".join(by_dimse) or "none"
            raise ValueError(f"receiver.commit_with names {archive!r}; configured peers: {known}")
        return self

    def _check_destinations(self, key: str, rules: Sequence[ReturnRule | ForwardRule], known: list[str]) -> None:
        for i, rule in enumerate(rules):
            for name in rule.to:
                if name not in known:
                    raise ValueError(f"{key}.{i}.to names {name!r}; configured peers: {', '.join(known)}")

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the configuration start from."""
        return self.file.resolve().parent if self.file else Path.cwd()

    @property
    def data_dir(self) -> Path:
        """Where the spool, the database and the identity of this node live, absolute."""
        return (self.folder / self.node.data_dir).resolve()

    @property
    def lock_dir(self) -> Path:
        """Where the processes of this host hold their locks, absolute."""
        return self.data_dir / "hosts" / self.node.host_id if self.node.host_id else self.data_dir

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database.url or f"sqlite:///{self._database_file}"

    @property
    def missing_database(self) -> Path | None:
        """The SQLite file that does not exist yet; None if it exists or a database server is used."""
        return None if self.database.url is not None or self._database_file.is_file() else self._database_file

    @property
    def _database_file(self) -> Path:
        return self.data_dir / "node.db"

    @property
    def export_folder(self) -> Path:
        """Where nightly exports go, absolute."""
        return self.data_dir / self.export.folder

    @property
    def model_lock(self) -> Path | None:
        """The site's lock file of checkpoints, absolute; None for the lock file of the package."""
        return self.folder / self.model.lock if self.model.lock else None

    @property
    def receiver_tls(self) -> TlsServer | None:
        """The TLS port of the receiver, with absolute paths and its host; None if there is none."""
        tls = self.receiver.tls
        return replace(tls.below(self.folder), host=tls.host or self.node.host) if tls else None

    @property
    def address(self) -> str:
        """Where scanners reach the node, in words."""
        tls, node = self.receiver_tls, self.node
        ports = [] if tls and not tls.plain else [f"{node.host}:{node.port}"]
        ports += [f"{tls.host}:{tls.port} with TLS"] if tls else []
        return f"{' or '.join((node.ae_title, *node.ae_titles))} at {' and '.join(ports)}"

    def peers_of_settings(self) -> tuple[Peer, ...]:
        """Return the configured peers as domain values."""
        return tuple(peer.as_peer(name, self.folder) for name, peer in self.peers.items())

    def as_yaml(self) -> str:
        """Return the effective settings, defaults included, as YAML that `load` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def _check_keywords(rule: Match) -> None:
    """Check the attributes of a rule; without any, nothing of pydicom is loaded, which takes a tenth of a second."""
    if rule.attributes:
        from mediqa_node.dicom.matching import check_keywords

        check_keywords(rule)


def find(path: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the configuration file in use: argument, `$MEDIQA_CONFIG`, `./config/node.yaml`, else None.

    Raises:
        ConfigurationError: the named file does not exist.
    """
    named = path or (Path(environment["MEDIQA_CONFIG"]) if environment.get("MEDIQA_CONFIG") else None)
    if named is None:
        return DEFAULT_PATH if DEFAULT_PATH.is_file() else None
    if not named.is_file():
        raise ConfigurationError(
            f"{named}: no such configuration file; `mediqa-node config show` prints one with all keys"
        )
    return named


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read settings from `path`, or the defaults for None, with `MEDIQA__A__B` overrides.

    Raises:
        ConfigurationError: the message names file, key, value and what is allowed.
    """
    where = str(path) if path else "defaults"
    try:
        tree = (yaml.safe_load(path.read_text(encoding="utf-8")) if path else {}) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{where}: not readable as YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{where}: must be a mapping of sections, found {type(tree).__name__}")
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            _override(tree, name.removeprefix(ENVIRONMENT_PREFIX).split("__"), _scalar(text))
    try:
        return Settings.model_validate({**tree, "file": path})
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(where, detail) for detail in error.errors())) from error


def _scalar(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _override(tree: dict[str, Any], keys: list[str], value: object) -> None:
    """Set a value; keys are matched case-insensitively, new keys are lower case."""
    for i, wanted in enumerate(keys):
        key = next((known for known in tree if str(known).lower() == wanted.lower()), wanted.lower())
        if i == len(keys) - 1:
            tree[key] = value
        else:
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            tree = tree[key]


def _explain(where: str, detail: Any) -> str:
    location = tuple(part for part in detail["loc"] if not str(part).startswith(("function-", "literal", "tuple[")))
    key = ".".join(str(part) for part in location) or "(whole file)"
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        allowed = ", ".join(_keys_at(location[:-1])) or "nothing"
        return f"{where}: {key}: unknown key (value {detail['input']!r}); allowed here: {allowed}"
    found = "" if detail["type"] == "missing" or not location else f", found {detail['input']!r}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}: {key}: {message[0].lower() + message[1:]}{found}"


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """Return the keys that are allowed in a section, for the error message."""
    kind: Any = Settings
    for part in location:
        if isinstance(part, int):
            continue
        names = _fields_of(kind)
        kind = names.get(str(part)) if names else next(iter(reversed(get_args(kind))), None)
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
    return [name for name in _fields_of(kind) if name != "file"]


def _fields_of(kind: Any) -> dict[str, Any]:
    if get_origin(kind) in (Union, UnionType):
        kind = next((option for option in get_args(kind) if option is not type(None)), None)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {(field.alias or name): field.annotation for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return {key_of(field.name): field.type for field in fields(kind)}
    return {}
