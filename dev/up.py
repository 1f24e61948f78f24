"""The servers of "make up": started once, left running, stopped by "make down"."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from dev.build import changed, digest_of, files_of
from dev.environments import write_last
from dev.places import CHECKOUT, Places
from dev.processes import Running, is_listening
from dev.screen import Failure, say, step
from dev.servers import Postgres, Triton, answers

DATABASE = "demo"
EXAMPLES = CHECKOUT / "examples"
# The tables and models that README.md and docs/ take for granted.
DOCUMENTS = CHECKOUT / "tests" / "documents"
# As examples/connect.sql, at any time after it as well; IMPORT leaves the tables that are there.
CONNECT = """
CREATE EXTENSION IF NOT EXISTS model_fdw;
CREATE SERVER IF NOT EXISTS triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url :'url');
ALTER SERVER triton OPTIONS (SET url :'url');
CREATE SCHEMA IF NOT EXISTS ml;
IMPORT FOREIGN SCHEMA models FROM SERVER triton INTO ml;
"""


def up(places: Places) -> None:
    """Start of PostgreSQL and Triton what does not run, on the ports that it had, and write .run/env."""
    own = own_models()
    postgres = Postgres(data=places.clusters / "up", name="up-postgres", places=places)
    repositories = [places.models, DOCUMENTS / "models", *own]
    triton = Triton(repositories, name="up-triton", places=places)
    running, ports = read_state(places), read_ports(places)
    if adopt_healthy(postgres, triton, running, ports, renew_triton=bool(own)):
        say("The servers are running already.")
    else:
        start_missing(places, postgres, triton)
    say(f"Their addresses are in {places.env_file.relative_to(CHECKOUT)}; a session: make psql")


def own_models() -> list[Path]:
    """Name the model repository to serve beside the examples, the variable MODELS."""
    named = os.environ.get("MODELS")
    if named and not Path(named).is_dir():
        raise Failure(f'"{named}" is not a directory', hint="MODELS=/path/to/a/model/repository")
    return [Path(named)] if named else []


def adopt_healthy(
    postgres: Postgres, triton: Triton, running: Mapping[str, Running], ports: Mapping[str, int], *, renew_triton: bool
) -> bool:
    """Take over what runs and answers; stop what does not, and give it its ports again where these are free."""
    healthy = {
        "PostgreSQL": lambda: is_listening(ports["postgres"]),
        "Triton": lambda: not renew_triton and answers(ports["http"]),
    }
    well = {name for name, server in running.items() if ports and server.alive() and healthy[name]()}
    for name, server in running.items():
        if name not in well:
            server.stop()
    if "PostgreSQL" in well:
        postgres.running = running["PostgreSQL"]
    if "PostgreSQL" in well or are_free(ports, "postgres"):
        postgres.port = ports["postgres"]
    if "Triton" in well:
        triton.running = running["Triton"]
    if "Triton" in well or are_free(ports, "grpc", "http", "metrics"):
        triton.grpc_port, triton.http_port, triton.metrics_port = (ports[key] for key in ("grpc", "http", "metrics"))
    return len(well) == 2


def start_missing(places: Places, postgres: Postgres, triton: Triton) -> None:
    """Start the servers that do not run; where something fails, leave none of these behind."""
    with contextlib.ExitStack() as started:
        if postgres.running is None:
            with step("starting PostgreSQL"):
                started.enter_context(postgres)
        if triton.running is None:
            with step("starting Triton"):
                started.enter_context(triton)
        with step(f'preparing database "{DATABASE}"'):
            is_new = prepare_database(postgres, triton.url, places.patients, places.clusters / "up.stamp")
        if not is_new:
            say(f'The SQL of the extension has changed since database "{DATABASE}" has it. To have the new one:')
            say("DROP EXTENSION model_fdw CASCADE, which drops all model tables and what is built on them, and make up")
        write_state(places, postgres.running, triton.running)
        write_env(places, postgres, triton)
        started.pop_all()
    postgres.leave_running()
    triton.leave_running()


def are_free(ports: Mapping[str, int], *names: str) -> bool:
    """Tell whether the ports of the last time are known, and nobody listens there now."""
    return bool(ports) and not any(is_listening(ports[name]) for name in names)


def prepare_database(postgres: Postgres, url: str, csv: Path, stamp: Path) -> bool:
    """Make what is missing in the database; what is there stays as it is, as it may be the user's.

    Return whether the extension is there with the SQL of now.

    url: of the model server. csv: the rows of table "patients". stamp: the file that tells the extension's SQL.
    """
    exists = postgres.psql("-c", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")
    if not exists.strip():
        postgres.psql("-c", f"CREATE DATABASE {DATABASE}")
    run = SqlRunner(postgres, {"csv": str(csv), "url": url})
    if not run.finds("pg_class WHERE oid = to_regclass('public.patients')"):
        run.file(EXAMPLES / "patients.sql")
    run.file(DOCUMENTS / "scenario.sql")
    digest = digest_of(files_of(["sql"]))
    if not run.finds("pg_extension WHERE extname = 'model_fdw'"):
        write_last(stamp, digest)
    run.command(CONNECT)
    return not changed(stamp, digest)


class SqlRunner:
    """Runs psql in the database with the variables that the example files use."""

    def __init__(self, postgres: Postgres, variables: Mapping[str, str]) -> None:
        """Keep the server and the variables."""
        self._postgres = postgres
        self._set = [part for item in variables.items() for part in ("-v", "=".join(item))]

    def file(self, path: Path) -> None:
        """Run a file."""
        self._postgres.psql(*self._set, "-f", path, database=DATABASE)

    def finds(self, rows: str) -> bool:
        """Tell whether a table, with a WHERE, has a row."""
        return bool(self._postgres.psql("-c", f"SELECT 1 FROM {rows}", database=DATABASE).strip())

    def command(self, sql: str) -> None:
        """Run statements; psql replaces variables only in files, so it is given one."""
        self._postgres.psql(*self._set, "-f", "-", database=DATABASE, text=sql)


def down(places: Places) -> None:
    """Stop exactly the processes that "make up" started."""
    if not stop_all(places):
        say("No servers of this checkout are running.")


def stop_all(places: Places) -> bool:
    """Stop what the state file names; tell whether anything was running."""
    running = read_state(places)
    alive = [name for name, server in running.items() if server.alive()]
    for name, server in running.items():
        # One that has crashed leaves helpers and files.
        with step(f"stopping {name}") if name in alive else contextlib.nullcontext():
            server.stop()
    places.env_file.unlink(missing_ok=True)
    places.state.unlink(missing_ok=True)
    return bool(alive)


def write_state(places: Places, postgres: Running | None, triton: Running | None) -> None:
    """Note the processes, so that another process can stop them."""
    servers = {"PostgreSQL": postgres, "Triton": triton}
    state = {name: server.as_dict() for name, server in servers.items() if server is not None}
    write_last(places.state, json.dumps(state, indent=1))


def read_state(places: Places) -> dict[str, Running]:
    """Read the processes that were noted; none where there is no note."""
    if not places.state.exists():
        return {}
    state = json.loads(places.state.read_text())
    return {name: Running.from_dict(fields) for name, fields in state.items()}


def write_env(places: Places, postgres: Postgres, triton: Triton) -> None:
    """Write the addresses as shell assignments."""
    env = {
        **postgres.environment(DATABASE),
        "TRITON_GRPC": triton.grpc,
        "TRITON_HTTP": triton.http,
        "TRITON_METRICS": f"http://{triton.metrics}/metrics",
    }
    ports = {
        "postgres": postgres.port,
        "grpc": triton.grpc_port,
        "http": triton.http_port,
        "metrics": triton.metrics_port,
    }
    write_last(places.ports, json.dumps(ports))
    write_last(places.env_file, "".join(f"{key}={shlex.quote(env[key])}\n" for key in env))


def read_ports(places: Places) -> dict[str, int]:
    """Read the ports of the last time; none where there was none."""
    return json.loads(places.ports.read_text()) if places.ports.exists() else {}


def read_env(places: Places) -> dict[str, str]:
    """Read the addresses of the running servers."""
    if not places.env_file.exists():
        raise Failure("the servers are not running", hint='start them with "make up"')
    return dict(assignments(places.env_file.read_text()))


def assignments(text: str) -> Iterator[tuple[str, str]]:
    """Take shell assignments apart."""
    for word in shlex.split(text):
        key, _, value = word.partition("=")
        yield key, value
