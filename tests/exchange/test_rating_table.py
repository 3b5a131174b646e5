"""A table of ratings: both layouts, and every way in which a row can be wrong."""

import pytest

from mediqa_node.domain.errors import RatingsRefused
from mediqa_node.exchange.rating_table import Layout, RatingTable, read_ratings

HEAD = "series_uid,reader_id,score,scale_min,scale_max,scale_direction\n"
KNOWN = {"1.2.3", "1.2.4"}
KEYS = {"AAAA": "1.2.3"}


def read(text: str | bytes, **layout: object) -> RatingTable:
    content = text.encode() if isinstance(text, str) else text
    resolvers = {"series_uid": lambda uid: uid if uid in KNOWN else None, "series_key": KEYS.get}
    return read_ratings(content, Layout(**layout), resolvers)


def problems(text: str, **layout: object) -> list[tuple[int, str]]:
    return [(problem.row, problem.text) for problem in read(text, **layout).problems]


def test_a_long_table_is_read_with_all_its_columns() -> None:
    head = (
        HEAD.strip() + ",criterion,study_id,session,repeat,sop_uid,read_at,experience_years,usable,confidence,comment\n"
    )
    row = '1.2.3,r1,4,1,5,higher_better,noise,main,2,2,1.2.3.4,2026-03-01T10:00:00,7.5,yes,0.8,"a, b"\n'

    [(number, rating)] = read(head + row).rows

    assert number == 2
    assert (rating.series_instance_uid, rating.sop_instance_uid, rating.reader_id) == ("1.2.3", "1.2.3.4", "r1")
    assert (rating.criterion, rating.study_id, rating.session, rating.repeat) == ("noise", "main", "2", 2)
    assert (rating.unit_score, rating.experience_years, rating.usable, rating.confidence) == (0.75, 7.5, True, 0.8)
    assert (rating.read_at, rating.comment) == ("2026-03-01T10:00:00", "a, b")


def test_what_is_left_out_has_its_usual_meaning() -> None:
    [(_, rating)] = read(HEAD + "1.2.3,r1,4,1,5,lower_better\n").rows

    assert (rating.criterion, rating.study_id, rating.repeat, rating.sop_instance_uid) == ("overall", "", 1, None)
    assert rating.unit_score == 0.25


def test_a_spreadsheet_in_german_is_read() -> None:
    text = "\ufeff" + HEAD.replace(",", ";") + "1.2.3;r1;3,5;1;5;higher_better\r\n\r\n1.2.4;r1;2;1;5;higher_better\r\n"

    table = read(text.encode("utf-8"))

    assert table.problems == ()
    assert [(row, rating.score) for row, rating in table.rows] == [(2, 3.5), (4, 2.0)]


def test_a_wide_table_has_a_rating_for_each_filled_cell() -> None:
    text = "Fall,Dr A,Dr B,Alter\n1.2.3,4,5,63\n1.2.4,,2,71\n"
    scale = {"scale_min": "1", "scale_max": "5", "scale_direction": "higher_better", "study_id": "main"}

    table = read(text, readers=("Dr A", "Dr B"), columns={"series_uid": "Fall"}, values=scale)

    assert table.problems == ()
    said = [(row, rating.series_instance_uid, rating.reader_id, rating.score) for row, rating in table.rows]
    assert said == [(2, "1.2.3", "Dr A", 4.0), (2, "1.2.3", "Dr B", 5.0), (3, "1.2.4", "Dr B", 2.0)]
    assert {rating.study_id for _, rating in table.rows} == {"main"}
    assert table.unread == ("Alter",)


def test_a_series_may_be_named_by_the_key_of_an_export() -> None:
    [(_, rating)] = read(HEAD.replace("series_uid", "series_key") + "AAAA,r1,4,1,5,higher_better\n").rows

    assert rating.series_instance_uid == "1.2.3"


def test_all_problems_are_named_at_once_by_their_rows() -> None:
    rows = (
        "9.9,r1,4,1,5,higher_better",
        "1.2.3,r1,7,1,5,higher_better",
        "1.2.3,r1,good,1,5,higher_better",
        "1.2.3,,4,1,5,up",
        "1.2.3,r1,4,5,1,higher_better",
        "1.2.3,r1,nan,1,5,higher_better,extra",
        ",r1,4,1,5,higher_better",
    )

    assert problems(HEAD + "\n".join(rows)) == [
        (2, "series_uid 9.9: this node keeps no such series"),
        (3, "score 7 is outside the scale 1 to 5"),
        (4, "score: 'good' is no number"),
        (5, "reader_id: empty"),
        (5, "scale_direction: 'up' is not one of higher_better, lower_better"),
        (6, "scale_min 5 is not below scale_max 1"),
        (7, "7 values under 6 headings"),
        (8, "series_uid or series_key: empty"),
    ]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("criterion", "beauty", "is not one of overall, noise, artifact, contrast, sharpness"),
        ("repeat", "0", "is no number from 1"),
        ("read_at", "yesterday", "Invalid isoformat string"),
        ("read_at", "2026-03-01T10:00:00." + "0" * 40, "longer than 40"),
        ("comment", "good\0", "holds a NUL"),
        ("usable", "perhaps", "is neither yes nor no"),
        ("sop_uid", "x", "is no UID"),
        ("reader_group", "x" * 65, "longer than 64"),
        ("experience_years", "inf", "is no number"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_column(column: str, value: str, said: str) -> None:
    [(row, text)] = problems(HEAD.strip() + f",{column}\n1.2.3,r1,4,1,5,higher_better,{value}\n")

    assert row == 2
    assert text.startswith(f"{column}: ")
    assert said in text


def test_the_same_reading_twice_and_two_scales_in_one_study_are_problems() -> None:
    rows = ("1.2.3,r1,4,1,5,higher_better", "1.2.3,r1,3,1,5,higher_better", "1.2.4,r1,40,0,100,higher_better")

    assert problems(HEAD + "\n".join(rows)) == [
        (3, "reader r1 has rated this series for overall in row 2, repeat 1; number a second reading in `repeat`"),
        (
            4,
            "scale 0 to 100 higher_better, while row 2 has 1 to 5 higher_better for the same study and criterion; "
            "name another `study_id`",
        ),
    ]


def test_a_missing_direction_is_asked_for_once_and_not_in_every_row() -> None:
    text = "series_uid,reader_id,score,scale_min,scale_max\n" + "1.2.3,r1,4,1,5\n" * 3

    assert problems(text) == [
        (
            1,
            "scale_direction is missing: a column, `--column scale_direction=HEADING` or "
            "`--value scale_direction=VALUE`",
        )
    ]
    assert problems(HEAD.replace("series_uid", "case")) == [(1, "no column names the series: series_uid or series_key")]
    assert problems(HEAD, columns={"score": "Punkte"}) == [(1, "no column is headed 'Punkte'")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "hold headings"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'series_uid,score\n1.2.3,"4', "no CSV"),
        (b"score,score\n", "two columns are headed score"),
    ],
)
def test_what_is_no_table_is_refused_whole(content: bytes, said: str) -> None:
    with pytest.raises(RatingsRefused, match=said):
        read(content)


def test_a_layout_names_only_what_there_is() -> None:
    with pytest.raises(RatingsRefused, match="no column is called 'scores' here"):
        Layout(columns={"scores": "x"})
    with pytest.raises(RatingsRefused, match="R1: a reader is named once"):
        Layout(readers=("R1", "R2", "R1"))
    with pytest.raises(RatingsRefused, match="not both"):
        Layout(columns={"score": "x"}, values={"score": "3"})


def test_the_same_file_read_in_another_way_is_another_table() -> None:
    text = HEAD + "1.2.3,r1,4,1,5,higher_better\n"

    assert read(text).sha256 == read(text).sha256
    assert read(text).sha256 != read(text, values={"study_id": "b"}).sha256
