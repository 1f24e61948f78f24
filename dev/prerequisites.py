"""Check what the machine must have before anything is installed, and name the package that is missing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.places import Account, base_python
from dev.screen import Failure

TRITON_PYTHONS = ((3, 10), (3, 11), (3, 12))


@dataclass(frozen=True)
class Prerequisite:
    """One thing that must be there, and where it comes from."""

    name: str
    debian: str
    rpm: str
    present: Callable[[], bool]


def has_headers() -> bool:
    """Look for Python.h."""
    return Path(sysconfig.get_path("include"), "Python.h").exists()


def has_libpython() -> bool:
    """Look for the shared library that the extension is linked with."""
    directory, name = sysconfig.get_config_vars("LIBDIR", "LDLIBRARY")
    shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
    return shared and Path(directory, name).exists()


def has_libstdcxx() -> bool:
    """Look for the C++ library that Triton is linked with."""
    try:
        ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return False
    return True


BUILDING = (
    Prerequisite("a C compiler", "gcc libc6-dev", "gcc", lambda: bool(shutil.which("gcc"))),
    Prerequisite("make", "make", "make", lambda: bool(shutil.which("make"))),
    Prerequisite("the Python headers", "python3-dev", "python3-devel", has_headers),
    Prerequisite("the shared libpython", "python3-dev", "python3-devel", has_libpython),
)
PREREQUISITES = (
    *BUILDING,
    Prerequisite(
        "Python's venv module",
        "python3-venv",
        "python3",
        lambda: bool(importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv")),
    ),
    Prerequisite("the C++ library", "libstdc++6", "libstdc++", has_libstdcxx),
)


def check(account: Account) -> None:
    """Check for what development needs."""
    check_machine()
    check_present(PREREQUISITES)
    check_interpreter(account, base_python())


def check_building() -> None:
    """Check for what the C library needs to be built."""
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        raise Failure(
            f"{sys.executable} has no shared libpython to embed",
            hint="use a Python that was built with --enable-shared, such as a virtual environment of /usr/bin/python3",
        )
    check_present(BUILDING)


def check_present(prerequisites: Sequence[Prerequisite]) -> None:
    """Raise a failure that names every missing package at once."""
    missing = [item for item in prerequisites if not item.present()]
    if missing:
        names = ", ".join(item.name for item in missing)
        raise Failure(f"{names}: not found (Python: {sys.executable})", hint=install_hint(missing))


def check_machine() -> None:
    """Refuse what the wheel of Triton does not run on, before pip does so less clearly."""
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if platform.machine() != "x86_64" or library != "glibc" or numbers < (2, 35):
        raise Failure(
            f"Triton's wheel needs x86-64 Linux with glibc 2.35 or newer, this is "
            f"{platform.machine()} with {library or 'another C library'} {version}",
            hint="the extension itself has no such limits: make install PG_CONFIG=...",
        )


def check_interpreter(
    account: Account, python: Path, hint: str = "PYTHON=/usr/bin/python3, or run make as an ordinary user"
) -> None:
    """Refuse an interpreter that the user of the servers cannot read."""
    if not account.can_enter(python.parent) or not account.can_enter(Path(sys.base_prefix)):
        raise Failure(
            f"{python} cannot be read by user {account.name}, who runs PostgreSQL",
            hint=hint,
        )


def install_hint(missing: list[Prerequisite]) -> str:
    """Write the command that installs what is missing."""
    if shutil.which("apt-get"):
        packages, command = [item.debian for item in missing], "apt-get install"
    else:
        packages, command = [item.rpm for item in missing], "dnf install"
    prefix = "sudo " if os.geteuid() else ""
    return f"{prefix}{command} {' '.join(dict.fromkeys(packages))}"


def triton_python() -> Path:
    """Find an interpreter for Triton's models: ours where its version fits, else another one."""
    named = os.environ.get("TRITON_PYTHON")
    if named:
        return Path(named)
    if sys.version_info[:2] in TRITON_PYTHONS:
        return base_python()
    found = [shutil.which(f"python{major}.{minor}") for major, minor in reversed(TRITON_PYTHONS)]
    for path in filter(None, found):
        return Path(path)
    raise Failure(
        "Triton's Python backend needs Python 3.10, 3.11 or 3.12 beside "
        f"Python {sys.version_info[0]}.{sys.version_info[1]}",
        hint="install one and name it: make ... TRITON_PYTHON=/usr/bin/python3.11",
    )
