"""Every SQL block of README.md, CONTRIBUTING.md and docs/*.md runs, and shows what the document says that it shows.

A document is one session of psql in a database of its own, with the tables of documents/scenario.sql and the example
models. The first SQL block of the README, which imports these, runs before the documents that do not do so themselves.

- A plain block right behind one of SQL is what psql must show: durations are masked, numbers are compared to three
  digits, spaces do not count. Elsewhere no error may come. So an error on purpose is one that is shown.
- A comment "<!-- sql ... -->" does before a block what the text takes for granted.
- Names of machines and files stand for real ones: see ``Stage.real``. What runs beside (a gRPC service, a proxy that
  ends TLS, with the certificates that the document itself makes) is started where a document names it.
- docs/multicorn.md needs a PostgreSQL with Multicorn, docs/embeddings.md one with pgvector.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import make_directory
from conftest import run_postgres
from gateway import run_nginx
from pages import DOCUMENTS, ROOT, Block, blocks, name_of
from test_grpc import run_fraud

from dev.servers import Postgres, Triton, default_places

pytestmark = pytest.mark.hosts("native", reason="the documents are about tables of our own; docs/multicorn.md is here")

PREPARED = ROOT / "tests" / "documents"
END = "=== end of block"
MERGE_SINCE = 150000

TOKEN = "sesame-0123456789"
SETTINGS = {
    "timezone": "UTC",
    "client_min_messages": "notice",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


@pytest.fixture(scope="module")
def triton() -> Iterator[Triton]:
    with Triton([default_places().models, PREPARED / "models"], name="documents-triton") as triton:
        yield triton


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with run_postgres("documents") as postgres:
        yield postgres


@dataclass
class Stage:
    """A database and the servers that a document names."""

    postgres: Postgres
    name: str
    real: dict[str, str]

    def play(self, text: str) -> str:
        """Run psql; return what it shows, standard output and errors in their order."""
        for placeholder, real in self.real.items():
            text = text.replace(placeholder, real)
        result = subprocess.run(
            [self.postgres.bindir / "psql", "-X", "-q"],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **self.postgres.environment(self.name),
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LC_ALL": "C.UTF-8",
                "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in SETTINGS.items()),
            },
            text=True,
            timeout=120,
            check=False,
        )
        shown = result.stdout
        for placeholder, real in sorted(self.real.items(), key=lambda item: -len(item[1])):
            shown = shown.replace(real, placeholder)
        return shown

    def has(self, extension: str) -> bool:
        """Tell whether an extension can be created."""
        return bool(self.postgres.psql("-c", f"SELECT 1 FROM pg_available_extensions WHERE name = '{extension}'"))

    def version(self) -> int:
        """Give the server's version as server_version_num does."""
        return int(self.postgres.psql("-c", "SHOW server_version_num"))

    def prepare(self) -> None:
        """Make the database with the tables of the scenario."""
        self.postgres.psql("-c", f"DROP DATABASE IF EXISTS {self.name}", "-c", f"CREATE DATABASE {self.name}")
        patients = ["-v", f"csv={default_places().patients}", "-f", ROOT / "examples" / "patients.sql"]
        self.postgres.psql(*patients, database=self.name)
        self.postgres.psql("-f", PREPARED / "scenario.sql", database=self.name)


@pytest.fixture
def stage(request: pytest.FixtureRequest, triton: Triton) -> Iterator[Stage]:
    """Set the stage for the document that is the parameter."""
    document: Path = request.param
    text = document.read_text()
    with ExitStack() as running:
        real = {"127.0.0.1:8001": triton.grpc, "127.0.0.1:8000": triton.http}
        if "grpc://fraud-1:50051" in text:
            real["fraud-1:50051"] = f"127.0.0.1:{running.enter_context(run_fraud())}"
        if "models.example.com" in text:
            real |= proxy(running, text, triton)
        host = request.getfixturevalue("multicorn_postgres" if document.stem == "multicorn" else "postgres")
        name = f"documents_{document.stem.lower().replace('-', '_')}"
        stage = Stage(host, name, {**real, "DATABASE shop": f"DATABASE {name}"})
        stage.prepare()
        yield stage


