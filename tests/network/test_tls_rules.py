"""The files of TLS, and the rules that look at certificates: what cannot work is refused and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tls import Authority, Pair, server

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.policy import AllowRule, ReceiverPolicy
from mediqa_node.network import tls as tls_room
from mediqa_node.network.tls import server_context


@pytest.fixture
def own(authority: Authority, tmp_path: Path) -> Pair:
    return authority.issue("own", to=tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda pair: pair.key.unlink(), ["receiver.tls.key", "No such file"]),
        (lambda pair: pair.certificate.write_bytes(b"\x30\x82"), ["receiver.tls.certificate", "no PEM block"]),
        (lambda pair: pair.key.write_text("-----BEGIN PRIVATE KEY-----\nx\n"), ["receiver.tls", "own.pem", "own.key"]),
        (
            lambda pair: pair.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nx\n"),
            ["receiver.tls.key", "passphrase"],
        ),
        (
            lambda pair: pair.certificate.write_bytes(
                Authority(pair.key.parent / "o").issue("z").certificate.read_bytes()
            ),
            ["receiver.tls.key", "does not match receiver.tls.certificate"],
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_key(
    own: Pair, damage: Callable[[Pair], Any], words: list[str]
) -> None:
    damage(own)

    with pytest.raises(ConfigurationError) as caught:
        server_context(server(own))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_revocation_list_is_trusted_with_nothing(own: Pair, authority: Authority, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes(authority.revoke().read_bytes() + Authority(tmp_path / "other").file.read_bytes())

    with pytest.raises(ConfigurationError, match="belong in `ca`"):
        server_context(server(own, authority, crl=mixed))


def test_a_file_that_vanishes_while_it_is_loaded_is_named(own: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    read = tls_room._read

    def read_and_lose(file: Path, *what: Any) -> bytes:
        content = read(file, *what)
        file.unlink()
        return content

    monkeypatch.setattr(tls_room, "_read", read_and_lose)
    with pytest.raises(ConfigurationError, match="No such file"):
        server_context(server(own))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"certificate": ""}, "sha256: and 64"),
        ({"certificate": "san: "}, "sha256: and 64"),
        ({"address": "::ffff:192.0.2.0/120"}, "write it as IPv4"),
        ({"ae_title": "CT3 "}, "no blanks"),
        ({"ae_title": "LONGER_THAN_SIXTEEN"}, "1 to 16"),
        ({"ae_title": "A\\B"}, "no backslash"),
    ],
)
def test_a_rule_that_nobody_could_meet_is_refused(rule: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AllowRule(**rule)  # type: ignore[arg-type]


def test_rules_that_nobody_could_meet_are_refused(pair: Pair, authority: Authority, scanner: Pair) -> None:
    with pytest.raises(ValueError, match="demands TLS"):
        ReceiverPolicy(allowed=(AllowRule(tls=True),))
    with pytest.raises(ValueError, match="demands a certificate"):
        ReceiverPolicy(allowed=(AllowRule(certificate=scanner.fingerprint),), tls=server(pair))
    assert ReceiverPolicy(allowed=(AllowRule(certificate=scanner.fingerprint),), tls=server(pair, authority)).tls


@pytest.mark.parametrize("how", [{"tls": True}, {"certificate": "san:ct3.example.org"}])
def test_everybody_does_not_admit_a_title_that_has_to_show_more(pair: Pair, authority: Authority, how: Any) -> None:
    rules = ReceiverPolicy(allowed=(AllowRule(ae_title="CT3", **how), AllowRule()), tls=server(pair, authority))

    assert rules.rule_for("CT3", "127.0.0.1") is None
    assert rules.rule_for("CT3", "127.0.0.1", frozenset({"san:ct3.example.org"})) == rules.allowed[0]
    assert rules.rule_for("CT4", "127.0.0.1") == rules.allowed[1]


def test_a_title_without_its_certificate_corrects_nothing(pair: Pair, authority: Authority, scanner: Pair) -> None:
    """Instances keep title and address of their sender, not its certificate."""
    bound = AllowRule(ae_title="CT3", source=True, certificate=scanner.fingerprint)
    ports = server(pair, authority)

    assert ReceiverPolicy(allowed=(bound, AllowRule()), tls=ports).is_source("CT3", "127.0.0.1")
    assert not ReceiverPolicy(allowed=(bound, AllowRule(ae_title="CT3")), tls=ports).is_source("CT3", "127.0.0.1")
