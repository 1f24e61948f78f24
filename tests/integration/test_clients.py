"""Each script of examples/clients reads the scores, in the database of "make up".

"make clients" installs the clients and runs this; a client that is not there is skipped, with what to do.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from conftest import Database

from dev import up
from dev.places import CHECKOUT, tool_environment
from dev.servers import default_places

pytestmark = pytest.mark.hosts("native", reason="clients see no difference between hosts")

PLACES = default_places()
CLIENTS = CHECKOUT / "examples" / "clients"
JDBC = Path("/usr/share/java/postgresql.jar")
SCORES = [(1, 6.0), (2, 24.0), (3, 54.0)]


@pytest.fixture(scope="module")
def demo(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that leads a client to the database."""
    postgres = database.postgres
    postgres.psql("-c", f"DROP DATABASE IF EXISTS {up.DATABASE}")
    up.prepare_database(postgres, database.triton.url, PLACES.patients, tmp_path_factory.mktemp("up") / "stamp")
    yield postgres.environment(up.DATABASE)
    postgres.psql("-c", f"DROP DATABASE {up.DATABASE}")


def run(command: Sequence[str | Path], demo: Mapping[str, str], **variables: str) -> str:
    """Run a client, which must succeed; return what it prints."""
    result = subprocess.run(
        command,
        cwd=CLIENTS,
        env={**tool_environment(), **demo, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def scores(printed: str) -> list[tuple[int, float]]:
    lines = [line.split() for line in printed.splitlines()]
    return [(int(number), float(area)) for number, area in lines]


def needed(path: Path, hint: str) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not there: {hint}")
    return path


def program(name: str, hint: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not there: {hint}")


@pytest.mark.parametrize("script", ["with_psycopg.py", "with_pandas.py"])
def test_python(demo: Mapping[str, str], script: str) -> None:
    needed(PLACES.clients_venv / "installed", "make clients")
    assert scores(run([PLACES.clients_venv / "bin" / "python", script], demo)) == SCORES


def test_node(demo: Mapping[str, str]) -> None:
    node = program("node", "apt-get install nodejs npm")
    needed(PLACES.node_modules / "pg", "make clients, where npm is")
    assert scores(run([node, "with_node.js"], demo, NODE_PATH=str(PLACES.node_modules))) == SCORES


def test_jdbc(demo: Mapping[str, str]) -> None:
    program("javac", "apt-get install default-jdk-headless")
    needed(JDBC, "apt-get install libpostgresql-jdbc-java")
    assert scores(run([program("java", ""), "-cp", JDBC, "WithJdbc.java"], demo)) == SCORES


def test_dbt(database: Database, demo: Mapping[str, str], tmp_path: Path) -> None:
    """It scores all rows, then those that are new, and tests the scored table."""
    needed(PLACES.dbt_venv / "installed", "make clients")
    project = tmp_path / "dbt"
    shutil.copytree(CLIENTS / "dbt", project)
    command = [PLACES.dbt_venv / "bin" / "dbt", "build", "--project-dir", project, "--profiles-dir", project]
    for count in (4546, 4547):
        assert "PASS=4 WARN=0 ERROR=0 SKIP=0" in run(command, demo, DBT_LOG_PATH=str(tmp_path / "logs"))
        found = database.postgres.psql("-c", "SELECT count(*) FROM scored_sides", database=up.DATABASE)
        assert int(found) == count
        database.postgres.psql("-c", "INSERT INTO sides VALUES (0, 3, 4, 5)", database=up.DATABASE)
