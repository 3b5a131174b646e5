"""Statements that are compiled once and then run by the database's driver itself.

SQLAlchemy's share of a short statement is ten times that of SQLite. Where every received instance pays for it, a
statement is written with SQLAlchemy like any other, so that one text serves SQLite and PostgreSQL, and run without.
"""

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

_KINDS = ("OperationalError", "IntegrityError", "InternalError", "DataError", "ProgrammingError", "InterfaceError")
"""Classes of errors by which drivers (PEP 249) and SQLAlchemy call the same things."""


class _Compiled:
    """The text of a statement for one kind of database, and how its parameters are handed over."""

    def __init__(self, statement: sa.ClauseElement, dialect: sa.Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self.text = str(compiled)
        self.order = compiled.positiontup
        self.constants = compiled.params
        self.converters: list[tuple[str, Callable[[Any], Any]]] = []
        for name, parameter in compiled.binds.items():
            convert = parameter.type.dialect_impl(dialect).bind_processor(dialect)
            if convert is not None:
                self.converters.append((name, convert))

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return the values as the driver takes them: in order, or by name."""
        given = {**self.constants, **values}
        for name, convert in self.converters:
            given[name] = convert(given[name])
        return given if self.order is None else [given[name] for name in self.order]


class Prepared:
    """A statement with named parameters, to be run inside a transaction that SQLAlchemy has begun."""

    def __init__(self, statement: sa.ClauseElement) -> None:
        self._statement = statement
        self._by_dialect: dict[str, _Compiled] = {}

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> DBAPICursor:
        """Run the statement; return the driver's cursor, whose rows are plain tuples.

        Args:
            values: of its parameters by name; further ones are ignored.

        Raises:
            sa.exc.DBAPIError: what the driver has raised, as SQLAlchemy would raise it.
        """
        dialect = connection.dialect
        compiled = self._by_dialect.get(dialect.name)
        if compiled is None:
            compiled = self._by_dialect[dialect.name] = _Compiled(self._statement, dialect)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.text, compiled.parameters(values))
        except dialect.loaded_dbapi.Error as error:
            raise _translated(error, compiled.text) from error
        return cursor


def _translated(error: Exception, text: str) -> sa.exc.DBAPIError:
    names = (base.__name__ for base in type(error).__mro__)
    kind = next((getattr(sa.exc, name) for name in names if name in _KINDS), sa.exc.DatabaseError)
    translated: sa.exc.DBAPIError = kind(text, None, error, hide_parameters=True)
    return translated
