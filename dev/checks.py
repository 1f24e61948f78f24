"""Run the tests, the linters and the benchmark inside the project's virtual environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dev import versions
from dev.build import build_strictly
from dev.places import CHECKOUT, POSTGRES_VARIABLE, Places, tool_environment
from dev.screen import Failure, say, step


def run_tests(places: Places, arguments: Sequence[str], suites: Sequence[str] = ("tests",)) -> int:
    """Run pytest on the paths among the arguments, else on the suites; return its exit status."""
    paths = [word for word in arguments if Path(word.partition("::")[0]).exists()]
    return run_module(places, "pytest", *([] if paths else suites), *arguments)


def run_benchmark(places: Places, arguments: Sequence[str]) -> int:
    """Run bench/run.py; return its exit status."""
    script = CHECKOUT / "bench" / "run.py"
    if not script.exists():
        raise Failure("bench/run.py is missing: the checkout is not complete")
    return run_python(places, str(script), *arguments)


def lint(places: Places, named: Sequence[str] = ()) -> int:
    """Run every check, or those named, also after one has failed; return 1 where any has."""
    checks = lint_checks(places)
    if unknown := sorted(set(named) - set(checks)):
        raise Failure(f'there is no check "{unknown[0]}"', hint=f"the checks are {', '.join(checks)}")
    failed = []
    for name in named or checks:
        say(f"{name}:")
        if checks[name]() != 0:
            failed.append(name)
    say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def lint_checks(places: Places) -> dict[str, Callable[[], int]]:
    """Name the checks of "make lint"."""
    return {
        "ruff-check": lambda: run_module(places, "ruff", "check", "."),
        "ruff-format": lambda: run_module(places, "ruff", "format", "--check", "."),
        "mypy": lambda: run_module(places, "mypy", "-p", "fdw", "-p", "dev"),
        "clang-format": lambda: run_tool(places, "clang-format", "--dry-run", "--Werror", *files("fdw/native/*.[ch]")),
        "shellcheck": lambda: run_tool(places, "shellcheck", *files(".ci/*"), *files("docker/*.sh")),
        "hadolint": lambda: run_tool(places, "hadolint", "docker/Dockerfile"),
        "compose": lambda: run_tool(
            places, "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files("docker/compose*.yaml")
        ),
        "c-warnings": lambda: lint_native(places),
    }


def lint_native(places: Places) -> int:
    """Build the C library with warnings as errors for each PostgreSQL that is here; show what the compiler says."""
    found = [pg_config for version in versions.SUPPORTED for pg_config in versions.present(places, version)]
    failed = 0
    for pg_config in dict.fromkeys([places.pg_config, *found]):
        try:
            with step(f"building the C library for PostgreSQL {versions.release(pg_config)}"):
                build_strictly(replace(places, postgres=pg_config))
        except Failure as failure:
            say(str(failure))
            failed = 1
    return failed


def files(pattern: str) -> list[str]:
    """List the checkout's files of a pattern."""
    return [str(path.relative_to(CHECKOUT)) for path in sorted(CHECKOUT.glob(pattern))]


def run_tool(places: Places, name: str, *arguments: str) -> int:
    """Run a program of the virtual environment on the terminal; return its exit status."""
    command: list[str | Path] = [places.venv / "bin" / name, *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env=tool_environment(), check=False).returncode


def run_module(places: Places, module: str, *arguments: str) -> int:
    """Run a module of the virtual environment on the terminal; return its exit status."""
    return run_python(places, "-m", module, *arguments)


def run_python(places: Places, *arguments: str) -> int:
    """Run the virtual environment's Python in the checkout, where "import dev" works."""
    environment = {**tool_environment(), "PYTHONPATH": str(CHECKOUT)}
    for name in ("PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"):
        if name in os.environ:
            environment[name] = os.environ[name]
    if places.postgres is not None:
        environment[POSTGRES_VARIABLE] = str(places.postgres)
    command: list[str | Path] = [places.venv_python, *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode
