"""A database with model tables is dumped, restored and upgraded, and gives the same answers as before."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Database, run_client
from example_server import ExampleServer
from shop import ANALYST, TOKEN, Answers, answers, fill

from dev import versions
from dev.build import build_library
from dev.places import Places, installed
from dev.processes import free_ports, private_directory
from dev.servers import SUPERUSER, Postgres, default_places, server_environment

pytestmark = pytest.mark.hosts("native", reason="a Multicorn database holds no objects of ours but rows of catalogs")

SHOP, COPY = "shop", "shop_copy"


@pytest.fixture(scope="module")
def addresses(database: Database) -> Iterator[dict[str, str]]:
    """The servers whose models the tables show."""
    with ExampleServer() as service:
        yield {"triton": database.triton.url, "web": f"http://{database.triton.http}", "service": service.url}


@pytest.fixture(scope="module")
def shop(database: Database, addresses: dict[str, str]) -> Iterator[Postgres]:
    """A server with the database."""
    fill(database.postgres, SHOP, **addresses)
    yield database.postgres
    database.postgres.psql("-c", f"DROP DATABASE {SHOP}", "-c", f"DROP ROLE {ANALYST}")


@pytest.fixture(scope="module")
def before(shop: Postgres) -> Answers:
    """What the database answers where it was made."""
    found = answers(shop, SHOP)
    empty = [question for question, rows in found.items() if not rows]
    assert empty == ["what does not fit"]
    return found


@pytest.fixture
def copy(shop: Postgres) -> Iterator[str]:
    """An empty database beside the other."""
    shop.psql("-c", f"CREATE DATABASE {COPY}")
    yield COPY
    shop.psql("-c", f"DROP DATABASE {COPY}")


@pytest.mark.parametrize("way", ["plain", "custom", "directory"])
def test_restore(shop: Postgres, before: Answers, copy: str, tmp_path: Path, way: str) -> None:
    dump = tmp_path / "dump"
    jobs = ["--jobs", "2"] if way == "directory" else []
    run_client(shop, "pg_dump", "--format", way, *jobs, "--file", dump, SHOP)
    if way == "plain":
        run_client(shop, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", dump, copy)
    else:
        run_client(shop, "pg_restore", "--exit-on-error", *jobs, "--dbname", copy, dump)
    assert answers(shop, copy) == before


def test_restore_into_a_new_cluster(shop: Postgres, before: Answers, tmp_path: Path) -> None:
    """Roles are not in a database's dump; user mappings, with their secrets, are."""
    roles, dump = tmp_path / "roles", tmp_path / "dump"
    run_client(shop, "pg_dumpall", "--globals-only", "--file", roles)
    run_client(shop, "pg_dump", "--format", "custom", "--create", "--file", dump, SHOP)
    assert TOKEN in run_client(shop, "pg_restore", "--file", "-", dump)
    with Postgres(name="moving-new") as new:
        new.psql("-v", "ON_ERROR_STOP=0", "-f", roles)  # its superuser is there already
        run_client(new, "pg_restore", "--exit-on-error", "--create", "--dbname", "postgres", dump)
        assert answers(new, SHOP) == before


def test_no_server_is_needed_to_restore(shop: Postgres, copy: str, tmp_path: Path) -> None:
    """Only what shows rows asks a model server: a materialized view."""
    dump, contents = tmp_path / "dump", tmp_path / "contents"
    run_client(shop, "pg_dump", "--format", "custom", "--file", dump, SHOP)
    entries = run_client(shop, "pg_restore", "--list", dump).splitlines()
    contents.write_text("\n".join(entry for entry in entries if "MATERIALIZED VIEW DATA" not in entry))
    assert len(contents.read_text().splitlines()) == len(entries) - 1
    plain = run_client(shop, "pg_restore", "--use-list", contents, "--file", "-", dump)
    nowhere = re.sub(r"url '(http|grpc)://[^']*'", r"url '\1://127.0.0.1:1'", plain)
    assert nowhere.count("://127.0.0.1:1'") == 3
    shop.psql(database=copy, text=nowhere)
    assert shop.psql("-c", "SELECT count(*) FROM items", database=copy) == "500\n"


