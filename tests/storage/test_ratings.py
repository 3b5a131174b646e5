"""Ratings in the node's database, on SQLite and PostgreSQL: all of a table or nothing, and once."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import migrate

from mediqa_node.exchange.rating_table import Layout
from mediqa_node.pipeline.ratings import Outcome, take_in
from mediqa_node.storage import ratings
from mediqa_node.storage.database import Database
from mediqa_node.storage.rating_tables import ratings as table
from mediqa_node.storage.tables import series

HEAD = "series_uid,reader_id,score,scale_min,scale_max,scale_direction,study_id,comment\n"


on_both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
"""Each test there costs a database of its own: only those whose SQL is not plain."""


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database that knows six series."""
    url = (
        f"sqlite:///{tmp_path / 'node.db'}"
        if getattr(request, "param", "sqlite") == "sqlite"
        else request.getfixturevalue("url")
    )
    opened = Database(url)
    migrate(opened)
    same = {"study_instance_uid": "1.1", "modality": "CT", "state": "DELIVERED", "calling_ae_title": "CT1"}
    same |= {"association_id": "a", "n_associations": 1, "longest_gap_s": 0.0, "opened_at": 0.0}
    same |= {"last_instance_at": 0.0, "n_instances": 1, "generation": 1, "revision": 1, "state_at": 0.0}
    with opened.write() as connection:
        connection.execute(sa.insert(series), [{**same, "series_instance_uid": f"1.2.{i}"} for i in range(6)])
    yield opened
    opened.close()


def rows(*given: tuple[int, str, float], study: str = "main") -> bytes:
    lines = (f"1.2.{i},{reader},{score},1,5,higher_better,{study},private words" for i, reader, score in given)
    return (HEAD + "\n".join(lines)).encode()


def load(database: Database, content: bytes, **options: object) -> Outcome:
    return take_in(database, content, Layout(), **{"by": "a physicist", "at": 1000.0, **options})


def kept(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


@on_both
def test_a_table_is_kept_row_by_row_and_becomes_mean_opinions(database: Database) -> None:
    found = load(database, rows((0, "a", 4), (0, "b", 5), (1, "a", 2), (1, "b", 3)))

    assert found.kept is not None
    assert (found.kept.n_ratings, found.kept.n_series, found.kept.n_readers) == (4, 2, 2)
    assert found.kept.imported_by == "a physicist"
    with database.read() as connection:
        mos = ratings.mos_of(connection, ["1.2.0", "1.2.1", "1.2.5"])
        raw = ratings.kept(connection)
    assert {uid: round(said.mos, 4) for uid, said in mos.items()} == {"1.2.0": 0.875, "1.2.1": 0.375}
    assert (mos["1.2.0"].n_readers, mos["1.2.0"].scale_min, mos["1.2.0"].scale_max) == (2, 1.0, 5.0)
    assert (raw[0].rating.score, raw[0].rating.comment, raw[0].import_id) == (4.0, "private words", 1)


@on_both
def test_one_bad_row_keeps_nothing(database: Database) -> None:
    found = load(database, rows((0, "a", 4), (1, "a", 9), (9, "a", 4)))

    assert [problem.row for problem in found.problems] == [3, 4]
    assert kept(database) == 0
    with database.read() as connection:
        assert ratings.imports(connection) == []


@on_both
def test_the_same_file_twice_is_taken_in_once_and_said_so(database: Database) -> None:
    content = rows((0, "a", 4), (1, "a", 2))

    first, again = load(database, content), load(database, content)

    assert (first.known, again.known, again.problems) == (False, True, ())
    assert again.kept == first.kept
    assert kept(database) == 2


def test_a_dry_run_keeps_nothing(database: Database) -> None:
    found = load(database, rows((0, "a", 4)), dry_run=True)

    assert (found.kept, found.problems, len(found.table.rows)) == (None, (), 1)
    assert kept(database) == 0


def test_a_table_is_read_while_others_write_and_a_dry_run_never_writes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing: list[bool] = []
    write = database.write

    @contextmanager
    def noted() -> Iterator[sa.Connection]:
        with write() as connection:
            writing.append(True)
            yield connection
        writing.append(False)

    monkeypatch.setattr(database, "write", noted)
    content = rows((0, "a", 4)).replace(b"series_uid", b"series_key").replace(b"1.2.0", b"KEY0")
    during: list[bool] = []

    def keys(uids: Iterable[str]) -> dict[str, str]:
        during.append(writing[-1:] == [True])
        return {f"KEY{uid[-1]}": uid for uid in uids}

    tried = load(database, content, dry_run=True, series_keys=keys)
    assert writing == []
    done = load(database, content, series_keys=keys)

    assert (tried.problems, done.problems, kept(database)) == ((), (), 1)
    assert writing == [True, False]
    assert during == [False, False]


def test_another_file_with_a_reading_that_is_known_or_on_another_scale_is_refused(database: Database) -> None:
    load(database, rows((0, "a", 4)))
    other_scale = HEAD + "1.2.1,b,50,0,100,higher_better,main,\n1.2.2,b,50,0,100,higher_better,second,\n"

    again, mixed = load(database, rows((0, "a", 3), (1, "a", 3))), load(database, other_scale.encode())

    [same] = again.problems
    assert (same.row, same.text.endswith("in import 1, repeat 1")) == (2, True)
    [scale] = mixed.problems
    assert (scale.row, "import 1 has 1 to 5" in scale.text) == (2, True)


def test_an_image_must_be_one_of_its_series(database: Database) -> None:
    text = "series_uid,sop_uid,reader_id,score,scale_min,scale_max,scale_direction\n1.2.0,7.7,a,4,1,5,higher_better\n"

    [problem] = load(database, text.encode()).problems

    assert problem.text == "sop_uid 7.7: no image of this series"


def test_a_reader_who_says_the_same_of_everything_is_noted_and_kept(database: Database) -> None:
    found = load(database, rows((0, "a", 3), (1, "a", 3), (2, "a", 3)))

    assert found.notes == ("reader a gives every series 3 for overall",)
    assert kept(database) == 3


@on_both
def test_what_was_withdrawn_counts_no_more_stays_and_may_come_again(database: Database) -> None:
    content = rows((0, "a", 4))
    load(database, content)

    with database.write() as connection:
        done = [ratings.withdraw(connection, number, by="b", at=2000.0) for number in (1, 1, 7)]
        mos = ratings.mos_of(connection, ["1.2.0"])
    again = load(database, content)

    assert done == [True, False, False]
    assert mos == {}
    assert again.kept is not None
    assert again.kept.id == 2
    assert kept(database) == 2


def test_a_key_of_an_export_finds_its_series(database: Database) -> None:
    content = rows((0, "a", 4)).replace(b"series_uid", b"series_key").replace(b"1.2.0", b"KEY0")

    found = load(database, content, series_keys=lambda uids: {f"KEY{uid[-1]}": uid for uid in uids})

    assert [rating.series_instance_uid for _, rating in found.table.rows] == ["1.2.0"]


@on_both
def test_two_imports_of_one_file_at_the_same_time_are_one(database: Database) -> None:
    content = rows(*((i, "a", 4.0) for i in range(6)))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load(database, content), range(4)))

    assert sorted(outcome.known for outcome in found) == [False, True, True, True]
    assert kept(database) == 6
