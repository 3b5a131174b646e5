"""Exports in an object store: whole or recognisably not, and no credentials in the configuration."""

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from mediqa_node.domain.errors import ConfigurationError, StorageFailed
from mediqa_node.domain.policy import ObjectStore
from mediqa_node.exchange.folder import SUMS, writing
from mediqa_node.exchange.object_store import copy_to_store


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "2026-11-30"
    with writing(folder, replace=False) as out:
        out.put("manifest.csv", b"a,b\n")
        out.put("payload/one.npz", b"pixels")
        out.put("provenance.json", b"{}")
    return folder


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A bucket of a server that speaks S3."""
    boto3 = pytest.importorskip("boto3", reason="pip install 'moto[server]'")
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    endpoint = f"http://{host.replace('0.0.0.0', '127.0.0.1')}:{port}"
    boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint).create_bucket(Bucket="exports")
    yield ObjectStore(url="s3://exports/site", endpoint=endpoint, region="us-east-1")
    server.stop()


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_arrives_whole_in_a_folder_of_its_name(export: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    seen: list[tuple[int, int]] = []

    where = copy_to_store(
        export, ObjectStore(url=f"file://{tmp_path}/store"), advance=lambda *progress: seen.append(progress)
    )

    assert where.endswith("/store/2026-11-30")
    assert content(tmp_path / "store" / "2026-11-30") == content(export)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_copy_that_is_broken_off_is_not_taken_for_whole(export: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = ObjectStore(url=f"file://{tmp_path}/store")
    copy_to_store(export, store)

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_to_store(export, store, advance=stop)

    assert not (tmp_path / "store" / "2026-11-30" / SUMS).exists()
    copy_to_store(export, store)
    assert (tmp_path / "store" / "2026-11-30" / SUMS).exists()


def test_a_store_that_speaks_s3(export: Path, bucket: ObjectStore) -> None:
    copy_to_store(export, bucket)
    copy_to_store(export, bucket)

    store = obstore.store.from_url(
        bucket.url, endpoint=bucket.endpoint, region=bucket.region, client_options={"allow_http": True}
    )
    found = {name: bytes(obstore.get(store, f"2026-11-30/{name}").bytes()) for name in content(export)}
    assert found == content(export)


def test_a_store_that_does_not_answer_is_a_failure_that_says_so(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    gone = ObjectStore(url="s3://exports/site", endpoint="http://127.0.0.1:9", region="us-east-1")

    with pytest.raises(StorageFailed, match="not copied to s3://exports/site"):
        copy_to_store(export, gone)


@pytest.mark.parametrize("url", ["exports", "s3://key:secret@bucket"])
def test_an_address_is_a_url_without_credentials(url: str) -> None:
    with pytest.raises(ValueError, match="without credentials"):
        ObjectStore(url=url)


def test_an_address_that_nobody_knows_is_refused(export: Path) -> None:
    with pytest.raises(ConfigurationError, match="gopher://"):
        copy_to_store(export, ObjectStore(url="gopher://bucket"))