def proxy(running: ExitStack, text: str, triton: Triton) -> dict[str, str]:
    """Run the document's own commands and its nginx, and give what its names stand for."""
    directory = running.enter_context(make_directory())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    real = {
        "models.example.com:8443": f"localhost:{port}",
        "models.example.com": "localhost",
        "/etc/models": str(directory),
        "127.0.0.1:8001": triton.grpc,
        "listen 8443": f"listen 127.0.0.1:{port}",
        "YOUR-TOKEN": TOKEN,
    }

    def translate(block: Block) -> str:
        made = block.text
        for placeholder, value in real.items():
            made = made.replace(placeholder, value)
        return made

    for block in blocks(text):
        if block.language == "sh":
            subprocess.run(["bash", "-euc", translate(block)], cwd=directory, capture_output=True, check=True)
    for path in directory.iterdir():
        path.chmod(0o644)
    (site,) = [translate(block) for block in blocks(text) if block.language == "nginx"]
    running.enter_context(run_nginx(site, port))
    return real


FLOAT = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]\d+)?(?![\w.])")


def normal(shown: str) -> list[str]:
    """Leave out of psql's output what differs from run to run, and from one version to the other."""
    shown = re.sub(r"actual time=[0-9.]+ rows=([0-9]+)(\.00)?", r"actual time=N rows=\1", shown)
    shown = re.sub(r"[0-9.]+ ms\b", "N ms", shown)
    shown = FLOAT.sub(lambda found: f"{float(found[0]):.3g}", shown)
    lines = [
        re.sub(r"\s+|--+", lambda run: " " if run[0].isspace() else "-", line).strip() for line in shown.splitlines()
    ]
    left_out = re.compile(r"QUERY PLAN|[-+]*|\(\d+ rows?\)|(Planning|Execution) Time: .*|Buffers: .*|Planning:")
    return [line for line in lines if not left_out.fullmatch(line)]


def outputs(shown: str, count: int) -> list[str]:
    """Take psql's output apart; each block has one where all have run."""
    parts = re.split(rf"^{END} [0-9]+$\n", shown, flags=re.MULTILINE)
    assert len(parts) == count + 1, f"only {len(parts) - 1} of {count} blocks have run to their end:\n{parts[-1]}"
    return parts[:-1]


def opening() -> Block:
    """Give the README's first SQL block."""
    return next(block for block in blocks((ROOT / "README.md").read_text()) if block.language == "sql")


def complaint(document: Path, block: Block, shown: str) -> str:
    """Say what is wrong with a block's output; nothing if it is right."""
    where = f"{name_of(document)}, line {block.line}"
    if block.output is not None:
        if normal(block.output) != normal(shown):
            return f"{where} should show\n{block.output}but shows\n{shown}"
    elif "ERROR:" in shown or re.search(r"^(invalid command|psql:|\\)", shown, re.MULTILINE):
        return f"{where} fails:\n{shown}"
    return ""


