"""Who may do what in the workbench."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a person does in a department."""

    TECHNOLOGIST = "technologist"
    READER = "reader"
    PHYSICIST = "physicist"
    ADMINISTRATOR = "administrator"


class Permission(StrEnum):
    """One thing that a page or a request needs."""

    WORKLIST = "worklist"
    ANSWER = "answer"
    IDENTIFIERS = "identifiers"
    TRENDS = "trends"
    BASELINES = "baselines"
    LABELS = "labels"
    EXPORT = "export"
    READ = "read"
    STUDIES = "studies"
    CALIBRATE = "calibrate"
    OPERATIONS = "operations"
    OPERATE = "operate"
    CHECKPOINTS = "checkpoints"
    AUDIT = "audit"
    USERS = "users"


_P = Permission
PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.TECHNOLOGIST: frozenset({_P.WORKLIST, _P.ANSWER}),
    Role.READER: frozenset({_P.WORKLIST, _P.READ}),
    Role.PHYSICIST: frozenset({
        _P.WORKLIST, _P.ANSWER, _P.IDENTIFIERS, _P.TRENDS, _P.BASELINES, _P.LABELS, _P.EXPORT, _P.READ, _P.STUDIES,
        _P.CALIBRATE, _P.OPERATIONS, _P.CHECKPOINTS,
    }),
    Role.ADMINISTRATOR: frozenset({
        _P.WORKLIST, _P.ANSWER, _P.IDENTIFIERS, _P.TRENDS, _P.LABELS, _P.OPERATIONS, _P.OPERATE, _P.CHECKPOINTS,
        _P.AUDIT, _P.USERS,
    }),
}  # fmt: skip
"""What each role may do. The administrator runs the node; what a score means is the physicist's to decide."""


_LONGEST_NAME = 64
_WRITTEN_TOGETHER = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC")


def user_name(given: str) -> str:
    """Return a user name in its one form.

    Names stand in the audit trail, where one must not be taken for another: letters are of one script, so that no
    Cyrillic a passes for a Latin one, and wide letters and ligatures become plain ones.

    Raises:
        ValueError: why it cannot be a name.

    >>> user_name(" ｊａｎｅ "), user_name("山田 ハナコ")
    ('jane', '山田 ハナコ')
    """
    name = unicodedata.normalize("NFKC", given).strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a name has 1 to {_LONGEST_NAME} printable characters")
    scripts = {unicodedata.name(letter, "?").split()[0] for letter in name if letter.isalpha()}
    if len({"CJK" if script in _WRITTEN_TOGETHER else script for script in scripts}) > 1:
        raise ValueError("the letters of a name are of one script")
    return name


class Outcome(StrEnum):
    """How an audited action ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts: a signed-in person, a room's tablet, or an access token.

    Attributes:
        name: user name, or name of the room.
        scanners: those that a room is bound to; None for a person, who sees all.
        broke_glass: sees identifiers for the rest of the session, by an audited decision.
    """

    name: str
    role: Role
    session_id: int
    room_id: int | None = None
    scanners: frozenset[str] | None = None
    broke_glass: bool = False

    def may(self, permission: Permission) -> bool:
        """Return whether this actor has a permission."""
        if permission is Permission.IDENTIFIERS and self.broke_glass:
            return True
        return permission in PERMISSIONS[self.role]
