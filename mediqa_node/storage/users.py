"""People who may sign in, and their failures to do so."""

from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.access import Role
from mediqa_node.storage.database import take_table
from mediqa_node.storage.workbench_tables import sessions, users


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """A person; `password` is an argon2id hash."""

    id: int
    name: str
    role: Role
    password: str
    made_at: float
    made_by: str
    disabled_at: float | None
    n_failures: int
    locked_until: float | None
    last_at: float | None

    def is_locked(self, now: float) -> bool:
        """Whether signing in is refused after failures."""
        return self.locked_until is not None and now < self.locked_until


_COLUMNS = [users.c[name] for name in UserRow.__dataclass_fields__]


def _user(row: sa.Row[*tuple[object, ...]]) -> UserRow:
    return UserRow(**dict(row._mapping) | {"role": Role(row.role)})


def every(connection: sa.Connection) -> list[UserRow]:
    """Return all people, disabled ones too, by name."""
    return [_user(row) for row in connection.execute(sa.select(*_COLUMNS).order_by(users.c.name))]


def find(connection: sa.Connection, name: str, *, to_change: bool = False) -> UserRow | None:
    """Return a person by user name, or None.

    Args:
        to_change: hold the row until the transaction ends, so that failures are counted one by one.
    """
    query = sa.select(*_COLUMNS).where(users.c.name == name)
    row = connection.execute(query.with_for_update() if to_change else query).one_or_none()
    return _user(row) if row is not None else None


def hold(connection: sa.Connection) -> list[UserRow]:
    """Return all people, and let nobody else change them until the transaction ends."""
    take_table(connection, users)
    return every(connection)


def add(connection: sa.Connection, name: str, role: Role, password: str, *, by: str, at: float) -> bool:
    """Add a person; False if the name is taken, in capitals or not."""
    if name.casefold() in {one.name.casefold() for one in hold(connection)}:
        return False
    values = {"name": name, "role": role, "password": password, "made_at": at, "made_by": by, "n_failures": 0}
    connection.execute(sa.insert(users).values(**values))
    return True


def change(connection: sa.Connection, user_id: int, *, at: float, **values: object) -> None:
    """Change role, password or `disabled_at` of a person, and end the sessions, which rest on what was there before."""
    connection.execute(sa.update(users).where(users.c.id == user_id).values(**values))
    live = sa.and_(sessions.c.user_id == user_id, sessions.c.ended_at.is_(None))
    connection.execute(sa.update(sessions).where(live).values(ended_at=at))


def note_failure(connection: sa.Connection, user: UserRow, *, at: float, locks_after: int, lock_s: float) -> None:
    """Count a wrong password; every `locks_after` of them in a row lock the name for a while."""
    n = user.n_failures + 1
    values: dict[str, object] = {"n_failures": n}
    if n % locks_after == 0:
        values["locked_until"] = at + lock_s
    connection.execute(sa.update(users).where(users.c.id == user.id).values(**values))


def note_success(connection: sa.Connection, user: UserRow, *, at: float, password: str | None = None) -> None:
    """Forget failures; keep a hash that was made anew with today's cost."""
    values: dict[str, object] = {"n_failures": 0, "locked_until": None, "last_at": at}
    if password is not None:
        values["password"] = password
    connection.execute(sa.update(users).where(users.c.id == user.id).values(**values))
