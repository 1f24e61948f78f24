"""Build the C library and the Python package in copies of the sources, and install both for the development.

The checkout stays clean, and every PostgreSQL has objects of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from dev.environments import write_last
from dev.places import CHECKOUT, Places, below, installed, tool_environment
from dev.screen import Failure, run_logged, step

NATIVE = ("fdw/native", "sql")
PACKAGE = ("fdw", "sql", "setup.py", "pyproject.toml", "README.md")
PRODUCTS = {".o", ".so", ".bc"}
PROGRAMS = (
    *("postgres", "initdb", "psql", "pg_config", "pg_ctl", "pg_controldata", "pg_resetwal", "vacuumdb"),
    *("pg_dump", "pg_dumpall", "pg_restore", "pg_upgrade"),
)


def build(places: Places) -> None:
    """Bring PostgreSQL and the virtual environment up to date with the sources."""
    python = places.venv_python
    build_library(places)
    if changed(stamp := places.venv / "package.stamp", digest := digest_of(package_files())):
        with step("installing the Python package"):
            log = places.log / "package.log"
            install_package(places.build, log, python, ["--no-deps", "--no-build-isolation"])
        write_last(stamp, digest)


def build_library(places: Places) -> None:
    """Bring the library in PostgreSQL up to date with the sources."""
    if places.is_ours:
        target, variables = places.bindir.parent, []
    else:
        copy_postgres(places.pg_config, places.copy)
        target, variables = places.copy, [f"DESTDIR={places.copy}"]
    if changed(stamp := target / "native.stamp", digest := digest_of(files_of(NATIVE))):
        with step("building the C library"):
            log = places.log / "native.log"
            make_native(places.build, log, places.pg_config, places.venv_python, variables, "all", "install")
        write_last(stamp, digest)


def copy_postgres(pg_config: Path, target: Path) -> None:
    """Copy what a server needs to run, unless it is there: a PostgreSQL finds its files by their relative paths."""
    bindir, pkglibdir, sharedir = (installed(pg_config, name) for name in ("bindir", "pkglibdir", "sharedir"))
    programs = [bindir / name for name in PROGRAMS if (bindir / name).exists()]
    witnesses = [*programs, *pkglibdir.glob("*.so"), *(sharedir / "extension").glob("*.control")]
    lines = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sorted(witnesses)]
    if changed(stamp := target / "copied", recipe := "\n".join([version(pg_config), *lines])):
        with step(f"copying the PostgreSQL of {pg_config}"):
            shutil.rmtree(target, ignore_errors=True)
            below(target, bindir).mkdir(parents=True)
            for program in programs:
                shutil.copy(program, below(target, program))
            for directory in (pkglibdir, sharedir):
                shutil.copytree(directory, below(target, directory), symlinks=True, dirs_exist_ok=True)
        write_last(stamp, recipe)


def build_strictly(places: Places) -> None:
    """Build the C library with every warning an error, and install nothing."""
    log = places.log / "strict.log"
    variables = ["WERROR=1"]
    make_native(places.build, log, places.pg_config, places.venv_python, variables, "all")


def changed(stamp: Path, digest: str) -> bool:
    """Compare a digest with the one of the last installation."""
    return not stamp.exists() or stamp.read_text() != digest


def files_of(names: Iterable[str]) -> list[Path]:
    """List the source files below the named parts of the checkout."""
    roots = [CHECKOUT / name for name in names]
    found = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))]
    sources = (path for path in found if path.is_file() and path.suffix not in PRODUCTS)
    return sorted(path for path in sources if "__pycache__" not in path.parts)


def package_files() -> list[Path]:
    """List the sources of the Python package, which the C library is no part of."""
    return [path for path in files_of(PACKAGE) if "native" not in path.parts]


def digest_of(files: Iterable[Path]) -> str:
    """Digest the names and contents of sources."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(CHECKOUT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_native(build: Path, log: Path, pg_config: Path, python: Path, variables: Sequence[str], *targets: str) -> None:
    """Run the Makefile of the C library in a copy that belongs to this PostgreSQL and this Python."""
    makefile = CHECKOUT / "fdw" / "native" / "Makefile"
    if not makefile.exists():
        raise Failure("fdw/native/Makefile is missing: the checkout is not complete")
    recipe = [version(pg_config), version(python), makefile.read_text(), *variables]
    key = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:8]
    target = build / f"native-{key}"
    mirror(files_of(NATIVE), target)
    run_logged(
        [
            "make",
            f"--jobs={os.cpu_count() or 1}",
            f"--directory={target / 'fdw' / 'native'}",
            f"PG_CONFIG={pg_config}",
            f"PYTHON={python}",
            *variables,
            *targets,
        ],
        log,
        f"could not {'remove' if 'uninstall' in targets else 'build'} the C library",
        environment=tool_environment(),
    )


def version(program: Path) -> str:
    """Tell a program by its path and by its version: either may change behind the other."""
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{program} {output}"


def mirror(sources: Sequence[Path], target: Path) -> None:
    """Make a directory hold the sources and nothing else but products; unchanged files keep their age."""
    wanted = {target / path.relative_to(CHECKOUT): path for path in sources}
    for path in list(target.rglob("*")):
        if path.is_file() and path.suffix not in PRODUCTS and path not in wanted:
            path.unlink()
    for copy, path in wanted.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)


def install_package(build: Path, log: Path, python: Path, options: Sequence[str]) -> None:
    """Install the Python package from a fresh copy: setuptools litters where it builds."""
    target = build / "package"
    shutil.rmtree(target, ignore_errors=True)
    mirror(package_files(), target)
    run_logged(
        [python, "-m", "pip", "install", "--no-input", *options, target],
        log,
        "could not install the Python package",
        environment=tool_environment(),
    )
