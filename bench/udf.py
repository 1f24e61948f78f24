"""The peer that is a function: PL/Python, one request a row. Runs where a PostgreSQL with plpython3u is found."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from bench.measure import Route
from bench.workbench import FEATURES, SESSION, create_table, expect, timed
from dev.environments import site_packages
from dev.screen import Failure, step
from dev.servers import Postgres, default_places
from dev.versions import SYSTEM

ROWS = 2_000
EXTENSION = Path("extension") / "plpython3u.control"

FUNCTION = """
CREATE FUNCTION score({parameters}) RETURNS real LANGUAGE plpython3u AS $$
if "client" not in SD:
    import sys
    sys.path.append("{packages}")
    import numpy
    import tritonclient.grpc as triton
    SD["numpy"], SD["triton"] = numpy, triton
    SD["client"] = triton.InferenceServerClient("{address}")
    SD["outputs"] = [triton.InferRequestedOutput("total")]
x = SD["triton"].InferInput("x", [1, {features}], "FP32")
x.set_data_from_numpy(SD["numpy"].array([args], "f4"))
return SD["client"].infer("sum{features}", [x], outputs=SD["outputs"]).as_numpy("total")[0, 0]
$$
"""


def find_plpython(more: Sequence[Path]) -> Path | None:
    """Find the programs of a PostgreSQL that has plpython3u: one named by the caller, ours, Debian's newest."""
    candidates = [*more, default_places().bindir, *sorted(SYSTEM.glob("*/bin"), reverse=True)]
    return next((bindir for bindir in candidates if has_plpython(bindir)), None)


def has_plpython(bindir: Path) -> bool:
    """Tell whether the extension's control file is there."""
    with contextlib.suppress(OSError):
        command: list[str | Path] = [bindir / "pg_config", "--sharedir"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return result.returncode == 0 and (Path(result.stdout.strip()) / EXTENSION).exists()
    return False


@contextlib.contextmanager
def udf(label: str, address: str, bindir: Path | None) -> Iterator[Route | str]:
    """Start the PostgreSQL that has plpython3u and give the route, or the reason why there is none."""
    if bindir is None:
        yield "not available: no PostgreSQL with plpython3u here"
        return
    with contextlib.ExitStack() as started:
        try:
            with step("starting the PostgreSQL that has PL/Python"):
                postgres = started.enter_context(Postgres(bindir=bindir, name="bench-plpython"))
            session = started.enter_context(psycopg.connect(postgres.conninfo(), autocommit=True))
            create_function(session, address)
        except (Failure, psycopg.Error) as error:
            yield f"not available: {str(error).splitlines()[0]}"
            return
        table = create_table(session, "readings", FEATURES, ROWS)
        query = f"SELECT count(total), sum(total::double precision) FROM (SELECT {call()} AS total FROM readings) AS r"
        yield Route(label, functools.partial(timed, session, query), expect(session, table, ROWS))


def create_function(session: psycopg.Connection, address: str) -> None:
    """Make the function and call it once: imports and connection are not what is measured."""
    parameters = ", ".join(f"f{number} double precision" for number in range(1, FEATURES + 1))
    packages = site_packages(default_places().venv)
    session.execute(SESSION)
    session.execute("CREATE EXTENSION plpython3u")
    session.execute(
        FUNCTION.format(parameters=parameters, packages=packages, address=address, features=FEATURES).encode()
    )
    session.execute(f"SELECT score({', '.join(['0.5'] * FEATURES)})")


def call() -> str:
    """Write the call with a row's features."""
    return f"score({', '.join(f'f{number}' for number in range(1, FEATURES + 1))})"
