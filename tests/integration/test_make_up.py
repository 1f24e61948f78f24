"""What "make up" does to its database: it makes what is missing, and drops and changes nothing that is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Database

from dev import up
from dev.servers import default_places

pytestmark = pytest.mark.hosts("native", reason="make up makes tables of our own")


@pytest.fixture
def prepared(database: Database, tmp_path: Path) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session in the database as it is after the first "make up"."""
    database.postgres.psql("-c", f"DROP DATABASE IF EXISTS {up.DATABASE}")
    prepare(database, tmp_path)
    with psycopg.connect(database.postgres.conninfo(up.DATABASE), autocommit=True) as connection:
        yield connection
    database.postgres.psql("-c", f"DROP DATABASE {up.DATABASE}")


def prepare(database: Database, directory: Path) -> bool:
    return up.prepare_database(database.postgres, database.triton.url, default_places().patients, directory / "stamp")


def one(connection: psycopg.Connection[tuple[object, ...]], query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_the_first_time(prepared: psycopg.Connection[tuple[object, ...]]) -> None:
    assert one(prepared, "SELECT count(*) FROM patients") == 569
    assert one(prepared, "SELECT count(area) FROM sides JOIN ml.triangle USING (a, b, c)") == 4546
    assert one(prepared, "SELECT count(*) FROM customers, transactions, reviews WHERE customers.id = 1") == 2000


@pytest.mark.parametrize("stamp", ["as before", "of another state"])
def test_what_is_there_stays(
    prepared: psycopg.Connection[tuple[object, ...]],
    database: Database,
    tmp_path: Path,
    stamp: str,
) -> None:
    """Tables of the documents' names, views over them and over models, own tables in schema ml, an own server."""
    for statement in (
        "DROP TABLE sides, customers, patients",
        "CREATE TABLE sides (mine text)",
        "INSERT INTO sides VALUES ('mine')",
        "CREATE VIEW customers AS SELECT 'mine' AS mine",
        "CREATE TABLE patients (mine text)",
        "UPDATE reviews SET text = 'mine'",
        "CREATE VIEW over_all AS SELECT mine, text, r.label FROM sides, reviews NATURAL JOIN ml.sentiment r",
        "CREATE TABLE ml.answers AS SELECT 1 AS mine",
        "CREATE SERVER mine FOREIGN DATA WRAPPER model_fdw OPTIONS (url 'grpc://127.0.0.1:1')",
        "CREATE FOREIGN TABLE ml.mine (a float8 OPTIONS (input 'a', dtype 'FP64', shape '[-1,1]'), "
        "s float8 OPTIONS (output 's', dtype 'FP64', shape '[-1,1]')) SERVER mine OPTIONS (model 'mine')",
        "DROP FOREIGN TABLE ml.loan",
    ):
        prepared.execute(statement.encode())
    if stamp == "of another state":
        (tmp_path / "stamp").write_text("another")
    assert prepare(database, tmp_path) == (stamp == "as before"), "the SQL of the extension that is there is told"
    assert one(prepared, "SELECT mine FROM sides") == "mine"
    assert one(prepared, "SELECT mine FROM customers") == "mine"
    assert one(prepared, "SELECT count(*) FROM patients") == 0
    assert one(prepared, "SELECT count(DISTINCT text) FROM over_all") == 1
    assert one(prepared, "SELECT to_regclass('ml.answers') IS NULL OR to_regclass('ml.mine') IS NULL") is False
    assert one(prepared, "SELECT to_regclass('ml.loan') IS NULL") is False, "what was missing is there again"


def test_a_dropped_extension_comes_again(
    prepared: psycopg.Connection[tuple[object, ...]], database: Database, tmp_path: Path
) -> None:
    prepared.execute("DROP EXTENSION model_fdw CASCADE")
    (tmp_path / "stamp").write_text("another")
    assert prepare(database, tmp_path)
    assert one(prepared, "SELECT count(area) FROM sides JOIN ml.triangle USING (a, b, c)") == 4546