@pytest.mark.parametrize("stage", DOCUMENTS, ids=name_of, indirect=True)
def test_blocks(stage: Stage, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    document: Path = request.node.callspec.params["stage"]
    if document.stem == "embeddings" and not stage.has("vector"):
        pytest.skip("this PostgreSQL has no pgvector: the blocks of docs/embeddings.md are not run")
    own = [block for block in blocks(document.read_text()) if block.language in ("sql", "hidden")]
    if stage.version() < MERGE_SINCE:
        own = [block for block in own if not block.text.startswith("MERGE")]
    first = [] if document.stem in ("README", "multicorn", "install") else [Block("hidden", opening().text, 0)]
    played = [*first, *own]
    began_s = time.monotonic()
    script = "".join(f"{block.text}\n\\echo {END} {number}\n" for number, block in enumerate(played))
    shown = outputs(stage.play(script), len(played))
    complaints = [said for block, output in zip(played, shown) if (said := complaint(document, block, output))]
    visible = [block for block in own if block.language == "sql"]
    compared = sum(block.output is not None for block in visible)
    with capsys.disabled():
        print(
            f"\n{name_of(document)}: {len(visible)} SQL blocks, all executed, "
            f"{compared} outputs compared, {len(complaints)} wrong, {time.monotonic() - began_s:.1f} s"
        )
    assert not complaints, "\n".join(complaints)


RECIPE = re.compile(r"^ *((?:INSERT|SELECT|WITH|MERGE|CREATE MATERIALIZED VIEW)\b[^;]*\bml\.[^;]*;)", re.MULTILINE)


@pytest.mark.parametrize("stage", [ROOT / "docs" / "recipes.md"], ids=name_of, indirect=True)
def test_recipes_send_batches(stage: Stage) -> None:
    """Each statement that asks a model has a Model Join in its plan, that of the trigger's function as well."""
    stage.play(opening().text)
    explained = 0
    for block in blocks((ROOT / "docs" / "recipes.md").read_text()):
        if block.language != "sql" or (stage.version() < MERGE_SINCE and block.text.startswith("MERGE")):
            continue
        stage.play(block.text)
        if block.output is not None and "ERROR" in block.output:
            continue
        if "TABLE arrivals" in block.text:
            stage.play("CREATE VIEW arrived AS SELECT * FROM arrivals;")
        for statement in RECIPE.findall(block.text):
            query = re.sub(r"^CREATE MATERIALIZED VIEW \w+ AS ", "", statement)
            plan = stage.play(f"EXPLAIN {query}")
            assert "(Model Join)" in plan, f"line {block.line}:\n{plan}"
            assert "one per outer row" not in plan, f"line {block.line}:\n{plan}"
            explained += 1
    assert explained >= 9


TABLE = " a |  b\n---+------\n 1 | 0.25\n"


@pytest.mark.parametrize(
    ("output", "shown", "right"),
    [
        (TABLE, " a |    b     \n---+----------\n 1 | 0.250001\n(1 row)\n\n", True),
        (TABLE, " a |  b\n---+------\n 1 | 0.26\n(1 row)\n\n", False),
        (TABLE, " a |  b\n---+------\n 2 | 0.25\n(1 row)\n\n", False),
        (TABLE, " a | b\n---+---\n(0 rows)\n\n", False),
        (
            " Seq Scan (actual time=1.0..2.0 rows=3 loops=1)\n",
            " Seq Scan (actual time=7.1..9.9 rows=3.00 loops=1)\n",
            True,
        ),
        (
            " Seq Scan (actual time=1.0..2.0 rows=3 loops=1)\n",
            " Seq Scan (actual time=1.0..2.0 rows=4 loops=1)\n",
            False,
        ),
        ("ERROR:  no\n", "ERROR:  no\n", True),
        ("ERROR:  no\n", " a \n---\n 1\n", False),
        (None, "ERROR:  no\n", False),
        (None, "invalid command \\nothing\n", False),
        (None, " a \n---\n 1\n", True),
    ],
)
def test_a_document_that_says_something_else_is_noticed(output: str | None, shown: str, right: bool) -> None:
    block = Block("sql", "SELECT 1;\n", 1, output)
    assert (complaint(ROOT / "README.md", block, shown) == "") == right


def test_a_block_that_does_not_end_is_noticed(postgres: Postgres) -> None:
    stage = Stage(postgres, "postgres", {})
    played = ["SELECT 1;\n", "SELECT 'open;\n", "SELECT 2;\n"]
    script = "".join(f"{text}\n\\echo {END} {number}\n" for number, text in enumerate(played))
    with pytest.raises(AssertionError, match="only 1 of 3 blocks"):
        outputs(stage.play(script), len(played))
