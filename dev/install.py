"""Install into a PostgreSQL and a Python that are already there, or remove what was installed.

Nothing is written into the checkout, so that "sudo make install" leaves no file of root's in it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev import prerequisites
from dev.build import install_package, make_native
from dev.places import Account, base_python, find_account, installed, tool_environment
from dev.screen import Failure, run_logged, say, step
from dev.versions import SUPPORTED

SERVER_USER = "postgres"
# In the library: the default of model_fdw.python_path, of which the first directory is the one of our package.
PACKAGES = re.compile(rb"\0(/[^\0:]+/(?:site|dist)-packages)[\0:]")


def install(pg_config: Path, python: Path) -> None:
    """Install the C library and the extension for a PostgreSQL, the Python package and what it needs into a Python."""
    if os.environ.get("DESTDIR"):
        raise Failure(
            "DESTDIR is for the two parts by themselves",
            hint="make -C fdw/native install DESTDIR=... PG_CONFIG=... PYTHON=..., and "
            "pip install --root=... --no-deps --ignore-installed .",
        )
    check_postgres(pg_config)
    prerequisites.check_building()
    if is_managed(python):
        raise Failure(f"the packages of {python} belong to the system's package manager", hint=MAKE_ENVIRONMENT)
    check_writable(pg_config, "install")
    check_readable(server_account())
    if (replaced := other_packages(pg_config)) is not None:
        say(f"This replaces an installation with the Python packages in {replaced}; they stay there.")
    with build_directory() as build:
        with step(f"building the C library for {pg_config}"):
            make_native(build, build / "native.log", pg_config, python, [], "all", "install")
        with step(f"installing the Python package and what it needs for {python}"):
            install_package(build, build / "package.log", python, [])
    say("In each database: CREATE EXTENSION model_fdw, or ALTER EXTENSION model_fdw UPDATE (docs/install.md)")


def uninstall(pg_config: Path, python: Path) -> None:
    """Remove the C library, the extension and the Python package, which the system's Python cannot have.

    What the package needs stays. So does a package in another Python, of which the user is told.
    """
    check_postgres(pg_config)
    has_package = not is_managed(python)
    check_writable(pg_config, "uninstall", packages=has_package)
    others = other_packages(pg_config)
    with build_directory() as build:
        with step(f"removing the C library from {pg_config}"):
            make_native(build, build / "native.log", pg_config, python, [], "uninstall")
        if has_package:
            with step(f"removing the Python package from {python}"):
                run_logged(
                    [python, "-m", "pip", "uninstall", "--yes", "model_fdw"],
                    build / "package.log",
                    "could not remove the Python package",
                    environment=tool_environment(),
                )
    if others is not None and (others / "fdw").exists():
        say(f"The Python package is still in {others}. Unless another PostgreSQL uses it:")
        say(f"{others.parents[2]}/bin/python -m pip uninstall model_fdw")


def other_packages(pg_config: Path) -> Path | None:
    """Read from the library that is installed where its Python packages are, if that is not in our Python."""
    library = installed(pg_config, "pkglibdir") / "model_fdw.so"
    found = PACKAGES.search(library.read_bytes()) if library.exists() else None
    if found is None or (packages := Path(os.fsdecode(found[1]))) == Path(sysconfig.get_path("purelib")):
        return None
    return packages


@contextmanager
def build_directory() -> Iterator[Path]:
    """Make a directory to build in; it stays where something fails, with the logs."""
    build = Path(tempfile.mkdtemp(prefix="model_fdw-install-"))
    yield build
    shutil.rmtree(build)


def check_postgres(pg_config: Path) -> None:
    """Refuse a PostgreSQL for which nothing can be built, and name the package that helps."""
    try:
        output = subprocess.run([pg_config, "--version"], capture_output=True, text=True, check=True).stdout
        version = int(output.split()[1].partition(".")[0].partition("devel")[0])
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError) as error:
        raise Failure(f'"{pg_config}" is not a pg_config of PostgreSQL', hint="PG_CONFIG=/path/to/pg_config") from error
    if version < SUPPORTED[0]:
        raise Failure(f"{output.strip()} is too old", hint=f"PostgreSQL {SUPPORTED[0]} to {SUPPORTED[-1]} will do")
    headers = installed(pg_config, "includedir-server") / "postgres.h"
    if not installed(pg_config, "pgxs").exists() or not headers.exists():
        debian, rpm = f"postgresql-server-dev-{version}", f"postgresql{version}-devel"
        package = prerequisites.Prerequisite("the server's headers", debian, rpm, headers.exists)
        raise Failure(
            f"{output.strip()} of {pg_config} is here without its headers", hint=prerequisites.install_hint([package])
        )


MAKE_ENVIRONMENT = (
    "/usr/bin/python3 -m venv /opt/model_fdw && make install PG_CONFIG=... PYTHON=/opt/model_fdw/bin/python"
)


def is_managed(python: Path) -> bool:
    """Tell whether an interpreter's packages belong to the system's package manager (PEP 668)."""
    check = (
        "import os, sys, sysconfig\n"
        "marker = os.path.join(sysconfig.get_path('stdlib'), 'EXTERNALLY-MANAGED')\n"
        "sys.exit(sys.prefix == sys.base_prefix and os.path.exists(marker))"
    )
    return subprocess.run([python, "-I", "-c", check], check=False).returncode != 0


def check_writable(pg_config: Path, target: str, *, packages: bool = True) -> None:
    """Refuse directories into which we may not write, before anything is built or removed."""
    targets = [installed(pg_config, "pkglibdir"), installed(pg_config, "sharedir") / "extension"]
    if packages:
        targets.append(Path(sysconfig.get_path("purelib")))
    for directory in targets:
        there = next(path for path in [directory, *directory.parents] if path.exists())
        if not os.access(there, os.W_OK):
            raise Failure(f"{there} is not writable", hint=f"sudo make {target} PG_CONFIG=... PYTHON=...")


def server_account() -> Account:
    """Choose whom to take for the server's user: as root the usual one, else ourselves."""
    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        return find_account()
    return find_account() if os.geteuid() else Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def check_readable(account: Account) -> None:
    """Refuse a Python that the server's user cannot read: the library would find neither it nor our package."""
    prerequisites.check_interpreter(account, base_python(), MAKE_ENVIRONMENT)
    packages = Path(sysconfig.get_path("purelib"))
    if not account.can_enter(packages):
        raise Failure(
            f"{packages} cannot be read by user {account.name}, who runs PostgreSQL",
            hint=f"make a virtual environment where it can, or open the directory: chmod -R o+rX {sys.prefix}",
        )
