"""The image and the Compose files of docker/: read everywhere, built and run where a Docker engine is.

Everywhere: what the Dockerfile copies is in its build context, what the Compose files mount is there, and the entry
point does what the documentation says, with the tested PostgreSQL in the place of the image's. With an engine
(testcontainers): the image is built, and the example gives its predictions. test_chroot.py runs the image's commands
in a plain root.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from docker.utils.build import exclude_paths
from ruamel.yaml import YAML
from testcontainers.compose import DockerCompose
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy

from dev.build import NATIVE, PACKAGE, files_of
from dev.processes import Running, free_ports, launch, private_directory
from dev.servers import await_ready, default_places

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE_FILES = sorted(DOCKER.glob("compose*.yaml"))
INIT_SCRIPTS = "/docker-entrypoint-initdb.d"
PASSWORD = "a password with 'quotes' and $pace"


# What can be read


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def build_context() -> set[str]:
    """The files that an engine would be sent."""
    return set(exclude_paths(str(ROOT), (ROOT / ".dockerignore").read_text().splitlines()))


def copied_sources() -> list[str]:
    """What the Dockerfile copies from the checkout."""
    copies = [rest.split() for word, rest in instructions() if word == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def test_every_copied_file_is_in_the_build_context() -> None:
    context = build_context()
    assert copied_sources()
    assert [source for source in copied_sources() if source not in context] == []


def test_the_build_stage_has_all_that_make_install_needs() -> None:
    copied = tuple(copied_sources())
    needed = {str(path.relative_to(ROOT)) for path in files_of([*NATIVE, *PACKAGE, "dev", "Makefile"])}
    assert [name for name in needed if not (name in copied or name.startswith(tuple(f"{c}/" for c in copied)))] == []
    assert needed <= build_context()


def test_nothing_private_is_in_the_build_context() -> None:
    parts = {part for name in build_context() for part in Path(name).parts}
    assert parts.isdisjoint({".git", ".run", "tests", "__pycache__"})


def test_each_stage_that_uses_the_version_declares_it() -> None:
    declared = False
    for word, rest in instructions():
        if word == "FROM":
            declared = False
        elif word == "ARG" and rest == "PG_MAJOR":
            declared = True
        elif "PG_MAJOR" in rest and word != "ARG":
            assert declared, rest


def test_base_images_are_pinned() -> None:
    stages = {rest.split()[2] for word, rest in instructions() if word == "FROM" and " AS " in rest}
    images = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert all(re.search(r":\d+\.\d+", image) for image in images if image not in stages)


def test_what_the_final_stage_copies_is_where_it_was_installed() -> None:
    script = (DOCKER / "install.sh").read_text()
    sources = [rest.split()[1] for word, rest in instructions() if word == "COPY" and rest.startswith("--from=build")]
    home = "/usr/pgsql-${PG_MAJOR}"  # where PGDG's packages are; test_chroot.py asks another pg_config
    assert sources == ["/opt/model_fdw", f"{home}/lib/model_fdw.so", f"{home}/share/extension/model_fdw*"]
    assert "-m venv /opt/model_fdw" in script
    assert f"RUN docker/install.sh {home}/bin/pg_config" in [f"{w} {r}".replace('"', "") for w, r in instructions()]


@pytest.mark.parametrize("script", sorted(DOCKER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_executable_and_parse(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True)


def compose(path: Path = DOCKER / "compose.yaml") -> dict[str, Any]:
    parsed: dict[str, Any] = YAML(typ="safe").load(path)
    return parsed


SERVICES = compose()["services"]


def mounts(service: str) -> list[list[str]]:
    return [volume.split(":") for volume in SERVICES[service].get("volumes", [])]


def test_images_of_services_are_pinned() -> None:
    control = (ROOT / "sql" / "model_fdw.control").read_text()
    version = re.search(r"default_version = '(.+)'", control)
    major = re.search(r"^ARG PG_MAJOR=(\d+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert version
    assert major
    assert SERVICES["postgres"]["image"] == f"model_fdw:{version[1]}-pg{major[1]}"
    assert re.fullmatch(r"nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", SERVICES["triton"]["image"])
    # What the models import is installed by the Python that will run them.
    assert SERVICES["models"]["image"] == SERVICES["triton"]["image"]


@pytest.mark.parametrize("service", SERVICES)
def test_what_services_mount_is_there(service: str) -> None:
    for source, target, *mode in mounts(service):
        assert target.startswith("/")
        if source.startswith("."):
            assert (DOCKER / source).exists(), source
            assert mode == ["ro"], source
        else:
            assert source in compose()["volumes"]


@pytest.mark.parametrize("service", SERVICES)
def test_services_wait_for_what_can_become_true(service: str) -> None:
    for name, dependency in SERVICES[service].get("depends_on", {}).items():
        assert name in SERVICES
        if dependency["condition"] == "service_healthy":
            assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_the_services_are_built_and_reached_as_they_should() -> None:
    build = SERVICES["postgres"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DOCKERFILE
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert [port.rpartition(":")[0] for port in published] == ["127.0.0.1:5432"]
    assert compose(DOCKER / "compose.gpu.yaml")["services"].keys() <= SERVICES.keys()


def test_paths_of_the_example_fit_together() -> None:
    """Where one service writes, the other reads; what SQL and commands name is mounted."""
    seen = {target: source for source, target, *_ in mounts("postgres")}
    sql = (DOCKER / "demo.sql").read_text()
    for name in re.findall(r"^\\i (\S+)$", sql, re.MULTILINE):
        assert (DOCKER / seen["/src/examples"] / Path(name).relative_to("/src/examples")).exists()
    directory = SERVICES["models"]["command"][1]
    assert {target for name in SERVICES for source, target, *_ in mounts(name) if source == "example"} == {directory}
    assert rf"\set csv {directory}/patients.csv" in sql
    command = SERVICES["triton"]["command"][2].replace("$$", "$")
    assert command.startswith(
        f"PATH={directory}/python/bin:$PATH exec tritonserver --model-repository={directory}/models "
    )
    trainer = {target: DOCKER / source for source, target, *_ in mounts("models")}
    assert trainer[SERVICES["models"]["command"][0]].resolve() == DOCKER / "train.sh"
    assert {"/src/examples", "/src/dev/requirements-triton.txt"} <= trainer.keys()


# The entry point, with the tested PostgreSQL


class Container:
    """What the image gives its entry point: a volume, init scripts, an environment; without a container around it."""

    def __init__(self) -> None:
        self.account = default_places().account
        self.directory = private_directory(self.account)
        self.data = self.directory / "volume" / "18" / "data"
        self.scripts = self.directory / "scripts"
        self.log = self.directory / "log"
        self.port = free_ports(1)[0]
        self.running: Running | None = None
        for path in (self.directory / "volume", self.scripts):
            path.mkdir()
            self.account.own(path)
        script = (DOCKER / "entrypoint.sh").read_text()
        assert INIT_SCRIPTS in script
        self.entrypoint = self.directory / "entrypoint.sh"
        self.entrypoint.write_text(script.replace(INIT_SCRIPTS, str(self.scripts)))
        self.entrypoint.chmod(0o755)

    def script(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.scripts / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        path.chmod(mode)

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{default_places().bindir}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PGDATA": str(self.data),
            "TMPDIR": str(self.directory),
            "POSTGRES_INITDB_ARGS": "--no-sync --data-checksums",
            **variables,
        }

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run to an end."""
        return subprocess.run(
            [self.entrypoint, *arguments],
            env=self.environment(variables),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **self.account.popen_arguments(),
        )

    def start(self, **variables: str) -> None:
        """Start the server, as the image's command does, but for its addresses."""
        command = ["postgres", "-c", f"port={self.port}", "-c", f"unix_socket_directories={self.directory}"]
        self.log.unlink(missing_ok=True)
        self.running = launch(
            [self.entrypoint, *command, "-c", "listen_addresses=127.0.0.1"],
            account=self.account,
            environment=self.environment(variables),
            directory=self.directory,
            log=self.log,
            stop_signal=signal.SIGINT,
            leftovers=[],
        )
        await_ready(self.running, self.is_ready, 120, "PostgreSQL", self.log)

    def is_ready(self) -> bool:
        """Look at the file of the cluster in its final place."""
        with contextlib.suppress(OSError):
            return "ready" in (self.data / "postmaster.pid").read_text()
        return False

    def stop(self) -> None:
        running, self.running = self.running, None
        if running is not None:
            running.stop()

    def connect(self, password: str = PASSWORD, **parameters: Any) -> psycopg.Connection[Any]:
        parameters = {"user": "postgres", "dbname": "postgres", **parameters}
        return psycopg.connect(host="127.0.0.1", port=self.port, password=password, **parameters)

    def query(self, sql: str, **parameters: str) -> list[Any]:
        with self.connect(**parameters) as connection:
            return [row[0] for row in connection.execute(sql.encode())]


