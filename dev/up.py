"""The servers of "make up": started once, left running, stopped by "make down"."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from dev.build import digest_of, files_of
from dev.environments import write_last
from dev.places import CHECKOUT, Places
from dev.processes import Running, is_listening
from dev.screen import Failure, say, step
from dev.servers import Postgres, Triton, answers

DATABASE = "demo"
EXAMPLES = CHECKOUT / "examples"


def up(places: Places) -> None:
    """Start PostgreSQL and Triton, unless they run already, and write .run/env."""
    running = read_state(places)
    if len(running) == 2 and are_healthy(places, running):
        say("The servers are running already.")
    else:
        stop_all(places)
        start_all(places)
    say(f"Their addresses are in {places.env_file.relative_to(CHECKOUT)}; a session: make psql")


def start_all(places: Places) -> None:
    """Start both servers; where something fails, leave none behind."""
    postgres = Postgres(data=places.clusters / "up", name="up-postgres", places=places)
    triton = Triton([places.models], name="up-triton", places=places)
    with contextlib.ExitStack() as started:
        with step("starting PostgreSQL"):
            started.enter_context(postgres)
        with step("starting Triton"):
            started.enter_context(triton)
        with step(f'preparing database "{DATABASE}"'):
            prepare_database(places, postgres, triton)
        write_state(places, postgres.running, triton.running)
        write_env(places, postgres, triton)
        started.pop_all()
    postgres.leave_running()
    triton.leave_running()


def prepare_database(places: Places, postgres: Postgres, triton: Triton) -> None:
    """Make the database once; its foreign server again where the extension's SQL has changed."""
    exists = postgres.psql("-c", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")
    if not exists.strip():
        postgres.psql("-c", f"CREATE DATABASE {DATABASE}")
    run = SqlRunner(postgres, {"csv": str(places.patients), "url": triton.url})
    stamp, digest = places.clusters / "up.stamp", digest_of(files_of(("sql", "examples")))
    if exists.strip() and stamp.exists() and stamp.read_text() == digest:
        run.command("ALTER SERVER triton OPTIONS (SET url :'url')")
        return
    run.command("DROP EXTENSION IF EXISTS model_fdw CASCADE")
    run.command("DROP SCHEMA IF EXISTS ml CASCADE")
    run.file(EXAMPLES / "patients.sql")
    run.file(EXAMPLES / "connect.sql")
    write_last(stamp, digest)


class SqlRunner:
    """Runs psql in the database with the variables that the example files use."""

    def __init__(self, postgres: Postgres, variables: Mapping[str, str]) -> None:
        """Keep the server and the variables."""
        self._postgres = postgres
        self._set = [part for item in variables.items() for part in ("-v", "=".join(item))]

    def file(self, path: Path) -> None:
        """Run a file."""
        self._postgres.psql(*self._set, "-f", path, database=DATABASE)

    def command(self, sql: str) -> None:
        """Run a statement; psql replaces variables only in files, so it is given one."""
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


def are_healthy(places: Places, running: Mapping[str, Running]) -> bool:
    """Tell whether both servers are there and answer at the addresses in .run/env."""
    if not all(server.alive() for server in running.values()) or not places.env_file.exists():
        return False
    env = read_env(places)
    return is_listening(int(env["PGPORT"])) and answers(int(env["TRITON_HTTP"].rpartition(":")[2]))


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
    write_last(places.env_file, "".join(f"{key}={shlex.quote(env[key])}\n" for key in env))


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
