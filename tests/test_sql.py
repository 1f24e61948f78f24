"""SQL scripts and what psql shows of them: tests/sql/*.sql, compared exactly with tests/expected/*.out.

    make test ARGS="tests/test_sql.py -k join"

To accept what is shown now as what is expected, look at the difference first, then:

    ACCEPT=1 make test ARGS="tests/test_sql.py -k join"

A script runs in a schema "scratch" of its own that is first in the search path, as psql -X -a -q; all models are in
schema "ml". Ports are written PORT. What a script makes outside its schema it removes itself.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import NATIVE, Database, make_scratch

SCRIPTS = sorted(Path(__file__).with_name("sql").glob("*.sql"))
EXPECTED = Path(__file__).with_name("expected")

# Scripts about what only one host does.
ONLY = {
    "arrays": pytest.mark.hosts(NATIVE, reason="Multicorn has one SQLSTATE; the engine behind both is the same"),
    "native": pytest.mark.hosts(NATIVE, reason="Multicorn's validator checks no options, writes are its own"),
    "import_options": pytest.mark.hosts(
        NATIVE, reason="Multicorn's IMPORT cannot rename what LIMIT TO names, nor pass over a table that is there"
    ),
}

# What would otherwise depend on the machine, the version or the planner's statistics.
SETTINGS = {
    "search_path": "scratch,public",
    "timezone": "UTC",
    "datestyle": "ISO",
    "extra_float_digits": "1",
    "client_min_messages": "notice",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


def shown(database: Database, script: Path) -> str:
    """Run a script and return what psql shows, standard output and errors in their order."""
    with database.connect() as connection:
        make_scratch(connection)
    result = subprocess.run(
        [database.postgres.bindir / "psql", "-X", "-a", "-q"],
        input=script.read_bytes(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **database.postgres.environment(database.name),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in SETTINGS.items()),
        },
        timeout=120,
        check=False,
    )
    assert result.returncode == 0
    return re.sub(r"\b127\.0\.0\.1:[0-9]+", "127.0.0.1:PORT", result.stdout.decode())


# What EXPLAIN writes in one way up to PostgreSQL 16, and in another from 17 or 18 on.
VERSIONED = {
    r"(InitPlan (\d+)) \(returns \$\d+\)": r"\1",
    r"\(InitPlan 1\)\.col1": "$0",
    r"\(InitPlan 2\)\.col1": "$1",
    r"\(ANY \(.+ = \((SubPlan \d+)\)\.col1\)\)": r"(\1)",
    r"^ +Disabled: true\n": "",
    r"^ *QUERY PLAN *\n-+$": "QUERY PLAN",
}


def without_version(text: str) -> str:
    """Write plans in one way, whatever the version of PostgreSQL."""
    for pattern, written in VERSIONED.items():
        text = re.sub(pattern, written, text, flags=re.MULTILINE)
    return text


def without_host(text: str) -> str:
    """Leave out in what Multicorn differs: the order of imported options, the name of a node, so a table's width."""
    text = text.replace("Custom Scan (Model Scan) on ", "Foreign Scan on ")
    text = re.sub(r"^ *QUERY PLAN *\n-+$", "QUERY PLAN", text, flags=re.MULTILINE)
    one = r"[a-z_]+ '[^']*'"
    return re.sub(rf"\({one}(, {one})*\)", lambda found: str(sorted(re.findall(one, found[0]))), text)


@pytest.mark.parametrize(
    "script",
    [pytest.param(script, marks=ONLY.get(script.stem, ()), id=script.stem) for script in SCRIPTS],
)
def test_script(database: Database, script: Path) -> None:
    found = shown(database, script)
    expected_file = EXPECTED / f"{script.stem}.out"
    if os.environ.get("ACCEPT"):
        expected_file.write_text(found)
    expected = expected_file.read_text() if expected_file.exists() else ""
    expected, found = without_version(expected), without_version(found)
    normal = str if database.host == NATIVE else without_host
    compare(f"expected/{expected_file.name}", normal(expected), normal(found))


@pytest.mark.parametrize(
    "script", [script for script in SCRIPTS if script.stem not in ONLY], ids=lambda path: path.stem
)
def test_script_under_multicorn(native_beside: Database, loaded: Database, script: Path) -> None:
    """With the library loaded, Multicorn's tables show what our own do on the same PostgreSQL."""
    compare("our own tables", without_host(shown(native_beside, script)), without_host(shown(loaded, script)))


def compare(origin: str, expected: str, found: str) -> None:
    if found != expected:
        difference = difflib.unified_diff(expected.splitlines(), found.splitlines(), origin, "shown", lineterm="")
        pytest.fail("\n".join(difference), pytrace=False)


def test_every_expected_file_has_a_script() -> None:
    assert {path.stem for path in EXPECTED.glob("*.out")} == {script.stem for script in SCRIPTS}
