"""Another Python in the same process: that of another language, which was built for another version."""

from __future__ import annotations

import platform
import re
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from conftest import DATABASE, Database, compile_library

from dev.places import installed

pytestmark = pytest.mark.hosts("native", reason="what starts Python is the library, of which there is one")

SOURCE = Path(__file__).parents[1] / "hooks" / "python.c"
OTHER = "DO LANGUAGE plpython3u 'import sys'"
QUERY = "SELECT s FROM ml.affine WHERE a = 1 AND b = 2"


def test_another_python_runs(database: Database) -> None:
    """An error that says so, and no crash."""
    with tempfile.TemporaryDirectory(prefix="model_fdw-python-") as directory:
        Path(directory).chmod(0o755)  # the server's user reads it
        library = Path(directory) / "python.so"
        compile_library(SOURCE, library)
        with database.connect(session_preload_libraries=str(library)) as connection:
            for _ in range(2):
                with pytest.raises(psycopg.errors.SystemError) as caught:
                    connection.execute(QUERY.encode())
                diagnostic = caught.value.diag
                assert diagnostic.message_primary == "another language has started another Python in this session"
                assert (
                    diagnostic.message_detail
                    == f"It is Python 3.1.4, and model_fdw was built for Python {platform.python_version()}."
                )
                assert diagnostic.message_hint == (
                    "Use them in different sessions, or install model_fdw with the Python of the other language."
                )
            assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_plpython_of_another_python_is_installed(database: Database) -> None:
    """It is left alone, and using both in one session is an error."""
    library = installed(database.postgres.bindir / "pg_config", "pkglibdir") / "plpython3.so"
    found = re.search(rb"libpython([0-9]+)\.([0-9]+)", library.read_bytes()) if library.exists() else None
    if found is None or (int(found[1]), int(found[2])) == sys.version_info[:2]:
        pytest.skip(f"no plpython3 of another Python in the PostgreSQL of {database.postgres.bindir}")
    with psycopg.connect(database.postgres.conninfo(DATABASE), autocommit=True) as connection:
        assert connection.execute(QUERY.encode()).fetchall() == [(8.0,)]
        connection.execute("CREATE EXTENSION IF NOT EXISTS plpython3u")
        for _ in range(2):
            with pytest.raises(psycopg.errors.SystemError, match="plpython3 is for another Python than model_fdw"):
                connection.execute(OTHER.encode())
        assert connection.execute(QUERY.encode()).fetchall() == [(8.0,)]
    with psycopg.connect(database.postgres.conninfo(DATABASE), autocommit=True) as connection:
        connection.execute(OTHER.encode())
        with pytest.raises(psycopg.errors.SystemError, match="another language has started another Python"):
            connection.execute(QUERY.encode())
