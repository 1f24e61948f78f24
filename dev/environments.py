"""Make the two virtual environments, each whole or not there at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev import prerequisites
from dev.places import CHECKOUT, Places, base_python, tool_environment
from dev.screen import Failure, run_logged, step

REQUIREMENTS = Path(__file__).parent


@dataclass(frozen=True)
class Environment:
    """A virtual environment as it ought to be."""

    label: str
    path: Path
    python: Path
    requirements: Path
    log: Path
    pip_options: Sequence[str] = ()

    @property
    def stamp(self) -> Path:
        """Name the file that is written last: without it the environment counts as half-made."""
        return self.path / "installed"

    def recipe(self) -> str:
        """Describe all that the environment was made from; a change means a new one."""
        digest = hashlib.sha256(self.requirements.read_bytes()).hexdigest()
        return f"{self.path}\n{self.python.resolve()}\n{digest}\n"

    def is_whole(self) -> bool:
        """Compare the stamp with the recipe, and see that the interpreter is still there."""
        stamped = self.stamp.exists() and self.stamp.read_text() == self.recipe()
        return stamped and (self.path / "bin" / "python").exists()

    def make(self) -> None:
        """Install everything anew."""
        shutil.rmtree(self.path, ignore_errors=True)
        environment = tool_environment()
        command: list[str | Path] = [self.python, "-m", "venv", self.path]
        run_logged(command, self.log, f"could not make {self.path}", environment=environment)
        pip: list[str | Path] = [self.path / "bin" / "python", "-m", "pip", "install", "--no-input"]
        run_logged(
            [*pip, *self.pip_options, "--requirement", self.requirements],
            self.log,
            f"could not install the packages of dev/{self.requirements.name}",
            environment=environment,
            hint="the packages come from PyPI: check the network, or pip's own settings",
            append=True,
        )
        write_last(self.stamp, self.recipe())


def write_last(stamp: Path, text: str) -> None:
    """Write a stamp in one move, so that an interruption leaves none."""
    draft = stamp.with_name(stamp.name + ".new")
    draft.write_text(text)
    draft.replace(stamp)


def ensure(places: Places) -> None:
    """Make the environments that are missing, half-made or out of date."""
    project = Environment(
        "installing PostgreSQL and Python packages",
        places.venv,
        base_python(),
        REQUIREMENTS / "requirements.txt",
        places.log / "venv.log",
    )
    if not project.is_whole():
        with step(project.label):
            project.make()
            for bindir in (places.embedded_bindir, places.embedded_18_bindir):
                allow_running(bindir)
    triton = Environment(
        "installing Triton",
        places.triton_venv,
        prerequisites.triton_python(),
        REQUIREMENTS / "requirements-triton.txt",
        places.log / "triton-venv.log",
        ("--no-deps",),
    )
    if not triton.is_whole():
        with step(triton.label):
            triton.make()
            shutil.rmtree(places.backends, ignore_errors=True)
    if not (places.backends / "python" / "complete").exists():
        arrange_backend(places)


def ensure_peers(places: Places) -> None:
    """Make the environments of other servers, which only the tests of these need."""
    ensure_named(places, {"MLServer": places.mlserver_venv, "KServe": places.kserve_venv})


def ensure_clients(places: Places) -> None:
    """Make the environments of the clients of examples/clients; node-pg only where npm is."""
    ensure_named(places, {"psycopg and pandas": places.clients_venv, "dbt": places.dbt_venv})
    npm = shutil.which("npm")
    package = CHECKOUT / "examples" / "clients" / "package.json"
    directory = places.node_modules.parent
    stamp, wanted = directory / "installed", package.read_text()
    if npm is None or (stamp.exists() and stamp.read_text() == wanted):
        return
    with step("installing node-pg"):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        shutil.copy(package, directory)
        run_logged(
            [npm, "install", f"--prefix={directory}", "--no-audit", "--no-fund"],
            places.log / "node.log",
            "could not install node-pg",
            environment=tool_environment(),
            hint="it comes from npm's registry: check the network, or npm's own settings",
        )
        write_last(stamp, wanted)


def ensure_named(places: Places, environments: Mapping[str, Path]) -> None:
    """Make environments of the packages in dev/requirements-NAME.txt, where NAME is that of the directory."""
    for name, venv in environments.items():
        environment = Environment(
            f"installing {name}",
            venv,
            base_python(),
            REQUIREMENTS / f"requirements-{venv.name}.txt",
            places.log / f"{venv.name}-venv.log",
        )
        if not environment.is_whole():
            with step(environment.label):
                environment.make()


def allow_running(bindir: Path) -> None:
    """Mark PostgreSQL's programs as executable, whatever unpacked them."""
    for program in bindir.iterdir():
        program.chmod(0o755)


def arrange_backend(places: Places) -> None:
    """Put the Python backend beside the stub of its Python's version, as the server expects it."""
    server = triton_server(places)
    version = server.parents[2].name.removeprefix("python")
    target = places.backends / "python"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(server / "backends" / "python", target)
    stub = target / "triton_python_backend_stub"
    shutil.copy(server / "python_backend_stubs" / version / stub.name, stub)
    stub.chmod(0o755)
    write_last(target / "complete", "")


def site_packages(venv: Path) -> Path:
    """Name the directory of an environment's packages."""
    found = sorted(venv.glob("lib/python3*/site-packages"))
    if not found:
        raise Failure(f"{venv} is not installed", hint='run "make build"')
    return found[0]


def triton_server(places: Places) -> Path:
    """Name the directory of the server inside the wheel."""
    return site_packages(places.triton_venv) / "pytriton" / "tritonserver"