@pytest.fixture
def container() -> Iterator[Container]:
    made = Container()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.directory)


def test_the_first_start_makes_what_the_variables_say(container: Container) -> None:
    container.script("10-table.sql", "CREATE TABLE seen (who text); INSERT INTO seen VALUES ('sql');")
    container.script("20-run.sh", "#!/bin/sh\nset -e\npsql -c \"INSERT INTO seen VALUES ('executable')\"\n", 0o755)
    container.script("30-read.sh", 'psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "INSERT INTO seen VALUES (\'file\')"')
    container.script("40-packed.sql.gz", "INSERT INTO seen VALUES ('packed')")
    container.script("50-extension.sql", "CREATE EXTENSION model_fdw")
    container.script("README.txt", "not SQL")
    container.start(POSTGRES_PASSWORD=PASSWORD, POSTGRES_USER="ann", POSTGRES_DB="the shop")
    shop = {"user": "ann", "dbname": "the shop"}
    assert container.query("SELECT who FROM seen", **shop) == ["sql", "executable", "file", "packed"]
    assert container.query("SHOW shared_preload_libraries", **shop) == ["model_fdw"]
    assert container.query("SHOW data_checksums", **shop) == ["on"]
    assert container.query("SELECT setting FROM pg_file_settings WHERE name = 'listen_addresses'", **shop) == ["*"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        container.connect("wrong", **shop)


def test_the_server_does_not_keep_the_password(container: Container) -> None:
    (container.directory / "secret").write_text(PASSWORD + "\n")
    container.account.own(container.directory / "secret")
    container.start(POSTGRES_PASSWORD_FILE=str(container.directory / "secret"))
    with container.connect() as connection:
        connection.execute("CREATE TEMP TABLE environment (line text)")
        connection.execute("COPY environment FROM PROGRAM 'env' (DELIMITER E'\\x01')")
        lines = [line for (line,) in connection.execute("SELECT line FROM environment")]
    assert any(line.startswith("PGDATA=") for line in lines)
    assert not any("PASSWORD" in line for line in lines)
    assert PASSWORD not in container.log.read_text()
    assert {path.name for path in container.directory.iterdir()} == {
        *("volume", "scripts", "log", "entrypoint.sh", "secret"),
        *(name for name in os.listdir(container.directory) if name.startswith(".s.PGSQL")),
    }


def test_the_second_start_keeps_everything(container: Container) -> None:
    container.script("once.sql", "CREATE TABLE kept AS SELECT 1 AS n")
    container.start(POSTGRES_PASSWORD=PASSWORD)
    container.stop()
    container.start()
    assert container.query("SELECT n FROM kept") == [1]


def test_the_first_start_needs_a_password(container: Container) -> None:
    result = container.run()
    assert result.returncode == 1
    assert result.stderr == "entrypoint: the superuser needs a password: set POSTGRES_PASSWORD\n"
    assert not container.data.exists()


@pytest.mark.parametrize(
    ("name", "text"), [("fails.sql", "SELECT 1/0;"), ("fails.sh", "exit 3"), ("fails.sql.gz", "x")]
)
def test_a_failing_script_leaves_nothing(container: Container, name: str, text: str) -> None:
    container.script(name, text)
    result = container.run(POSTGRES_PASSWORD=PASSWORD)
    assert result.returncode == 3
    assert f"running {container.scripts / name}" in result.stdout
    assert list(container.data.parent.iterdir()) == []


def test_a_killed_first_start_is_begun_anew(container: Container) -> None:
    draft = container.data.with_name("data.new")
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("half-made")
    for path in (container.data.parent, draft, draft / "PG_VERSION"):
        container.account.own(path)
    container.start(POSTGRES_PASSWORD=PASSWORD)
    assert container.query("SELECT 1") == [1]
    assert not draft.exists()


def test_foreign_files_are_not_touched(container: Container) -> None:
    container.data.mkdir(parents=True)
    (container.data / "notes").write_text("mine")
    result = container.run(POSTGRES_PASSWORD=PASSWORD)
    assert result.returncode == 1
    assert result.stderr == f"entrypoint: {container.data} is neither empty nor a cluster of PostgreSQL\n"
    assert (container.data / "notes").read_text() == "mine"


def test_options_go_to_the_server_and_other_commands_run(container: Container) -> None:
    assert container.run("psql", "--version").stdout.startswith("psql (PostgreSQL)")
    result = container.run("-c", "port=none", POSTGRES_PASSWORD=PASSWORD)
    assert 'invalid value for parameter "port"' in result.stderr
    assert (container.data / "PG_VERSION").exists()


# With an engine


@functools.cache
def no_engine() -> str:
    """Say why there is no engine; nothing where there is one."""
    if shutil.which("docker") is None:
        return "no program docker"
    result = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return result.stderr.strip() if result.returncode else ""


@pytest.fixture
def engine() -> None:
    if reason := no_engine():
        pytest.skip(f"no Docker engine, so the image was not built and the Compose file not run: {reason}")


def output(container: Any, command: Sequence[str]) -> str:
    result = container.exec(list(command))
    assert result.exit_code == 0, result.output
    return str(result.output.decode())


@pytest.mark.usefixtures("engine")
def test_the_image_runs_and_keeps_its_data() -> None:
    """The container's user, the health check, the extensions, and a restart."""
    psql = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command"]
    image = DockerImage(path=ROOT, dockerfile_path="docker/Dockerfile", tag="model_fdw:test", clean_up=False)
    with image, DockerContainer("model_fdw:test").with_env("POSTGRES_PASSWORD", PASSWORD) as container:
        HealthcheckWaitStrategy().with_startup_timeout(120).wait_until_ready(container)
        assert output(container, ["id", "--user", "--name"]) == "postgres\n"
        for extension in ("model_fdw", "multicorn", "vector"):
            output(container, [*psql, f"CREATE EXTENSION {extension}"])
        # Multicorn finds our class, in the Python that the library has started.
        options = "wrapper 'fdw.ModelFdw', url 'grpc://127.0.0.1:1'"
        output(container, [*psql, f"CREATE SERVER s FOREIGN DATA WRAPPER multicorn OPTIONS ({options})"])
        output(container, [*psql, "CREATE TABLE kept AS SELECT 1 AS n"])
        container.get_wrapped_container().restart()
        HealthcheckWaitStrategy().with_startup_timeout(60).wait_until_ready(container)
        assert output(container, [*psql, "SELECT n FROM kept"]) == "1\n"


@pytest.mark.usefixtures("engine")
def test_the_example_gives_its_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", PASSWORD)
    with DockerCompose(DOCKER, compose_file_name="compose.yaml", build=True) as services:
        query = "SELECT diagnosis, malignant > benign FROM patients NATURAL JOIN ml.breast_cancer ORDER BY id LIMIT 5"
        stdout, _, status = services.exec_in_container(
            ["psql", "--no-psqlrc", "-U", "postgres", "--csv", "--tuples-only", "--command", query], "postgres"
        )
        assert status == 0
        assert stdout.splitlines() == ["malignant,t"] * 5
        logs, _ = services.get_logs("postgres")
        assert "CREATE EXTENSION" in logs