def test_rows_of_models_cannot_be_dumped(shop: Postgres, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r'of foreign table "[a-z]+" (is|are) not bound'):
        run_client(shop, "pg_dump", "--include-foreign-data", "triton", "--file", tmp_path / "dump", SHOP)


# ---- pg_upgrade ----

# Marks of columns that some minor releases of November 2026 write, and older ones of a newer version cannot read.
VERSIONED = b"pg_attver"


def find(version: int) -> Places:
    """Find a PostgreSQL of a version that needs no installing, with its headers."""
    ours = replace(default_places(), postgres=None)
    found = versions.present(ours, version)
    return replace(ours, postgres=found[0]) if found else pytest.skip(f"no PostgreSQL {version} with headers is here")


class Cluster:
    """A data directory of one version, and a server on it."""

    def __init__(self, version: int, home: Path, *, preload: bool) -> None:
        places = find(version)
        build_library(places)
        self.account, self.home = places.account, home
        self.data = home / f"data-{version}"
        self.bindir = places.bindir
        self._initialise(preload)
        self.postgres = Postgres(data=self.data, bindir=self.bindir, name=f"moving-{version}", places=places)

    def _initialise(self, preload: bool) -> None:
        """Make the data directory; 18 would have checksums, which the older ones do not."""
        help_ = subprocess.run([self.bindir / "initdb", "--help"], capture_output=True, text=True, check=True).stdout
        unlike = ["--no-data-checksums"] if "--no-data-checksums" in help_ else []
        options = ["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self.run("initdb", "--pgdata", self.data, *options, *unlike)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("fsync = off\n" + ("shared_preload_libraries = 'model_fdw'\n" if preload else ""))

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run a program as the servers' user; it must succeed."""
        result = subprocess.run(
            [self.bindir / program, *arguments],
            cwd=self.home,
            env=server_environment(self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            **self.account.popen_arguments(),
        )
        logs = [log.read_text() for log in self.data.glob("pg_upgrade_output.d/*/log/*_dump_*.log")]
        assert result.returncode == 0, "\n".join([result.stdout, *logs])
        return result.stdout

    def upgrade(self, old: Cluster, *options: str) -> str:
        """Run pg_upgrade, which starts and stops both servers."""
        ports = [str(port) for port in free_ports(2)]
        return self.run(
            "pg_upgrade",
            *("--old-bindir", old.bindir, "--new-bindir", self.bindir),
            *("--old-datadir", old.data, "--new-datadir", self.data),
            *("--old-port", ports[0], "--new-port", ports[1]),
            *("--username", SUPERUSER, "--socketdir", self.home, *options),
        )


def skip_unless_readable(old: int, new: int) -> None:
    """Skip where no database with a table in it can be upgraded, with or without the extension."""
    writes, reads = (
        VERSIONED in (installed(find(version).pg_config, "bindir") / "postgres").read_bytes() for version in (old, new)
    )
    if writes and not reads:
        pytest.skip(f"this {new} is older than this {old}, and does not know its column option {VERSIONED.decode()}")


@pytest.mark.parametrize(("old", "new", "preload"), [(16, 18, True), (15, 16, False), (14, 17, False)])
def test_pg_upgrade(database: Database, addresses: dict[str, str], old: int, new: int, preload: bool) -> None:
    home = private_directory(default_places().account)
    try:
        skip_unless_readable(old, new)
        upgraded = Cluster(old, home, preload=preload), Cluster(new, home, preload=preload)
        with upgraded[0].postgres as postgres:
            fill(postgres, SHOP, **addresses)
            before = answers(postgres, SHOP)
        assert "*Clusters are compatible*" in upgraded[1].upgrade(upgraded[0], "--check")
        assert "Upgrade Complete" in upgraded[1].upgrade(upgraded[0])
        with upgraded[1].postgres as postgres:
            assert answers(postgres, SHOP) == before
    finally:
        shutil.rmtree(home)
