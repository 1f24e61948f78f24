"""Installation as a person does it, into a PostgreSQL and a Python that are there: a copy of ours, and a new one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Database
from trees import Tree

from dev.install import is_managed
from dev.places import CHECKOUT, base_python, tool_environment
from dev.processes import private_directory
from dev.servers import Postgres, default_places

pytestmark = pytest.mark.hosts("native", reason="the two are installed alike")

ACCOUNT = default_places().account
VERSION = (CHECKOUT / "sql" / "model_fdw.control").read_text().partition("default_version = '")[2].partition("'")[0]
OURS = {f"model_fdw-{VERSION}.dist-info", "fdw"}


def run(
    command: Sequence[str | Path], *, ours: bool = False, directory: Path = CHECKOUT, **variables: str
) -> tuple[int, str]:
    """Run a command and return its status and all that it shows; ours: as the user without privileges.

    COPT is PostgreSQL's own variable for more flags of the compiler: it builds in half the time.
    """
    result = subprocess.run(
        command,
        cwd=directory,
        env={
            **tool_environment(),
            "LC_ALL": "C.UTF-8",
            "COPT": "-O0",
            **({"HOME": "/nonexistent"} if ours else {}),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=300,
        **(ACCOUNT.popen_arguments() if ours else {}),
    )
    return result.returncode, result.stdout


def make(target: str, pg_config: str | Path, python: str | Path, **options: Any) -> tuple[int, str]:
    return run(["make", target, f"PG_CONFIG={pg_config}", f"PYTHON={python}"], **options)


def files(*roots: Path) -> set[Path]:
    return {path for root in roots for path in root.rglob("*") if not path.is_dir() and "__pycache__" not in path.parts}


class Machine(Tree):
    """A PostgreSQL that has never seen the extension, and a new virtual environment."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.strip()
        self.venv = home / "venv"
        run([base_python(), "-m", "venv", self.venv])
        self.python = self.venv / "bin" / "python"
        self.packages = next(self.venv.glob("lib/python3*/site-packages"))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    directory = private_directory(ACCOUNT)
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def bare(home: Path) -> Machine:
    return Machine(home)


@pytest.fixture(scope="module")
def before(bare: Machine) -> set[Path]:
    return files(bare.home)


@pytest.fixture(scope="module")
def machine(bare: Machine, before: set[Path]) -> Machine:
    """The machine after "make install"."""
    status, output = make("install", bare.pg_config, bare.python)
    assert status == 0, output
    return bare


@pytest.fixture(scope="module")
def postgres(machine: Machine) -> Iterator[Postgres]:
    with Postgres(bindir=machine.bindir, name="install-postgres") as server:
        yield server


def test_what_is_installed(machine: Machine, before: set[Path]) -> None:
    new = files(machine.home) - before
    scripts = {machine.extensions / path.name for path in (CHECKOUT / "sql").iterdir()}
    assert {path for path in new if path.is_relative_to(machine.root)} == {machine.library, *scripts}
    elsewhere = {path for path in new if not (path.is_relative_to(machine.root) or path.is_relative_to(machine.venv))}
    assert elsewhere == set()
    modules = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "fdw").rglob("*.py")} | {Path("fdw/py.typed")}
    assert {
        path.relative_to(machine.packages) for path in new if path.is_relative_to(machine.packages / "fdw")
    } == modules


def test_first_query(postgres: Postgres, database: Database) -> None:
    postgres.psql("-c", "CREATE EXTENSION model_fdw")
    postgres.psql("-c", f"CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{database.triton.url}')")
    postgres.psql("-c", "CREATE SCHEMA ml", "-c", "IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO ml")
    joined = "SELECT sum(s) FROM generate_series(1, 1000) a(a) JOIN ml.affine USING (a) WHERE b = 1"
    assert float(postgres.psql("-c", joined)) == 2 * 500500 + 3000


# ---- a source distribution, the two parts by themselves, without privileges ----


@pytest.fixture(scope="module")
def source(home: Path) -> Path:
    """The unpacked source distribution, which belongs to the user without privileges."""
    checkout, unpacked = home / "checkout", home / "source"
    shutil.copytree(
        CHECKOUT, checkout, ignore=shutil.ignore_patterns(".run", ".git*", "*.egg-info", "build", ".*_cache")
    )
    program = f"from setuptools import build_meta; build_meta.build_sdist({str(home)!r})"
    status, output = run([sys.executable, "-c", program], directory=checkout)
    assert status == 0, output
    status, output = run(["tar", "-xzf", f"model_fdw-{VERSION}.tar.gz"], directory=home)
    assert status == 0, output
    (home / f"model_fdw-{VERSION}").rename(unpacked)
    for path in [unpacked, *unpacked.rglob("*")]:
        ACCOUNT.own(path)
    return unpacked


@pytest.fixture(scope="module")
def root(home: Path) -> Path:
    """Where a packager gathers files."""
    directory = home / "root"
    directory.mkdir()
    ACCOUNT.own(directory)
    return directory


