"""A DuckDB that is shut up in one folder: no other file, no network, no extensions, settings locked.

Whatever an expression or a query of a user says, it reads nothing from outside and leaves nothing behind. Tables are
in memory, and in that folder when there is too much of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from s2vc_ray.errors import ConfigError, StorageError

BATCH = 10_000
"""Rows of an answer that are held at once."""
_MEMORY = "600MB"
"""What DuckDB may hold before it spills into the scratch folder; Python and its libraries take 200 MB beside it."""
_THREADS = 4


class FencedDatabase:
    """One database, while it is open. Its own queries go to ``execute``, those that a user has a part in to the rest.

    Attributes:
        told: names of the tables that an error about an unknown name lists the columns of.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, told: list[str]) -> None:
        self._database = database
        self.told = told

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of the answer. Errors are DuckDB's own."""
        return self._database.execute(query).fetchall()

    def count(self, table: str) -> int:
        """Rows of a table."""
        ((number,),) = self.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
        return int(number)

    def stream_pairs(self, query: str) -> Iterator[tuple[str, str]]:
        """The rows of a query of two columns; others may be asked while it is read."""
        with contextlib.closing(self._database.cursor()) as cursor:
            found = cursor.execute(query)
            while page := found.fetchmany(BATCH):
                yield from page

    def ask(self, query: str) -> pa.Table:
        """The answer to a query.

        Raises:
            ConfigError: it makes no sense; the message says why, and what columns there are.
            StorageError: the scratch folder is full.
        """
        with self.understanding():
            return self._database.sql(query).to_arrow_table()

    def stream(self, query: str) -> pa.RecordBatchReader:
        """The answer to a query that may be as long as the manifest, in pieces. Raises as `ask`."""
        with self.understanding():
            return self._database.sql(query).to_arrow_reader(BATCH)

    def stream_freely(self, query: str) -> pa.RecordBatchReader:
        """The answer to a user's own query, in pieces.

        Raises:
            ConfigError: it is not one SELECT, or cannot be answered.
        """
        with self.understanding():
            kinds = [statement.type for statement in self._database.extract_statements(query)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise ConfigError("--sql takes one SELECT, over the tables gops, videos, jobs and events")
        return self.stream(query)

    def columns(self, table: str) -> list[str]:
        """Names of a table's columns."""
        return [str(row[0]) for row in self.execute(f"DESCRIBE {table}")]

    @contextlib.contextmanager
    def understanding(self) -> Iterator[None]:
        """Turn DuckDB's errors into ours, as `ask` raises them."""
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise StorageError(f"cannot query in the scratch folder (TMPDIR): {first_line(error)}") from error
        except duckdb.BinderException as error:
            there = "; ".join(f"{name}: {', '.join(self.columns(name))}" for name in self.told)
            raise ConfigError(f"{first_line(error)}. There are, in {there}") from error
        except duckdb.Error as error:
            raise ConfigError(first_line(error)) from error


@contextlib.contextmanager
def open_fenced(folder: Path, told: list[str]) -> Iterator[FencedDatabase]:
    """An empty database that reads and writes in ``folder`` alone."""
    with contextlib.closing(duckdb.connect(config=_config(folder))) as database:
        database.execute("SET allowed_directories = [$folder]", {"folder": str(folder)})
        # Of 10 million rows, to read what a file says of itself takes 35 ms of every query.
        database.execute("SET parquet_metadata_cache = true")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        yield FencedDatabase(database, told)


def expression(text: str) -> str:
    """A user's expression, parsed and written out again, so that it can stand inside a query of ours.

    Raises:
        ConfigError: it is no single expression.
    """
    try:
        return str(duckdb.SQLExpression(text))
    except duckdb.Error as error:
        raise ConfigError(f"expression {text!r}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What DuckDB says, without its hints."""
    return str(error).split("\n", 1)[0].removesuffix("!")


def _config(folder: Path) -> dict[str, Any]:
    return {
        "memory_limit": _MEMORY,
        "threads": min(os.cpu_count() or 1, _THREADS),
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
