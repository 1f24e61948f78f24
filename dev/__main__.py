"""The targets of the Makefile: python3 -m dev TARGET [ARGUMENTS]."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

if sys.version_info < (3, 10):
    sys.exit(f"Python 3.10 or newer is needed, {sys.executable} is older: make PYTHON=/path/to/python3")

from dev import build, checks, environments, install, matrix, models, prerequisites, source, up, valgrind
from dev.demo import demo
from dev.places import CHECKOUT, Places, find_places, tool_environment
from dev.screen import Failure, say, step

Target = Callable[[Places, Sequence[str]], int]


def prepare(places: Places) -> None:
    """Install, build and train what is missing or out of date."""
    prerequisites.check(places.account)
    places.create()
    with places.locked():
        environments.ensure(places)
        build.build(places)
        models.ensure(places)


def run_build(places: Places, arguments: Sequence[str]) -> int:
    """Prepare everything, start nothing."""
    prepare(places)
    return 0


def run_demo(places: Places, arguments: Sequence[str]) -> int:
    """Show predictions."""
    prepare(places)
    demo(places)
    return 0


def run_up(places: Places, arguments: Sequence[str]) -> int:
    """Start the servers and leave them running."""
    prepare(places)
    with places.locked():
        up.up(places)
    return 0


def run_down(places: Places, arguments: Sequence[str]) -> int:
    """Stop the servers."""
    places.create()
    with places.locked():
        up.down(places)
    return 0


def run_psql(places: Places, arguments: Sequence[str]) -> int:
    """Become psql, connected to the running server."""
    # The embedded psql brings its own terminal library, which does not know where Debian's data lie.
    terminals = {"TERMINFO_DIRS": "/etc/terminfo:/lib/terminfo:/usr/share/terminfo"}
    environment = {**tool_environment(), **terminals, **up.read_env(places)}
    psql = str(places.bindir / "psql")
    os.execve(psql, [psql, *arguments], environment)


def run_test(places: Places, arguments: Sequence[str]) -> int:
    """Run the tests."""
    prepare(places)
    return checks.run_tests(places, arguments)


def run_test_asserts(places: Places, arguments: Sequence[str]) -> int:
    """Run the tests on a version of PostgreSQL with asserts, the first argument."""
    pg_config = get_asserts(places, arguments[0])
    return run_test(replace(places, postgres=pg_config), arguments[1:])


def run_test_valgrind(places: Places, arguments: Sequence[str]) -> int:
    """Run some tests on a version of PostgreSQL under valgrind, the first argument."""
    if shutil.which("valgrind") is None or not source.VALGRIND_HEADER.exists():
        raise Failure("valgrind is not installed", hint="apt-get install valgrind")
    pg_config = get_asserts(places, arguments[0])
    os.environ[valgrind.VARIABLE] = "1"
    places = replace(places, postgres=pg_config)
    prepare(places)
    return checks.run_tests(places, arguments[1:], valgrind.TESTS)


def run_test_sqlsmith(places: Places, arguments: Sequence[str]) -> int:
    """Run queries that sqlsmith makes."""
    if shutil.which("sqlsmith") is None:
        raise Failure("sqlsmith is not installed", hint="apt-get install sqlsmith")
    prepare(places)
    return checks.run_module(places, "dev.sqlsmith", *arguments)


def get_asserts(places: Places, version: str) -> Path:
    """Build a version of PostgreSQL with asserts, unless it is there; return its pg_config."""
    if not version.isdecimal():
        raise Failure(f'"{version}" is not a version of PostgreSQL', hint="VERSION=15")
    places.create()
    with places.locked():
        return source.build_with_asserts(places, int(version))


def run_test_matrix(places: Places, arguments: Sequence[str]) -> int:
    """Run the tests on all versions of PostgreSQL; the first argument names some of them, or is empty."""
    named = matrix.read_versions(arguments[0])
    prepare(places)
    return matrix.run(places, named, arguments[1:])


def run_peers(places: Places, arguments: Sequence[str]) -> int:
    """Install other model servers for the tests."""
    prepare(places)
    with places.locked():
        environments.ensure_peers(places)
    return 0


def run_clients(places: Places, arguments: Sequence[str]) -> int:
    """Install the clients of examples/clients, and run each."""
    prepare(places)
    with places.locked():
        environments.ensure_clients(places)
    return checks.run_tests(places, arguments, ["tests/integration/test_clients.py"])


def run_lint(places: Places, arguments: Sequence[str]) -> int:
    """Run the linters, or those that the arguments name."""
    prepare(places)
    return checks.lint(places, arguments)


def run_bench(places: Places, arguments: Sequence[str]) -> int:
    """Run the benchmark."""
    prepare(places)
    return checks.run_benchmark(places, arguments)


def run_install(places: Places, arguments: Sequence[str]) -> int:
    """Install into the PostgreSQL whose pg_config is the argument."""
    install.install(find_pg_config(arguments), Path(sys.executable))
    return 0


def run_uninstall(places: Places, arguments: Sequence[str]) -> int:
    """Remove what was installed."""
    install.uninstall(find_pg_config(arguments), Path(sys.executable))
    return 0


def find_pg_config(arguments: Sequence[str]) -> Path:
    """Find the program that the only argument names."""
    if len(arguments) != 1 or not arguments[0]:
        raise Failure("PG_CONFIG is not set", hint="PG_CONFIG=/path/to/pg_config")
    pg_config = shutil.which(arguments[0])
    if pg_config is None:
        raise Failure(f'"{arguments[0]}" is not a program', hint="PG_CONFIG=/path/to/pg_config")
    return Path(pg_config).absolute()


def run_clean(places: Places, arguments: Sequence[str]) -> int:
    """Stop the servers and remove all state."""
    if not places.run.exists():
        return 0
    with places.locked():
        up.stop_all(places)
        with step("removing .run"):
            shutil.rmtree(places.home, ignore_errors=True)
            shutil.rmtree(places.run, ignore_errors=True)
    return 0


TARGETS: dict[str, Target] = {
    "build": run_build,
    "demo": run_demo,
    "up": run_up,
    "down": run_down,
    "psql": run_psql,
    "test": run_test,
    "test-asserts": run_test_asserts,
    "test-valgrind": run_test_valgrind,
    "test-sqlsmith": run_test_sqlsmith,
    "test-matrix": run_test_matrix,
    "peers": run_peers,
    "clients": run_clients,
    "lint": run_lint,
    "bench": run_bench,
    "install": run_install,
    "uninstall": run_uninstall,
    "clean": run_clean,
}


def end(number: int, frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that servers are stopped on the way out."""
    sys.exit(128 + number)


def main() -> int:
    """Run the target that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.stderr.write(f"usage: python3 -m dev {{{','.join(TARGETS)}}} [ARGUMENTS]\n")
        return 2
    # What is made here must be readable by the servers' user, whatever the caller's umask is.
    os.umask(0o022)
    os.chdir(CHECKOUT)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    try:
        return TARGETS[sys.argv[1]](find_places(), sys.argv[2:])
    except Failure as failure:
        say(f"make {sys.argv[1]}: {failure}")
        return 1
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
