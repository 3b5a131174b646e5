"""Settings: strict, overridable, and errors that tell a person alone at night what to do."""

from pathlib import Path

import pytest

from mediqa_node.composition import resources
from mediqa_node.config import find, load
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.peer import DicomWeb
from mediqa_node.storage.database import Database


def written(folder: Path, text: str) -> Path:
    path = folder / "node.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_the_defaults_are_those_of_the_documentation() -> None:
    settings = load(None, {})

    assert settings.node.port == 11112
    assert settings.receiver.max_associations == 32
    assert settings.completion.quiet_after_s == 10
    assert settings.model.allow_untrained is False


def test_what_is_shown_reads_back_as_the_same_settings(tmp_path: Path) -> None:
    text = "peers: {PACS: {ae_title: P, host: h, port: 1}}\nreturns: [{from: CT1, to: [PACS, sender], when: flagged}]\n"
    first = load(written(tmp_path, text), {})

    again = load(written(tmp_path, first.as_yaml()), {})

    assert again == first
    assert again.returns[0].sender == "CT1"


def test_files_of_a_web_peer_are_relative_to_the_file_and_reach_the_stations(tmp_path: Path) -> None:
    text = "peers: {WEB: {dicomweb: {url: 'https://h/', token_file: t, ca: /ca.pem}, authority: true}}"
    first = load(written(tmp_path, text), {})

    [peer] = first.peers_of_settings()

    assert (peer.ae_title, peer.where, peer.authority) == ("", "https://h/", True)
    assert peer.dicomweb == DicomWeb(url="https://h/", token_file=tmp_path / "t", ca=Path("/ca.pem"))
    assert load(written(tmp_path, first.as_yaml()), {}) == first


def test_the_data_folder_is_relative_to_the_file(tmp_path: Path) -> None:
    assert load(written(tmp_path, "node: {data_dir: ../kept}"), {}).data_dir == (tmp_path / "../kept").resolve()


