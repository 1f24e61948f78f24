"""Valgrind finds errors in the use of memory, and tells those of our library from others.

This is what "make test-valgrind" relies on: what it finds in no test shows something only if it could be found.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dev import valgrind
from dev.places import installed
from dev.servers import Postgres, default_places

SOURCE = Path(__file__).parents[1] / "memcheck" / "defects.c"
DEFECTS = {"overflow", "use_after_free", "uninitialised"}


@pytest.fixture
def library() -> Iterator[Path]:
    """A library with defects, under our library's name."""
    pg_config = default_places().pg_config
    if problem := valgrind.missing(pg_config):
        pytest.skip(f"{problem}; make test-valgrind builds one")
    flags = subprocess.run([pg_config, "--cppflags"], capture_output=True, text=True, check=True).stdout.split()
    with tempfile.TemporaryDirectory(prefix="model_fdw-memcheck-") as directory:
        Path(directory).chmod(0o755)  # the server's user reads it
        built = Path(directory) / valgrind.LIBRARY
        include = f"-I{installed(pg_config, 'includedir-server')}"
        subprocess.run(["gcc", "-g", "-shared", "-fPIC", include, *flags, "-o", built, SOURCE], check=True)
        yield built


def test_each_defect_is_found(library: Path) -> None:
    reports = valgrind.new_reports(default_places(), "memcheck")
    with (
        Postgres(under=valgrind.command(reports), name="memcheck-postgres") as postgres,
        psycopg.connect(postgres.conninfo(), autocommit=True) as connection,
    ):
        for name in (*DEFECTS, "correct"):
            connection.execute(f"CREATE FUNCTION {name}() RETURNS bool LANGUAGE c AS '{library}'".encode())
            connection.execute(f"SELECT {name}()".encode())
    ours = [error for error in valgrind.read_errors(reports) if error.is_ours]
    assert {error.frames[0][1].partition(" ")[0] for error in ours} == DEFECTS
