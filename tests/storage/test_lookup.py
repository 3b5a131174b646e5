"""Short keys of series: unique endings of their UIDs."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench import Bench
from support.series import ct_series

from mediqa_node.domain.errors import AmbiguousKey
from mediqa_node.storage import lookup

UIDS = st.lists(st.from_regex(r"\A1\.2(\.[1-9][0-9]{0,8}){1,4}\Z"), min_size=1, max_size=20, unique=True)


@settings(max_examples=40)
@given(UIDS)
def test_a_key_ends_the_uid_of_its_series_and_of_no_other(uids: list[str]) -> None:
    keys = lookup.short_keys(uids, uids)

    for uid, key in keys.items():
        endings = [other for other in uids if other.endswith(key)]
        assert uid in endings
        assert endings == [uid] or uid == key, "a UID that ends another one is its own key"


def test_a_series_is_found_by_uid_and_by_ending(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "node")
    for name, uid in (("a", "1.2.3.70001"), ("b", "1.2.4.70001"), ("c", "1.2.5.80002")):
        bench.receive_all(ct_series(tmp_path / name, name, SeriesInstanceUID=uid), association=name)

    with bench.database.read() as connection:
        assert lookup.series_uid(connection, "1.2.3.70001") == "1.2.3.70001"
        assert lookup.series_uid(connection, "80002") == "1.2.5.80002"
        assert lookup.series_uid(connection, "9999") is None
        assert lookup.series_uid(connection, "2") is None, "too short for a key"
        assert lookup.series_uid(connection, "%000_") is None, "a key is no pattern"
        with pytest.raises(AmbiguousKey, match="70001"):
            lookup.series_uid(connection, "70001")
        assert set(lookup.first_files(connection, ["1.2.3.70001", "1.2.5.80002"])) == {"1.2.3.70001", "1.2.5.80002"}
        assert lookup.newest_report(connection, "1.2.3.70001") is None
    bench.close()
