"""Private PostgreSQL and Triton servers, for people ("make up"), for tests and for benchmarks.

    with Postgres() as postgres, Triton([places.models]) as triton:
        psycopg.connect(postgres.conninfo("postgres"))

Each server listens on free ports of the loopback address, keeps its files in places of its own, runs as
an unprivileged user where we are root, and ends with the process that started it, however that ends.
There are no passwords: whoever has an account on the machine can connect.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dev.environments import site_packages, triton_server
from dev.places import Places, find_places
from dev.processes import Leash, Running, free_ports, launch, private_directory, remove, tie
from dev.screen import Failure, run_logged

HOST = "127.0.0.1"
SUPERUSER = "postgres"
ATTEMPTS = 3
POSTGRES_START_S = 60
SLOWDOWN = 10  # of a server that runs under a tool
TRITON_START_S = 120
POLL_S = 0.05

# A crash of the machine loses a private cluster; nobody minds.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@functools.cache
def default_places() -> Places:
    """Find this checkout's places once a process."""
    places = find_places()
    places.create()
    return places


def server_environment(home: Path, **more: str) -> dict[str, str]:
    """Give a server nothing of the caller's environment: no proxies, no PGDATA, no PYTHONPATH."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        **more,
    }


def await_ready(running: Running, ready: Callable[[], bool], timeout_s: float, name: str, log: Path) -> None:
    """Wait until a server says that it is ready; explain where it ends, end it where it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not running.alive():
            raise Failure(f"{name} ended while it was starting", log=log)
        if time.monotonic() > deadline:
            running.kill()
            raise Failure(f"{name} was not ready after {timeout_s:.0f} s", log=log)
        time.sleep(POLL_S)


def with_free_ports(count: int, log: Path, start: Callable[[list[int]], None]) -> None:
    """Start a server on free ports; try others where somebody else took one in the meantime."""
    for attempt in range(1, ATTEMPTS + 1):
        log.unlink(missing_ok=True)
        try:
            start(free_ports(count))
        except Failure:
            if attempt == ATTEMPTS or "already in use" not in log.read_text().lower():
                raise
        else:
            return


