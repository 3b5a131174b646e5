"""Copy a finished export to an object store: S3 and its like, by obstore.

A store has neither rename nor fsync: an object is there once its upload has ended. Whoever reads there takes an export
for whole once it has `SHA256SUMS`, which is uploaded last and names all others. For the same reason a store cannot be
the spool.

Credentials come from the environment (`AWS_ACCESS_KEY_ID` and the like) or the machine's role, never from `node.yaml`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mediqa_node.domain.errors import ConfigurationError, StorageFailed
from mediqa_node.domain.policy import ObjectStore
from mediqa_node.exchange.folder import SUMS


def copy_to_store(
    folder: Path, where: ObjectStore, *, advance: Callable[[int, int], None] = lambda _done, _total: None
) -> str:
    """Upload every file of an export below the folder's name; return where it is.

    Args:
        advance: told how many files are there, and of how many.

    Raises:
        ConfigurationError: obstore is not installed, or the address is none that it knows.
        StorageFailed: the store does not answer, or refuses.
    """
    obstore, store = _opened(where)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files.sort(key=lambda name: name.name == SUMS)
    try:
        # an earlier copy counts as broken off from now on
        obstore.delete(store, [f"{folder.name}/{SUMS}"])
    except FileNotFoundError:
        pass
    except obstore.exceptions.BaseError as error:
        raise StorageFailed(f"export not copied to {where.url}: {_words(error)}") from error
    for done, name in enumerate(files, start=1):
        try:
            obstore.put(store, f"{folder.name}/{name.as_posix()}", folder / name)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StorageFailed(f"{name} not copied to {where.url}: {_words(error)}") from error
        advance(done, len(files))
    return f"{where.url.rstrip('/')}/{folder.name}"


def _opened(where: ObjectStore) -> tuple[Any, Any]:
    try:
        import obstore
        from obstore.store import from_url
    except ImportError as error:
        raise ConfigurationError("export.store needs obstore: pip install 'mediqa-node[cluster]'") from error
    options: dict[str, Any] = {}
    if where.endpoint is not None:
        options["endpoint"] = where.endpoint
        options["client_options"] = {"allow_http": where.endpoint.startswith("http://")}
    if where.region is not None:
        options["region"] = where.region
    try:
        return obstore, from_url(where.url, **options)
    except (ValueError, obstore.exceptions.BaseError) as error:
        raise ConfigurationError(f"export.store.url {where.url!r}: {_words(error)}") from error


def _words(error: Exception) -> str:
    """Return the first line of an error: the others are a dump of its structure."""
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
