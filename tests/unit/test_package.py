from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fdw
from fdw import errors, host, wrapper

ROOT = Path(__file__).resolve().parents[2]


def python(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_class_is_where_users_catalogs_say() -> None:
    assert fdw.ModelFdw is wrapper.ModelFdw
    assert fdw.__all__ == ["ModelFdw"]
    with pytest.raises(AttributeError):
        fdw.Nothing  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    python("import sys, fdw; assert not [m for m in sys.modules if m.startswith('fdw.')]")


def test_no_thread_is_made_at_import() -> None:
    python(
        "import os, fdw.host, fdw.wrapper\n"
        "fdw.host.load_engine()\n"
        "threads = os.listdir('/proc/self/task')\n"
        "assert len(threads) == 1, threads\n"
    )


def test_a_fresh_backend_can_be_interrupted_between_imports() -> None:
    """A first use of a model imports in pieces, each of which ends a poll."""
    python(
        "import sys\n"
        "from fdw import host\n"
        "server = {'oid': 1, 'name': 's', 'options': {'url': 'grpc://127.0.0.1:1'}}\n"
        "ticket = host.import_schema(server, {}, 'models', 'all', [], {})\n"
        "pieces = ['numpy', 'asyncio', 'grpc', 'tritonclient.grpc']\n"
        "seen = []\n"
        "while len(seen) < len(pieces):\n"
        "    loaded = [name for name in pieces if name in sys.modules]\n"
        "    assert loaded == pieces[: len(loaded)] and len(loaded) <= len(seen) + 1, (seen, loaded)\n"
        "    seen = loaded\n"
        "    assert host.poll(ticket) != 0\n"
        "host.cancel(ticket)\n"
    )


@pytest.mark.parametrize(
    ("package", "pip"), [("grpc", "grpcio"), ("tritonclient", "tritonclient[grpc]"), ("numpy", "numpy")]
)
def test_a_missing_package_is_an_error_and_validation_goes_on(package: str, pip: str) -> None:
    python(
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from fdw import errors, host\n"
        "host.validate('server', {'url': 'grpc://h:1'})\n"
        "server = {'oid': 1, 'name': 's', 'options': {'url': 'grpc://h:1'}}\n"
        "try:\n"
        "    ticket = host.import_schema(server, {}, 'models', 'all', [], {})\n"
        "    while host.poll(ticket):\n"
        "        pass\n"
        "    host.collect(ticket)\n"
        "except errors.MissingPackage as error:\n"
        f"    assert error.message == 'could not import Python package \"{package}\"', error.message\n"
        f"    assert \"pip install '{pip}'\" in error.hint\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )


def test_the_version_is_the_control_files() -> None:
    reported = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "--version"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    control = (ROOT / "sql" / "model_fdw.control").read_text()
    assert f"default_version = '{reported.split()[-1]}'" in control
    assert reported.split()[-1] == fdw.__version__


def test_the_library_must_have_the_version_of_the_package() -> None:
    with pytest.raises(errors.MissingPackage) as caught:
        host.start(-1, "0.0.9")
    assert caught.value.message == (
        f"Python package model_fdw has version {fdw.__version__}, the loaded library version 0.0.9"
    )
    assert caught.value.detail == f'The package is in "{ROOT / "fdw"}".'


# Scripts of released versions, with their SHA-256: they never change again.
FROZEN: dict[str, str] = {}


def test_scripts_of_released_versions_are_frozen() -> None:
    versions = re.findall(r"^## (\S+) \((.*)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0][0] == fdw.__version__
    released = {version for version, date in versions if date != "unreleased"}
    assert {name.removesuffix(".sql").rpartition("--")[2] for name in FROZEN} == released
    for name, digest in FROZEN.items():
        assert hashlib.sha256((ROOT / "sql" / name).read_bytes()).hexdigest() == digest, name


def test_no_two_modules_of_the_tests_share_a_name() -> None:
    """Pytest would refuse to run them together, and only where all tests are run."""
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert names == sorted(set(names))
