"""The image's commands in a plain root: Debian 13, with PostgreSQL 17 and Python 3.13 (make test-chroot).

What the Dockerfile copies is copied there, docker/install.sh run, all that is for building removed, and the entry point
run as process 1 of a namespace, as user postgres, with the image's environment. docker/train.sh makes the models for a
Triton whose Python has nothing else, and docker/demo.sql scores with them. Only the packages of the distribution, and
an engine, are not the image's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from test_docker import DOCKER, INIT_SCRIPTS, PASSWORD, ROOT, build_context, copied_sources, instructions

from dev.processes import free_ports
from dev.servers import Triton, default_places

SUITE, MIRROR, MAJOR = "trixie", "http://deb.debian.org/debian", "17"
HOME = f"/usr/lib/postgresql/{MAJOR}"
RUNTIME = ("postgresql-17", "python3", "libpython3.13")
BUILD = ("postgresql-server-dev-17", "gcc", "make", "python3-dev", "python3-venv")
# The machine's own certificates and name servers, through which it reaches the package registries.
SHARED = (Path("/etc/resolv.conf"), Path("/etc/ssl/certs/ca-certificates.crt"))
ENTER = (
    'root=$1 user=$2; shift 2; mount -t proc proc "$root/proc" && mount -t tmpfs tmpfs "$root/dev/shm" '
    '&& exec chroot --userspec="$user" "$root" env -i "$@"'
)
PREDICTIONS = ["malignant"] * 5


class Root:
    """A directory that is the root of processes in name spaces of their own: nothing of them stays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, words: Sequence[str], user: str, environment: dict[str, str]) -> list[str]:
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]
        return [*enter, str(self.path), user, *(f"{k}={v}" for k, v in environment.items()), *words]

    def run(self, *words: str, **environment: str) -> None:
        """Run as root; show the output of what fails."""
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **environment}
        command = self.command(words, "root:root", variables)
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert result.returncode == 0, f"{' '.join(words)}:\n{result.stdout[-5000:]}"

    def install(self, *packages: str) -> None:
        self.run("apt-get", "-qq", "update")
        options = ("-qq", "-y", "--no-install-recommends")
        self.run("apt-get", *options, "install", *packages, DEBIAN_FRONTEND="noninteractive")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


def directory(name: str) -> Path:
    """Make an empty directory where the servers' user can read."""
    path = default_places().home / "chroot" / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def image_environment() -> dict[str, str]:
    """The Dockerfile's ENV, with this root's PostgreSQL in the place of PGDG's."""
    (line,) = [rest for word, rest in instructions() if word == "ENV"]
    line = line.replace("/usr/pgsql-${PG_MAJOR}", HOME).replace("${PG_MAJOR}", MAJOR)
    return dict(re.findall(r"(\w+)=(\S+)", line))


def copy_sources(target: Path) -> None:
    """Copy what the Dockerfile copies, as far as the build context has it."""
    for name in build_context():
        if (ROOT / name).is_file() and any(name == s or name.startswith(f"{s}/") for s in copied_sources()):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest) -> Iterator[Root]:
    """A root in which the image's commands have run."""
    if not request.config.getoption("--chroot"):
        pytest.skip('takes minutes and Debian\'s mirror: "make test-chroot" runs it')
    if os.geteuid() != 0:
        pytest.skip("a root is made by root only: sudo make test-chroot")
    if shutil.which("debootstrap") is None:
        pytest.skip("needs debootstrap: apt-get install debootstrap")
    path = directory("root")
    made = Root(path)
    log = default_places().log / "debootstrap.log"
    with log.open("w") as file:
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(path), MIRROR]
        status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    assert status == 0, f"debootstrap failed: {log}"
    try:
        prepare(made)
        yield made
    finally:
        shutil.rmtree(path)


