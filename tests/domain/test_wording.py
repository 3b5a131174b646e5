"""The one place that tests how reasons read; everything else compares codes."""

import pytest

from mediqa_node.domain.series import Reason, ReasonCode


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason(ReasonCode.LOCALIZER, "Image Type (0008,0008) SCOUT"), "localizer: Image Type (0008,0008) SCOUT"),
        (Reason(ReasonCode.SECONDARY_CAPTURE), "secondary capture"),
        (Reason(ReasonCode.OUTSIDE_TRAINING_RANGE, "unlike"), "outside training range: unlike"),
        (Reason(ReasonCode.NO_DESTINATION), "no destination asks for it"),
        (
            Reason(ReasonCode.OTHER_RECONSTRUCTION, "1.2.3"),
            "another reconstruction of this acquisition is scored: 1.2.3",
        ),
        (Reason(ReasonCode.TOO_OLD, "study is 9 days old"), "policy: study is 9 days old"),
        (Reason(ReasonCode.SCORING_FAILED, "internal error: KeyError"), "scoring: internal error: KeyError"),
        (Reason(ReasonCode.FILE_MISSING), "a spooled file is missing; `mediqa-node verify` names it"),
        (Reason(ReasonCode.DELIVERY, "PACS: refused"), "PACS: refused"),
        (Reason("code_to_come", "why"), "code to come: why"),
    ],
)
def test_a_reason_reads_as_people_speak(reason: Reason, text: str) -> None:
    assert str(reason) == text