class Postgres:
    """A PostgreSQL cluster of our own.

    bindir: the programs of the PostgreSQL to run; those of places by default.
    data: the data directory, kept at the end, made where it does not exist; a new one, removed at the
    end, by default.
    settings: configuration parameters in addition to SETTINGS.
    variables: of the server's environment, in addition to the usual ones.
    under: the command that runs the server, a tool that looks for errors in it, say.
    name: the name of the log in .run/log.
    """

    def __init__(
        self,
        *,
        bindir: Path | None = None,
        data: Path | None = None,
        settings: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        name: str = "postgres",
        places: Places | None = None,
    ) -> None:
        """Only describe the cluster; start() makes it."""
        self.places = places or default_places()
        self.bindir = bindir or self.places.bindir
        self.settings = {**SETTINGS, **(settings or {})}
        self.variables = dict(variables or {})
        self.under = tuple(under)
        self.host, self.user, self.port = HOST, SUPERUSER, 0
        self.log = self.places.log / f"{name}.log"
        self.running: Running | None = None
        self.socket_directory: Path | None = None
        self._kept_data = data
        self.data: Path | None = data
        self._leash: Leash | None = None

    def start(self) -> None:
        """Start the cluster, and return when it accepts connections; it ends with this process."""
        try:
            if self.port:
                self._start([self.port])
            else:
                with_free_ports(1, self.log, self._start)
        except BaseException:
            self.stop()
            raise

    def _start(self, ports: list[int]) -> None:
        account = self.places.account
        self.socket_directory = self.socket_directory or private_directory(account)
        self.data = self.data or self.places.clusters / self.socket_directory.name
        self._initialise(self.data)
        settings = {
            **self.settings,
            "listen_addresses": HOST,
            "port": str(ports[0]),
            "unix_socket_directories": str(self.socket_directory),
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        self.running = launch(
            [*self.under, self.bindir / "postgres", "-D", self.data, *options],
            account=account,
            environment=server_environment(self.socket_directory, **self.variables),
            directory=self.socket_directory,
            log=self.log,
            stop_signal=signal.SIGINT,
            leftovers=self._leftovers(),
        )
        self._tie()
        timeout_s = POSTGRES_START_S * (SLOWDOWN if self.under else 1)
        await_ready(self.running, self._is_ready, timeout_s, "PostgreSQL", self.log)
        self.port = ports[0]

    def _tie(self) -> None:
        self.leave_running()
        assert self.running is not None
        self._leash = tie(self.running)

    def leave_running(self) -> None:
        """Let the server outlive this process; self.running says how to stop it."""
        if self._leash is not None:
            self._leash.drop()
            self._leash = None

    def _leftovers(self) -> list[str]:
        data = [] if self._kept_data or not self.data else [str(self.data)]
        return [*data, str(self.socket_directory)] if self.socket_directory else data

    def _initialise(self, data: Path) -> None:
        """Make the data directory, unless it is there; whole or not at all."""
        if (data / "PG_VERSION").exists():
            # What a killed server left: its number may belong to somebody else by now.
            (data / "postmaster.pid").unlink(missing_ok=True)
            return
        draft = data.with_name(data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self.places.account.own(draft)
        command: list[str | Path] = [self.bindir / "initdb", "--pgdata", draft, "--username", SUPERUSER]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        run_logged(
            command,
            self.log,
            "could not make a PostgreSQL cluster",
            environment=server_environment(draft),
            append=True,
            popen_arguments=self.places.account.popen_arguments(),
        )
        draft.rename(data)

    def _is_ready(self) -> bool:
        """Read the status line of postmaster.pid, as pg_ctl does."""
        assert self.data is not None
        assert self.running is not None
        with contextlib.suppress(OSError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return lines[:1] == [str(self.running.pid)] and lines[7:8] == ["ready   "]
        return False

    def stop(self) -> None:
        """Stop the server and remove its files; nothing happens where it is not running."""
        running, self.running = self.running, None
        if running is not None:
            running.stop()
        remove(self._leftovers())
        if self._leash is not None:
            self._leash.release()
            self._leash = None
        self.socket_directory, self.port, self.data = None, 0, self._kept_data

    def kill(self) -> None:
        """End the server at once, as a crash would; start() brings it back on the same port."""
        assert self.running is not None
        self.running.kill()

    def environment(self, database: str) -> dict[str, str]:
        """Give the variables with which any client finds a database."""
        port = str(self.port)
        return {"PGHOST": HOST, "PGPORT": port, "PGUSER": SUPERUSER, "PGDATABASE": database}

    def conninfo(self, database: str = "postgres") -> str:
        """Give the connection string of a database."""
        return f"host={HOST} port={self.port} user={SUPERUSER} dbname={database}"

    def run(self, program: str, *arguments: str | Path, database: str = "postgres", text: str = "") -> str:
        """Run a client program of this PostgreSQL and return its output; one that fails is a failure.

        text: the standard input.
        """
        result = subprocess.run(
            [self.bindir / program, *arguments],
            env=server_environment(Path("/"), **self.environment(database)),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise Failure(f"{program}: {result.stderr.strip()}", log=self.log)
        return result.stdout

    def psql(self, *arguments: str | Path, database: str = "postgres", text: str = "") -> str:
        """Run psql without a start-up file, as run() does; a statement that fails ends it."""
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
        return self.run("psql", *options, *arguments, database=database, text=text)

    def __enter__(self) -> Postgres:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()


class Triton:
    """A Triton server of our own, with the models of the given repositories.

    models: model repositories; they are copied, so that self.repository can be changed freely.
    arguments: options of tritonserver in addition.
    name: the name of the log in .run/log.

    All models are loaded at the start; load() and unload() change that. kill() and start() bring the
    server down and back on the same ports.
    """

    def __init__(
        self,
        models: Sequence[Path],
        *,
        arguments: Sequence[str] = (),
        name: str = "triton",
        places: Places | None = None,
    ) -> None:
        """Only describe the server; start() starts it."""
        self.places = places or default_places()
        self.models, self.arguments = list(models), list(arguments)
        self.grpc_port = self.http_port = self.metrics_port = 0
        self.log = self.places.log / f"{name}.log"
        self.running: Running | None = None
        self.directory: Path | None = None
        self._leash: Leash | None = None

    @property
    def grpc(self) -> str:
        """Give host:port of the gRPC endpoint."""
        return f"{HOST}:{self.grpc_port}"

    @property
    def http(self) -> str:
        """Give host:port of the HTTP endpoint."""
        return f"{HOST}:{self.http_port}"

    @property
    def metrics(self) -> str:
        """Give host:port of the metrics."""
        return f"{HOST}:{self.metrics_port}"

    @property
    def url(self) -> str:
        """Give the value of the foreign server's option "url"."""
        return f"grpc://{self.grpc}"

    @property
    def repository(self) -> Path:
        """Name the server's own copy of the models."""
        assert self.directory is not None
        return self.directory / "models"

    def start(self) -> None:
        """Start the server, and return when all models are ready; it ends with this process."""
        try:
            if self.grpc_port:
                self._start([self.grpc_port, self.http_port, self.metrics_port])
            else:
                with_free_ports(3, self.log, self._start)
        except BaseException:
            self.stop()
            raise

    def _start(self, ports: list[int]) -> None:
        if self.directory is None:
            self.directory = private_directory(self.places.account)
            copy_models(self.models, self.repository)
        if self.running is not None:
            self.running.kill()  # one that has crashed leaves its models' processes
        self.running = launch(
            [triton_server(self.places) / "bin" / "tritonserver", *self._options(ports)],
            account=self.places.account,
            environment=self._environment(self.directory),
            directory=self.directory,
            log=self.log,
            stop_signal=signal.SIGTERM,
            leftovers=self._leftovers(),
        )
        self._tie()
        ready = functools.partial(answers, ports[1])
        await_ready(self.running, ready, TRITON_START_S, "Triton", self.log)
        self.grpc_port, self.http_port, self.metrics_port = ports

    @property
    def _memory_prefix(self) -> str:
        # Its own, so that what it leaves in shared memory can be told from another server's.
        assert self.directory is not None
        return f"{self.directory.name}-"

    def _tie(self) -> None:
        self.leave_running()
        assert self.running is not None
        self._leash = tie(self.running)

    def leave_running(self) -> None:
        """Let the server outlive this process; self.running says how to stop it."""
        if self._leash is not None:
            self._leash.drop()
            self._leash = None

    def _leftovers(self) -> list[str]:
        if self.directory is None:
            return []
        return [str(self.directory), f"/dev/shm/{self._memory_prefix}*"]

    def _options(self, ports: Sequence[int]) -> list[str]:
        grpc, http, metrics = ports
        return [
            f"--model-repository={self.repository}",
            f"--backend-directory={self.places.backends}",
            f"--backend-config=python,shm-region-prefix-name={self._memory_prefix}",
            # Loading on request, with everything loaded at the start.
            "--model-control-mode=explicit",
            "--load-model=*",
            # Guessing would start every model twice: 9 s instead of 2 s.
            "--disable-auto-complete-config",
            f"--grpc-address={HOST}",
            f"--grpc-port={grpc}",
            f"--http-address={HOST}",
            f"--http-port={http}",
            f"--metrics-address={HOST}",
            f"--metrics-port={metrics}",
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=5",
            *self.arguments,
        ]

    def _environment(self, home: Path) -> dict[str, str]:
        venv = self.places.triton_venv
        libraries = [site_packages(venv) / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
        return server_environment(
            home,
            # The stub asks the first python3 in PATH for its packages.
            PATH=f"{venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            LD_LIBRARY_PATH=":".join(map(str, libraries)),
            # One model is one thread: the server runs many.
            OPENBLAS_NUM_THREADS="1",
            OMP_NUM_THREADS="1",
            PYTHONDONTWRITEBYTECODE="1",
        )

    def stop(self) -> None:
        """Stop the server and remove its files; nothing happens where it is not running."""
        running, self.running = self.running, None
        if running is not None:
            running.stop()
        remove(self._leftovers())
        if self._leash is not None:
            self._leash.release()
            self._leash = None
        self.directory = None
        self.grpc_port = self.http_port = self.metrics_port = 0

    def kill(self) -> None:
        """End the server and its models at once; start() brings it back on the same ports."""
        assert self.running is not None
        self.running.kill()

    def pause(self) -> None:
        """Let the server accept connections and never answer."""
        assert self.running is not None
        self.running.send_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self.running is not None
        self.running.send_group(signal.SIGCONT)

    def load(self, model: str, config: Mapping[str, Any] | None = None) -> None:
        """Load a model, or load it anew, as its files or the given configuration say."""
        parameters = {"parameters": {"config": json.dumps(config)}} if config else {}
        self._call(f"/v2/repository/models/{model}/load", parameters)

    def unload(self, model: str) -> None:
        """Unload a model and wait until it is gone."""
        self._call(f"/v2/repository/models/{model}/unload", {})
        deadline = time.monotonic() + TRITON_START_S
        while any(entry["name"] == model and entry.get("state") != "UNAVAILABLE" for entry in self.index()):
            if time.monotonic() > deadline:
                raise Failure(f'model "{model}" does not unload', log=self.log)
            time.sleep(POLL_S)

    def index(self) -> list[dict[str, str]]:
        """List the models: name, version, state, reason."""
        entries: list[dict[str, str]] = json.loads(self._call("/v2/repository/index", {}))
        return entries

    def _call(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Send a request of Triton's repository extension."""
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=TRITON_START_S)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise Failure(f"Triton refused {path}: {answer.decode(errors='replace')}", log=self.log)
        return answer

    def __enter__(self) -> Triton:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()


def answers(http_port: int) -> bool:
    """Ask a Triton whether it and all its models are ready."""
    connection = http.client.HTTPConnection(HOST, http_port, timeout=1)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def copy_models(repositories: Sequence[Path], target: Path) -> None:
    """Copy model repositories into one that the server's user can read."""
    for repository in repositories:
        shutil.copytree(repository, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    make_readable(target)


def make_readable(root: Path) -> None:
    """Open a file, or a directory with all in it, to the servers' user, whatever our umask is."""
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
