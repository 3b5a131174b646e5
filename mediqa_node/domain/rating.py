"""Ratings of human readers, and the mean opinion score (MOS) of a series."""

from dataclasses import dataclass

CRITERIA = ("overall", "noise", "artifact", "contrast", "sharpness")
HIGHER_BETTER, LOWER_BETTER = DIRECTIONS = ("higher_better", "lower_better")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One rating as given: a raw row of a rating table.

    Attributes:
        sop_instance_uid: the image that was rated; None: the series as a whole.
        reader_id: a pseudonym.
        score: on the scale from `scale_min` to `scale_max`, both included.
        scale_direction: one of DIRECTIONS.
        criterion: one of CRITERIA.
        session: of reading, as the site numbers it.
        repeat: counts the times that this reader has rated this case, from 1.
        study_id: the reading study; within one, a criterion has one scale.
        read_at: ISO 8601, as recorded.
        usable: whether the reader calls the image usable; it does not change the weight of the score.
        comment: never leaves the node.
    """

    series_instance_uid: str
    reader_id: str
    score: float
    scale_min: float
    scale_max: float
    scale_direction: str
    criterion: str = CRITERIA[0]
    study_id: str = ""
    session: str = ""
    repeat: int = 1
    sop_instance_uid: str | None = None
    read_at: str | None = None
    experience_years: float | None = None
    reader_group: str | None = None
    display_window: str | None = None
    confidence: float | None = None
    usable: bool | None = None
    comment: str | None = None

    @property
    def unit_score(self) -> float:
        """The score from 0, worst, to 1, best."""
        u = (self.score - self.scale_min) / (self.scale_max - self.scale_min)
        return u if self.scale_direction == HIGHER_BETTER else 1 - u

    @property
    def scale(self) -> tuple[float, float, str]:
        """Fields that all ratings of one study and criterion share."""
        return self.scale_min, self.scale_max, self.scale_direction

    @property
    def key(self) -> tuple[str, str, str, str, str, int]:
        """Key of a rating: study, criterion, series, image, reader, repeat."""
        image = self.sop_instance_uid or ""
        return self.study_id, self.criterion, self.series_instance_uid, image, self.reader_id, self.repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingImport:
    """One imported table.

    Attributes:
        sha256: over the file and the options it was read with.
        imported_at: seconds since 1970, UTC.
        withdrawn_at: since when its rows no longer count, though kept; None: they count.
    """

    id: int
    sha256: str
    imported_at: float
    imported_by: str
    n_ratings: int
    n_series: int
    n_readers: int
    withdrawn_at: float | None = None
    withdrawn_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mos:
    """The opinion of all readers of one study on one series, 0..1, higher is better.

    Attributes:
        mos: mean over the readers; a reader's repeats and images are averaged first.
        mos_sd: between readers, n - 1; None with one reader.
        ci95: half width of the 95 % confidence interval of `mos`, Student's t; None with one reader.
        zmos: mean of the readers' z-scores, on the scale of all scores of the study; None where `method`
            is another.
        mos_norm: the training label, by `method`, clipped to 0..1.
        method: `z-scores` or `bias removed`, see `reader_study.mos`.
        scale_min, scale_max: of the raw scores.
    """

    series_instance_uid: str
    mos: float
    mos_sd: float | None
    n_readers: int
    ci95: float | None
    zmos: float | None
    mos_norm: float
    method: str
    scale_min: float
    scale_max: float
    study_id: str = ""
    criterion: str = CRITERIA[0]
