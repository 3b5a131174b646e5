"""What `config check`, `status` and `doctor` find about certificates and keys."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import invoke_in
from support.tls import Authority

from mediqa_node import config, doctor
from mediqa_node.composition import certificates, resources
from mediqa_node.domain.health import ConcernKind, of_tls


class Site:
    """A prepared node with TLS in both directions; its files are relative to the configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "tls")
        self.node = self.authority.issue("node")
        self.ours = self.authority.issue("ours")
        self.configure()
        resources.prepare(config.load(folder / "node.yaml", {}))

    def configure(self, **server: Any) -> None:
        ports = {"certificate": "tls/node.pem", "key": "tls/node.key", "ca": "tls/ca.pem", **server}
        client = {"ca": "tls/ca.pem", "certificate": "tls/ours.pem", "key": "tls/ours.key"}
        peer = {"ae_title": "P", "host": "pacs", "port": 2762, "tls": client}
        tree = {
            "receiver": {"tls": ports},
            "peers": {"PACS": peer},
            "returns": [{"to": ["PACS"]}],
            "retention": {"low_water_bytes": 0},
        }
        (self.folder / "node.yaml").write_text(yaml.safe_dump(tree))

    def concerns(self) -> list[dict[str, str]]:
        found = json.loads(invoke_in(self.folder, "status", "--json").stdout)["concerns"]
        return [one for one in found if one["kind"] == ConcernKind.TLS_FILES]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_good_files_are_no_concern(site: Site) -> None:
    checked = invoke_in(site.folder, "config", "check")

    assert checked.returncode == 0, checked.stderr
    assert "127.0.0.1:2762 with TLS" in checked.stdout
    assert "P at pacs:2762 with TLS" in checked.stdout
    assert "WARNING" not in checked.stdout
    assert site.concerns() == []
    [found] = doctor.tls(config.load(site.folder / "node.yaml", {}))
    assert found.mark == "ok"


def test_certificates_that_expire_within_30_days_are_named(site: Site) -> None:
    site.authority.issue("node", days=29)
    site.authority.issue("ours", days=-1)
    site.configure(crl=str(site.authority.revoke(days=-2)))

    found = {one["about"]: one["text"] for one in site.concerns()}

    assert set(found) == {"receiver.tls.certificate", "peers.PACS.tls.certificate", "receiver.tls.crl"}
    assert "node.pem expires in 29 days" in found["receiver.tls.certificate"]
    assert "expired 24 h ago" in found["peers.PACS.tls.certificate"]
    assert "expired 48 h ago" in found["receiver.tls.crl"] or "expired 2 days ago" in found["receiver.tls.crl"]
    assert "TLS " in invoke_in(site.folder, "status").stdout
    assert invoke_in(site.folder, "config", "check").stdout.count("WARNING") == 3
    assert {one.mark for one in doctor.tls(config.load(site.folder / "node.yaml", {}))} == {"problem"}


def test_an_authority_that_expires_is_named_by_both_who_trust_it(site: Site) -> None:
    files = certificates.tls_files(config.load(site.folder / "node.yaml", {}))
    ends = max(file.expires_at or 0.0 for file in files if file.key.endswith(".ca"))

    about = {one.about for one in of_tls(files, ends - 86_400.0)}

    assert {"receiver.tls.ca", "peers.PACS.tls.ca"} <= about
    assert list(of_tls(files, time.time())) == []


def test_a_file_that_cannot_be_used_is_an_error_of_the_check_and_a_concern(site: Site) -> None:
    site.ours.key.unlink()

    checked = invoke_in(site.folder, "config", "check")

    assert checked.returncode == 2
    assert f"peers.PACS.tls.key {site.ours.key}: cannot be read: No such file" in checked.stderr
    [concern] = site.concerns()
    assert concern["about"] == "peers.PACS.tls"
    assert "ours.key" in concern["text"]
    assert invoke_in(site.folder, "serve").returncode == 2


def test_the_files_of_a_dicomweb_peer_count_as_well(site: Site) -> None:
    site.authority.issue("ours", days=5)
    web = {"url": "https://archive/dicom-web", "certificate": "tls/ours.pem", "key": "tls/ours.key", "ca": "tls/ca.pem"}
    (site.folder / "node.yaml").write_text(yaml.safe_dump({"peers": {"WEB": {"dicomweb": web}}}))

    [concern] = site.concerns()
    assert (concern["about"], "expires in" in concern["text"]) == ("peers.WEB.dicomweb.certificate", True)

    site.ours.key.write_text("-----BEGIN PRIVATE KEY-----\nx\n")
    checked = invoke_in(site.folder, "config", "check")
    assert checked.returncode == 2
    assert "peers.WEB.dicomweb: its `ca`, `certificate` or `key` cannot be used" in checked.stderr
    assert "nothing goes to this peer" in site.concerns()[0]["fix"]


def test_a_key_that_others_can_read_is_a_warning(site: Site) -> None:
    site.node.key.chmod(0o644)

    checked = invoke_in(site.folder, "config", "check")

    assert checked.returncode == 0
    assert "receiver.tls.key" in checked.stdout
    assert f"chmod 600 {site.node.key}" in checked.stdout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("receiver: {tls: {key: k.pem}}", ["receiver.tls.certificate", "required"]),
        ("receiver: {tls: {certificate: c, key: k, prot: 1}}", ["receiver.tls.prot", "certificate, key, ca"]),
        ("receiver: {tls: {certificate: c, key: k, crl: l}}", ["receiver.tls", "crl needs ca"]),
        ("receiver: {allowed: [{tls: true}]}", ["receiver", "demands TLS"]),
        ("receiver: {allowed: [{certificate: 'md5:00'}]}", ["receiver.allowed.0", "64 hexadecimal digits"]),
        ("receiver: {proxies: [balancer]}", ["receiver", "balancer"]),
        ("peers: {P: {ae_title: x, host: h, port: 1, tls: {}}}", ["peers.P.tls", "ca or fingerprint"]),
        ("peers: {P: {ae_title: x, host: h, port: 1, tls: {ca: c, key: k}}}", ["peers.P.tls", "belong together"]),
        ("peers: {P: {ae_title: x, host: h, port: 1, tls: {fingerprint: 'san:x'}}}", ["peers.P.tls", "sha256"]),
        ("node: {ae_titles: [SEVENTEEN_LETTERS]}", ["node.ae_titles.0", "16"]),
    ],
)
def test_a_wrong_setting_is_named_by_its_key(tmp_path: Path, settings: str, words: list[str]) -> None:
    (tmp_path / "node.yaml").write_text(settings)

    with pytest.raises(config.ConfigurationError) as caught:
        config.load(tmp_path / "node.yaml", {})
    assert all(word in str(caught.value) for word in words), str(caught.value)