def test_library_of_a_source_distribution(machine: Machine, source: Path, root: Path) -> None:
    names = [f"PG_CONFIG={machine.pg_config}", f"PYTHON={machine.python}", f"DESTDIR={root}"]
    before = files(machine.home) - files(source, root)
    native = source / "fdw" / "native"
    status, output = run(["make", "-j2", *names, "install"], directory=native, ours=True)
    assert status == 0, output
    assert "warning" not in output
    scripts = {machine.extensions / path.name for path in (CHECKOUT / "sql").iterdir()}
    assert files(root) == {root / path.relative_to("/") for path in {machine.library, *scripts}}
    assert files(machine.home) - files(source, root) == before
    assert run(["make", *names, "uninstall"], directory=native, ours=True)[0] == 0
    assert files(root) == set()


def test_package_of_a_source_distribution(machine: Machine, source: Path, root: Path) -> None:
    before = files(machine.packages)
    options = ["--root", root, "--no-deps", "--ignore-installed", "--no-cache-dir"]
    status, output = run([machine.python, "-m", "pip", "install", *options, "."], directory=source, ours=True)
    assert status == 0, output
    below = root / machine.packages.relative_to("/")
    assert {path.relative_to(below / "fdw") for path in files(below / "fdw")} == {
        path.relative_to(machine.packages / "fdw") for path in files(machine.packages / "fdw")
    }
    assert {path.name for path in below.iterdir()} == OURS
    assert files(machine.packages) == before


# ---- what cannot be installed, and why ----


def refusal(*arguments: Any, **options: Any) -> str:
    status, output = make("install", *arguments, **options)
    assert status != 0
    return output.partition("make: ***")[0]


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A pg_config of a PostgreSQL 17 without headers."""
    program = tmp_path / "pg_config"
    program.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo PostgreSQL 17.2 || echo {tmp_path}/none\n")
    program.chmod(0o755)
    return program


def test_a_wrong_pg_config() -> None:
    assert refusal("", sys.executable) == ("make install: PG_CONFIG is not set\n  Hint: PG_CONFIG=/path/to/pg_config\n")
    assert refusal("/none/pg_config", sys.executable).startswith('make install: "/none/pg_config" is not a program\n')
    assert refusal("/bin/true", sys.executable) == (
        'make install: "/bin/true" is not a pg_config of PostgreSQL\n  Hint: PG_CONFIG=/path/to/pg_config\n'
    )


def test_no_headers(fake: Path) -> None:
    output = refusal(fake, sys.executable)
    assert output.startswith(f"make install: PostgreSQL 17.2 of {fake} is here without its headers\n")
    assert output.endswith(("apt-get install postgresql-server-dev-17\n", "dnf install postgresql17-devel\n"))
    status, output = run(["make", "-C", "fdw/native", "-n", f"PG_CONFIG={fake}", f"PYTHON={sys.executable}"])
    assert status != 0
    assert "knows no PGXS; install the package postgresql-server-dev-N (Debian)" in output


def test_destdir_is_for_the_parts(machine: Machine) -> None:
    output = refusal(machine.pg_config, machine.python, DESTDIR="/nowhere")
    assert output.startswith("make install: DESTDIR is for the two parts by themselves\n  Hint: make -C fdw/native")


def test_directories_of_somebody_else(machine: Machine) -> None:
    if not ACCOUNT.switches:
        pytest.skip("all directories are ours: run as root to see those of somebody else")
    output = refusal(machine.pg_config, machine.python, ours=True)
    assert output == (
        f"make install: {machine.library.parent} is not writable\n  Hint: sudo make install PG_CONFIG=... PYTHON=...\n"
    )


def test_a_python_that_the_server_cannot_read(machine: Machine) -> None:
    if not ACCOUNT.switches:
        pytest.skip("the server runs as we do: run as root to see it run as somebody else")
    machine.packages.chmod(0o700)
    try:
        output = refusal(machine.pg_config, machine.python)
    finally:
        machine.packages.chmod(0o755)
    assert output.startswith(f"make install: {machine.packages} cannot be read by user ")
    assert output.endswith(f"or open the directory: chmod -R o+rX {machine.venv}\n")


def test_packages_of_the_system(machine: Machine) -> None:
    python = Path("/usr/bin/python3")
    if not python.exists() or not is_managed(python):
        pytest.skip(f"the packages of {python} do not belong to a package manager")
    output = refusal(machine.pg_config, python)
    assert output.startswith(f"make install: the packages of {python} belong to the system's package manager\n")


# ---- at the end: what was installed goes, and nothing else ----


def test_uninstall_without_a_python(machine: Machine, before: set[Path]) -> None:
    """The files of the library go; of the package, which the system's Python cannot have, one is told where it is."""
    python = Path("/usr/bin/python3")
    if not python.exists() or not is_managed(python):
        pytest.skip(f"the packages of {python} do not belong to a package manager")
    package = files(machine.packages)
    status, output = make("uninstall", machine.pg_config, python)
    assert status == 0, output
    told = f"The Python package is still in {machine.packages}. Unless another PostgreSQL uses it:\n"
    assert output.endswith(f"{told}{machine.python} -m pip uninstall model_fdw\n")
    assert not files(machine.root) - before
    assert files(machine.packages) == package


def test_uninstall(machine: Machine, before: set[Path]) -> None:
    ours = {path for path in files(machine.packages) if path.relative_to(machine.packages).parts[0] in OURS}
    kept = files(machine.home) - before - ours - files(machine.root)
    status, output = make("uninstall", machine.pg_config, machine.python)
    assert status == 0, output
    assert files(machine.home) == before | kept
    assert not (machine.packages / "fdw").exists()
    assert make("uninstall", machine.pg_config, machine.python)[0] == 0, "nothing is left to remove"