PEER = "peers: {P: {ae_title: P, host: h, port: 1}}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("receiver: {max_asociations: 3}", ["receiver.max_asociations", "3", "max_associations"]),
        ("nod: {}", ["nod", "node, database, peers"]),
        ("node: {port: abc}", ["node.port", "'abc'", "integer"]),
        ("node: {ae_title: SEVENTEEN_LETTERS}", ["node.ae_title", "16"]),
        ("receiver: {durability: never}", ["receiver.durability", "power-loss", "'never'"]),
        ("receiver: {allowed: [{ae_titel: x}]}", ["receiver.allowed.0.ae_titel", "ae_title, address"]),
        ("receiver: {allowed: [{address: everywhere}]}", ["receiver.allowed.0", "everywhere"]),
        ("peers: {P: {ae_title: x, host: h}}", ["peers.P", "port required"]),
        ("peers: {P: {dicomweb: {url: 'https://h/', token: x}}}", ["peers.P.dicomweb.token", "url, token_file"]),
        ("peers: {P: {dicomweb: {url: 'h'}}}", ["peers.P.dicomweb", "https://archive/dicom-web"]),
        ("peers: {P: {port: 1, dicomweb: {url: 'https://h/'}}}", ["peers.P", "in place of port"]),
        ("score: {phantoms: [{name: water}]}", ["score.phantoms.0", "needs a condition", "patient_id"]),
        ("score: {phantoms: [{station: CT1}]}", ["score.phantoms.0.name", "required"]),
        ("score: {phantoms: [{name: '', station: CT1}]}", ["score.phantoms.0", "1 to 64"]),
        ("score: {phantoms: [{name: a, station: '('}]}", ["score.phantoms.0", "'('", "no RE2 regular expression"]),
        ("score: {phantoms: [{name: a, statoin: x}]}", ["score.phantoms.0.statoin", "station, protocol"]),
        ("score: {phantoms: [{name: a, station: x}, {name: a, station: y}]}", ["score", "one name: a, a"]),
        ("export: {nightly: 22:30}", ["export.nightly", "string", "1350"]),
        ("export: {nightly: '2:30'}", ["export", "02:30", "'2:30'"]),
        ("export: {keep: 0}", ["export", "keep must be at least 1"]),
        ("score: {refuse: never}", ["score.refuse", "'strict' or 'flag'", "never"]),
        ("export: {payload: png}", ["export.payload", "'refs'", "png"]),
        ("returns: [{to: [NOBODY]}]", ["returns.0.to", "NOBODY", "sender"]),
        ("returns: [{form: CT1, to: [sender]}]", ["returns.0.form", "from, called, modality"]),
        ("returns: [{attributes: {InstanceNumber: '1'}}]", ["returns.0", "InstanceNumber", "only `forward`"]),
        ("completion: {rules: [{attributes: {KVP: '1'}}]}", ["completion.rules.0", "KVP", "only `forward`"]),
        ("score: {rules: [{modality: OP}]}", ["score.rules.0.score", "required"]),
        (f"forward: [{{attributes: {{Nope: x}}, to: [P]}}]\n{PEER}", ["forward.0", "'Nope'", "keyword"]),
        (f"forward: [{{to: [sender]}}]\n{PEER}", ["forward.0.to", "'sender'", "peers: P"]),
        (f"forward: [{{from: CT1}}]\n{PEER}", ["forward", "needs `to`"]),
        (f"forward: [{{to: [P]}}]\nreceiver: {{durability: process-crash}}\n{PEER}", ["forward", "power-loss"]),
        ("forward: [{to: [W]}]\npeers: {W: {dicomweb: {url: 'https://h/'}}}", ["forward.0.to", "'W'"]),
        ("peers: {W: {commitment: true, dicomweb: {url: 'https://h/'}}}", ["peers.W", "commitment"]),
        ("database: {url: 'mysql://x'}", ["database.url", "postgresql+psycopg"]),
        ("[1, 2]", ["mapping"]),
        ("node: {a: [}", ["YAML"]),
        ("node: !!python/object/apply:os.system ['true']", ["YAML"]),
    ],
)
def test_an_error_names_file_key_value_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    path = written(tmp_path, text)

    with pytest.raises(ConfigurationError) as caught:
        load(path, {})

    assert all(word in str(caught.value) for word in [str(path), *words]), str(caught.value)


def test_the_environment_overrides_the_file_whatever_the_case_of_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, "peers: {PACS: {ae_title: P, host: h, port: 1}}")
    environment = {"MEDIQA__PEERS__PACS__PORT": "104", "MEDIQA__MODEL__ALLOW_UNTRAINED": "true", "OTHER": "x"}

    settings = load(path, environment)

    assert settings.peers["PACS"].port == 104
    assert settings.model.allow_untrained is True


def test_a_wrong_override_is_refused_like_a_wrong_file() -> None:
    with pytest.raises(ConfigurationError, match=r"node\.prt: unknown key"):
        load(None, {"MEDIQA__NODE__PRT": "1"})


def test_the_file_is_the_argument_else_the_variable_else_the_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = written(tmp_path, "")
    assert find(None, {}) is None
    assert find(None, {"MEDIQA_CONFIG": str(named)}) == named
    (tmp_path / "config").mkdir()
    usual = written(tmp_path / "config", "")
    assert find(None, {}) == Path("config/node.yaml")
    assert find(usual, {"MEDIQA_CONFIG": str(named)}) == usual

    with pytest.raises(ConfigurationError, match="no such configuration file"):
        find(tmp_path / "absent.yaml", {})


def test_the_rules_of_reports_reach_the_stations(tmp_path: Path) -> None:
    settings = load(written(tmp_path, "report: {predicted_parameters: true}"), {})
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")

    assert resources.node_context(settings, database).report.predicted_parameters
    assert not load(None, {}).report.predicted_parameters
    database.close()
