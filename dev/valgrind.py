"""Run a server under valgrind's memcheck, and read which of the errors that it found are those of our C library.

memcheck sees each read and write beyond an allocation, after its end, or of bytes that nobody has written. A
PostgreSQL that was built for it (see dev/source.py) tells it of palloc() and pfree(), too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from dev.places import Places
from dev.screen import Failure

# In the environment of the tests: run PostgreSQL under valgrind, and fail where it finds errors.
VARIABLE = "MODEL_FDW_VALGRIND"
LIBRARY = "model_fdw.so"
# What runs each C file but multicorn.c in a few minutes; nothing with many rows, nothing that measures time.
TESTS = (
    "tests/test_sql.py",
    "tests/integration/test_memcheck.py",
    "tests/integration/test_changes.py::test_check_of_types",
    "tests/integration/test_changes.py::test_who_may_check",
    "tests/integration/test_ddl.py::test_in_a_block",
    "tests/integration/test_error_column.py::test_a_chain_of_models",
    "tests/integration/test_error_column.py::test_a_model_without_batch_dimension",
    "tests/integration/test_plans.py::test_append_reads_the_outer_rows_once",
    "tests/integration/test_plans.py::test_partition_is_asked_within_its_bound",
)
# Python's own allocator would hide the ends of its objects.
ENVIRONMENT = {"PYTHONMALLOC": "malloc"}


@dataclass(frozen=True)
class Error:
    """An error of memcheck: what it was, and the functions that were running, the innermost first."""

    what: str
    frames: tuple[tuple[str, str], ...]

    @property
    def is_ours(self) -> bool:
        """Tell whether code of the library was running."""
        return any(Path(library).name == LIBRARY for library, _ in self.frames)

    def __str__(self) -> str:
        """Show the error and where it was."""
        return "\n".join([self.what, *(f"    {place}" for _, place in self.frames)])


def missing(pg_config: Path) -> str:
    """Say what is missing for a server under valgrind; nothing where all is there."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    flags = subprocess.run([pg_config, "--cppflags"], capture_output=True, text=True, check=True).stdout
    return "" if "-DUSE_VALGRIND" in flags else "this PostgreSQL was not built for valgrind"


def is_wanted() -> bool:
    """Tell whether the tests' servers are to run under valgrind."""
    return bool(os.environ.get(VARIABLE))


def new_reports(places: Places, name: str) -> Path:
    """Make an empty directory for the reports of a server's processes."""
    reports = places.log / f"{name}-valgrind"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    places.account.own(reports)
    return reports


def command(reports: Path) -> list[str]:
    """Write the command before the server's; each process reports into a file of its own."""
    return [
        "valgrind",
        "--quiet",
        "--show-leak-kinds=none",  # what a process holds at its end is no error
        "--num-callers=40",
        "--error-limit=no",
        "--child-silent-after-fork=no",
        "--xml=yes",
        f"--xml-file={reports}/%p.xml",
    ]


def read_errors(reports: Path) -> list[Error]:
    """Read what all processes have reported, also those that were killed."""
    files = sorted(reports.glob("*.xml"))
    if not files:
        raise Failure(f"valgrind has written no report into {reports}")
    return list(dict.fromkeys(error for file in files for error in parse(file.read_text(errors="replace"))))


def parse(report: str) -> list[Error]:
    """Read the errors of a report, which need not be whole."""
    elements = re.findall(r"<error>.*?</error>", report, flags=re.DOTALL)
    return [parse_error(ET.fromstring(element)) for element in elements]


def parse_error(element: ET.Element) -> Error:
    """Read an error: its first stack is where it happened."""
    what = element.findtext("what") or element.findtext("xwhat/text") or element.findtext("kind") or ""
    return Error(
        what, tuple((frame.findtext("obj") or "", place(frame)) for frame in element.findall("stack[1]/frame"))
    )


def place(frame: ET.Element) -> str:
    """Write where a frame is, as well as it is known."""
    function = frame.findtext("fn") or frame.findtext("ip") or ""
    line = f"{frame.findtext('file')}:{frame.findtext('line')}" if frame.findtext("file") else frame.findtext("obj")
    return f"{function} ({line})"
