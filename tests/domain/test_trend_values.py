"""What a series contributes to charts, and when."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from support.trend_cases import Scanner, sources

from mediqa_node.domain.trends import CHARTED, MeasuredValue, Source, time_of, values_of

ONE: Source = sources(Scanner(n=1))[0]


def by_name(source: Source) -> dict[str, object]:
    return {value.quantity: value for value in values_of(source)}


def test_a_series_goes_into_a_chart_of_each_of_its_quantities() -> None:
    found = {value.quantity for value in values_of(ONE)}

    assert found == {"score", "predicted", "ctdi_vol", "dlp", "ct.noise.soft", "ct.dw", "ct.ssde", "ct.sharpness"}
    assert found <= set(CHARTED)


def test_the_predicted_parameter_is_charted_as_its_difference_from_the_recorded_one() -> None:
    source = replace(ONE, predicted=(80.0, 125.0), recorded=200.0)

    [value] = [one for one in values_of(source) if one.quantity == "predicted"]

    assert round(CHARTED["predicted"].shown(value.value)) == -50


def test_values_are_compared_within_size_and_reconstruction_and_sizes_are_not() -> None:
    found = {value.quantity: value.stratum for value in values_of(ONE)}

    assert found["score"].label == f"{ONE.size_class} · Br40 hybrid IR 3.0 mm"
    assert found["ctdi_vol"].label == f"{ONE.size_class} · 32 cm phantom"
    assert found["ct.dw"].size_class == ""


def test_a_measure_of_a_patient_of_unknown_size_is_shown_and_never_judged() -> None:
    found = {value.quantity: value.stratum for value in values_of(replace(ONE, size_class=""))}

    assert not found["ct.noise.soft"].is_comparable
    assert found["ct.dw"].is_comparable
    assert found["score"].is_comparable


def test_values_of_which_the_limit_is_the_patients_are_left_out() -> None:
    def noise(limit: str) -> Source:
        return replace(
            ONE, measures=[MeasuredValue(name="ct.noise.soft", value=9.0, method="m, version 1", limit=limit)]
        )

    assert "ct.noise.soft" not in by_name(noise("truncated"))
    assert "ct.noise.soft" not in by_name(noise("of a later version"))
    assert "ct.noise.soft" in by_name(noise("filtered"))


def test_a_point_lies_at_its_acquisition_in_the_time_of_the_site() -> None:
    received = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
    source = replace(ONE, received_at=received)
    berlin = ZoneInfo("Europe/Berlin")

    def at(acquired: str) -> float:
        return time_of(replace(source, acquired=acquired), berlin)

    assert at("2026-11-20 10:15:00") == datetime(2026, 11, 20, 9, 15, tzinfo=UTC).timestamp()
    assert at("") == received
    assert at("2026-11-20") == received
    assert at("2031-01-01 00:00:00") == received  # a clock gone wrong