def prepare(root: Root) -> None:
    """Do what the Dockerfile does."""
    for file in SHARED:
        shutil.copy(file, root.path / file.relative_to("/"))
    root.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)  # no package starts a server
    root.install(*RUNTIME, *BUILD)
    copy_sources(root.path / "src")
    root.run("/src/docker/install.sh", f"{HOME}/bin/pg_config")
    # The second stage has neither the sources nor what compiled them.
    shutil.rmtree(root.path / "src")
    root.run("apt-get", "-qq", "-y", "purge", "--autoremove", *BUILD, DEBIAN_FRONTEND="noninteractive")
    shutil.copy(DOCKER / "entrypoint.sh", root.path / "usr/local/bin")
    root.run("sh", "-c", f"mkdir {INIT_SCRIPTS} /var/lib/pgsql && chown postgres: /var/lib/pgsql")


@pytest.fixture(scope="module")
def example(root: Root) -> Iterator[Path]:
    """What docker/train.sh makes, called twice: the second time it has nothing to do."""
    path = directory("example")
    environment = {**os.environ, "PATH": f"{default_places().triton_venv / 'bin'}:/usr/bin:/bin"}
    for _ in range(2):
        result = subprocess.run(
            [DOCKER / "train.sh", path], env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == ""
    yield path
    shutil.rmtree(path)


class ExampleTriton(Triton):
    """A Triton whose Python has nothing but what the example brings."""

    def __init__(self, example: Path) -> None:
        super().__init__([example / "models"], name="chroot-triton")
        self.python = example / "python"

    def _environment(self, home: Path) -> dict[str, str]:
        return {**super()._environment(home), "PATH": f"{self.python / 'bin'}:/usr/bin:/bin"}


@pytest.fixture(scope="module")
def triton(example: Path) -> Iterator[Triton]:
    with ExampleTriton(example) as triton:
        yield triton


class Server:
    """The entry point, running as process 1."""

    def __init__(self, root: Root, **environment: str) -> None:
        self.port = free_ports(1)[0]
        self.log = default_places().log / "chroot-postgres.log"
        command = ["entrypoint.sh", "-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1"]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                root.command(command, "postgres:postgres", {**image_environment(), **environment}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def connect(self) -> psycopg.Connection[Any]:
        """Wait until it accepts connections."""
        deadline = time.monotonic() + 120
        while True:
            try:
                return psycopg.connect(
                    host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", password=PASSWORD
                )
            except psycopg.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(self.log.read_text()) from error
                time.sleep(0.2)

    def stop(self) -> None:
        """Send process 1 what an engine sends; it must end by itself."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (stop,) = [rest for word, rest in instructions() if word == "STOPSIGNAL"]
        os.kill(int(children[0]), signal.Signals[stop])
        assert self.process.wait(60) == 0, self.log.read_text()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *unused: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def test_the_example_scores_in_another_distribution(root: Root, example: Path, triton: Triton) -> None:
    shutil.copytree(ROOT / "examples", root.path / "src" / "examples")
    (root.path / "example").mkdir()
    shutil.copy(example / "patients.csv", root.path / "example")
    demo = (DOCKER / "demo.sql").read_text()
    assert "grpc://triton:8001" in demo
    root.write(f"{INIT_SCRIPTS}/demo.sql", demo.replace("grpc://triton:8001", triton.url))
    query = b"SELECT diagnosis FROM patients NATURAL JOIN ml.breast_cancer WHERE malignant > benign ORDER BY id LIMIT 5"
    with Server(root, POSTGRES_PASSWORD=PASSWORD) as server:
        with server.connect() as connection:
            assert [row[0] for row in connection.execute(query)] == PREDICTIONS
            plan = "\n".join(line for (line,) in connection.execute(b"EXPLAIN " + query))
            assert "Custom Scan (Model Join)" in plan
            embeddings = connection.execute("SELECT cardinality(embedding) FROM ml.embedder WHERE text = 'a'")
            assert embeddings.fetchall() == [(384,)]
        server.stop()
    log = server.log.read_text()
    assert len(re.findall(r"^ +\d+ \|.*\| malignant$", log, re.MULTILINE)) == 5, log
    assert "WARNING" not in log
    with Server(root) as server:
        with server.connect() as connection:
            assert [row[0] for row in connection.execute(query)] == PREDICTIONS
        server.stop()
    assert "running" not in server.log.read_text()
