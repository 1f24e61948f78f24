"""What the tests of random statements share: tables, settings, how a statement is run, compared and counted.

Each statement is run on the models with the Model Join and without it, and on local tables that hold what the models
answer for every combination of inputs that a statement can ask for: a search path decides which it reads. The models
compute exactly on the values used here, so no tolerance is needed.

Statement N of seed S depends on S and N only: ``--seed S:N`` runs it alone.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Database, revive, set_locally, set_table_options

from dev.servers import Postgres, Triton, default_places

Connection = psycopg.Connection[Any]
# The rows of each statement, or the SQLSTATE and message of the first that failed.
Outcome = list[Counter[tuple[Any, ...]]] | str

NODE = "Model Join"
SOURCES = Path(__file__).parents[2]
MODELS = ("ml.affine", "ml.chain", "ml.banded_low", "ml.banded_high", "ml.secured_low", "ml.secured_high")
BATCH_SIZES = (3, 1, 4096, 3)
# The batch size changes after as many statements.
PART = 50
# Of so many statements of a shape some have the node.
MANY = 60
# ... but not of those whose model is scanned, or that read none.
SCANS = {"hidden", "cursor: scan", "current of: plain", "refused"}
# Differences after which a run ends.
MOST = 5

METHODS = (
    "hashjoin",
    "mergejoin",
    "nestloop",
    "material",
    "memoize",
    "sort",
    "seqscan",
    "indexscan",
    "bitmapscan",
    "hashagg",
    "incremental_sort",
)
NESTED_LOOPS = ("hashjoin", "mergejoin", "material", "seqscan")
PARALLEL = {
    "max_parallel_workers_per_gather": "2",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "min_parallel_index_scan_size": "0",
}
JIT = {"jit": "on", "jit_above_cost": "0", "jit_optimize_above_cost": "0"}
# The plan is made and thrown away: nothing logs at this level.
AUTO_EXPLAIN = {
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_verbose": "on",
    "auto_explain.log_level": "debug5",
}

SET_UP = """
CREATE SCHEMA reference;
CREATE SCHEMA local;
CREATE TABLE reference.affine AS
    SELECT a / 2.0::float8 AS a, b / 2.0::float8 AS b, a + 1.5::float8 * b AS s, (a - b) / 2.0::float8 AS d
    FROM generate_series(-40, 60) AS a, generate_series(-40, 60) AS b;
CREATE INDEX ON reference.affine (a, b);
CREATE TABLE reference.chain AS
    SELECT s / 4.0::float8 AS s, trunc(s / 4.0)::bigint AS t FROM generate_series(-1000, 1200) AS s;
CREATE INDEX ON reference.chain (s);
CREATE TABLE reference.banded AS SELECT * FROM reference.affine WHERE a < 4;
CREATE INDEX ON reference.banded (a, b);
CREATE TABLE ml.banded (a float8, b float8, s float8, d float8) PARTITION BY RANGE (a);
CREATE FOREIGN TABLE ml.banded_low PARTITION OF ml.banded FOR VALUES FROM (MINVALUE) TO (1)
    SERVER {server} OPTIONS (model 'affine');
CREATE FOREIGN TABLE ml.banded_high PARTITION OF ml.banded FOR VALUES FROM (1) TO (4)
    SERVER {server} OPTIONS (model 'affine');
CREATE TABLE ml.secured (a float8, b float8, s float8, d float8) PARTITION BY RANGE (b);
CREATE FOREIGN TABLE ml.secured_low PARTITION OF ml.secured FOR VALUES FROM (MINVALUE) TO (1)
    SERVER {server} OPTIONS (model 'affine');
CREATE FOREIGN TABLE ml.secured_high PARTITION OF ml.secured FOR VALUES FROM (1) TO (9)
    SERVER {server} OPTIONS (model 'affine');
CREATE TABLE reference.secured AS SELECT * FROM reference.affine WHERE b < 9;
CREATE INDEX ON reference.secured (a, b);
CREATE VIEW ml.twice AS
    SELECT a, b, s, d, 1 AS m FROM ml.affine UNION ALL SELECT a, b, d, s, 2 FROM ml.affine;
CREATE VIEW reference.twice AS
    SELECT a, b, s, d, 1 AS m FROM reference.affine UNION ALL SELECT a, b, d, s, 2 FROM reference.affine;
CREATE TABLE local.c AS
    SELECT i AS id, (i % 7)::float8 AS x, (i % 5 - 1)::float8 AS y, CASE WHEN i % 6 > 0 THEN i % 4 END AS k,
           CASE WHEN i % 5 > 0 THEN (i % 9) / 2.0 END AS n, CASE WHEN i % 8 > 0 THEN (i % 3)::float4 END AS f
    FROM generate_series(1, 24) AS i
    UNION ALL SELECT 25, 1, 1, 1, 1, 1 UNION ALL SELECT 25, 1, 1, 1, 1, 1;
CREATE INDEX ON local.c (id);
CREATE TABLE local.e AS
    SELECT i AS id, (i % 4)::bigint AS w, CASE WHEN i > 1 THEN (i * 1.5)::numeric END AS v
    FROM generate_series(1, 6) AS i;
CREATE TABLE local.divided (LIKE local.c) PARTITION BY LIST (k);
CREATE TABLE local.divided_1 PARTITION OF local.divided FOR VALUES IN (0, 1);
CREATE TABLE local.divided_2 PARTITION OF local.divided DEFAULT;
INSERT INTO local.divided SELECT * FROM local.c;
CREATE VIEW local.barrier WITH (security_barrier) AS SELECT * FROM local.c WHERE id > 2;
CREATE TABLE local.sink (id int, value text);
CREATE FUNCTION local.drift(float8) RETURNS float8 VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';

CREATE TABLE local.kept (id int PRIMARY KEY, x float8, y float8, k bigint, n float8, note text);
CREATE TABLE local.parted (LIKE local.kept INCLUDING INDEXES) PARTITION BY RANGE (id);
CREATE TABLE local.parted_1 PARTITION OF local.parted FOR VALUES FROM (MINVALUE) TO (9);
CREATE TABLE local.parted_2 (gone int, note text, n float8, id int NOT NULL, k bigint, y float8, x float8);
ALTER TABLE local.parted_2 DROP COLUMN gone;
ALTER TABLE local.parted ATTACH PARTITION local.parted_2 FOR VALUES FROM (9) TO (17);
CREATE TABLE local.parted_3 PARTITION OF local.parted DEFAULT PARTITION BY RANGE (id);
CREATE TABLE local.parted_31 PARTITION OF local.parted_3 FOR VALUES FROM (17) TO (1000);
CREATE TABLE local.parted_32 PARTITION OF local.parted_3 DEFAULT;
CREATE TABLE local.parent (LIKE local.kept INCLUDING INDEXES);
CREATE TABLE local.child_1 () INHERITS (local.parent);
CREATE TABLE local.child_2 (own text, y float8, x float8, note text, n float8, k bigint, id int PRIMARY KEY);
ALTER TABLE local.child_2 INHERIT local.parent;
INSERT INTO local.kept
    SELECT i, (i % 7)::float8, (i % 5 - 1)::float8, CASE WHEN i % 6 > 0 THEN i % 4 END,
           CASE WHEN i % 5 > 0 THEN (i % 9) / 2.0 END, 'note ' || i
    FROM generate_series(1, 24) AS i;
INSERT INTO local.parted SELECT * FROM local.kept;
INSERT INTO local.parent SELECT * FROM local.kept WHERE id < 7;
INSERT INTO local.child_1 SELECT * FROM local.kept WHERE id BETWEEN 7 AND 14;
INSERT INTO local.child_2 (id, x, y, k, n, note) SELECT * FROM local.kept WHERE id > 14;

CREATE TABLE ml.guarded AS SELECT id, x, y, k, 'word ' || id AS word FROM local.kept;
CREATE INDEX ON ml.guarded (id);
CREATE TABLE reference.guarded AS SELECT * FROM ml.guarded;
CREATE INDEX ON reference.guarded (id);
CREATE VIEW ml.screened WITH (security_barrier) AS
    SELECT g.id, p.a, p.b, p.s, p.d FROM ml.guarded g JOIN ml.affine p ON p.a = g.x AND p.b = g.y WHERE p.s > 6;
CREATE VIEW reference.screened WITH (security_barrier) AS
    SELECT g.id, p.a, p.b, p.s, p.d FROM reference.guarded g JOIN reference.affine p ON p.a = g.x AND p.b = g.y
    WHERE p.s > 6;
CREATE VIEW ml.hidden WITH (security_barrier) AS SELECT * FROM ml.affine WHERE s > 6;
CREATE VIEW reference.hidden WITH (security_barrier) AS SELECT * FROM reference.affine WHERE s > 6;
CREATE FUNCTION local.leak(tag text, value text) RETURNS boolean IMMUTABLE PARALLEL SAFE COST 0.001 LANGUAGE plpgsql
    AS 'BEGIN RAISE NOTICE ''leak % %'', tag, value; RETURN true; END';
CREATE ROLE reader;
GRANT USAGE ON SCHEMA ml, reference, local TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA reference, local TO reader;
GRANT SELECT ON ml.affine, ml.chain, ml.banded, ml.secured, ml.twice, ml.guarded, ml.screened, ml.hidden TO reader;
ANALYZE reference.affine, reference.chain, reference.banded, reference.secured, reference.guarded, ml.guarded, local.c,
    local.e, local.divided, local.kept, local.parted, local.parent;
"""


class Difference(Exception):
    """A statement did not do what it does on the local tables."""


@dataclass(frozen=True)
class Statement:
    """A statement and those around it, which run in one transaction that is rolled back."""

    sql: str
    shapes: frozenset[str] = frozenset()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    # SQLSTATEs of which one must come, on the models only.
    refused: frozenset[str] = frozenset()


@dataclass
class Tally:
    """What a run did."""

    seed: int
    statements: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    batched: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def count(self, shapes: Iterable[str], plan: str) -> None:
        """Count a statement whose plan is known."""
        self.statements += 1
        self.shapes.update(shapes)
        if NODE in plan:
            self.batched.update([*shapes, "all"])

    def show(self, what: str) -> None:
        """Print the counts."""
        seconds = time.monotonic() - self.began
        print(f"\n{self.statements} random {what} in {seconds:.0f} s, seed {self.seed}; with the Model Join:")
        for shape, count in sorted(self.shapes.items()):
            print(f"  {shape:<22} {self.batched[shape]:5} of {count}")
        print(f"  {'all':<22} {self.batched['all']:5} of {self.statements}")

    def check(self, share: float) -> None:
        """Nothing differed, and the node was in enough plans, in some of each shape."""
        assert not self.differences, "\n\n".join(self.differences)
        if self.statements < PART:
            return
        assert self.batched["all"] >= share * self.statements
        many = {shape for shape, count in self.shapes.items() if count >= MANY} - SCANS
        never = {shape for shape in many if not self.batched[shape]}
        assert not never, "no plan with the node"


def draw_settings(source: random.Random) -> dict[str, str]:
    """Planner settings, mostly methods that are forbidden."""
    settings = {}
    place = source.random()
    if place > 0.75:
        settings = {f"enable_{name}": "off" for name in NESTED_LOOPS[: source.randint(2, 4)]}
    elif place > 0.3:
        settings = {f"enable_{name}": "off" for name in source.sample(METHODS, source.randint(1, 4))}
    if source.random() < 0.15:
        settings |= AUTO_EXPLAIN
    if source.random() < 0.1:
        settings["plan_cache_mode"] = "force_generic_plan"
    if source.random() < 0.05:
        settings |= {"join_collapse_limit": "1", "from_collapse_limit": "1"}
    if source.random() < 0.1:
        settings |= {"enable_partitionwise_join": "on", "enable_partitionwise_aggregate": "on"}
    place = source.random()
    if place < 0.02:
        settings |= PARALLEL
    elif place < 0.03:
        settings |= JIT
    return settings


@contextlib.contextmanager
def transaction(session: Connection, schema: str, settings: Mapping[str, str]) -> Iterator[None]:
    """Read a schema under some settings; undo everything at the end."""
    try:
        session.execute("BEGIN")
        session.execute(f"SET LOCAL search_path = {schema}, local".encode())
        set_locally(session, settings)
        yield
    finally:
        if not session.closed:
            session.execute("ROLLBACK")
            session.execute("DEALLOCATE ALL")


def outcome(session: Connection, schema: str, settings: Mapping[str, str], statements: Sequence[str]) -> Outcome:
    """Run statements; an error that a died Triton caused is not theirs."""
    try:
        with transaction(session, schema, settings):
            results = [session.execute(sql.encode()) for sql in statements]
            return [Counter(result.fetchall() if result.description else ()) for result in results]
    except psycopg.Error as error:
        text = f"{error.sqlstate}: {error.diag.message_primary or error}"
    if session.closed:
        raise Difference(f"the backend died: {text}")
    return outcome(session, schema, settings, statements) if text.startswith("08") and revive() else text


def explain(session: Connection, schema: str, settings: Mapping[str, str], statement: Statement) -> str:
    """Explain a statement in full."""
    result = outcome(session, schema, settings, [*statement.before, f"EXPLAIN (VERBOSE) {statement.sql}"])
    if isinstance(result, str):
        raise Difference(f"EXPLAIN (VERBOSE) failed with {result}")
    with transaction(session, schema, settings):
        for sql in statement.before:
            session.execute(sql.encode())
        rows = session.execute(f"EXPLAIN (VERBOSE) {statement.sql}".encode()).fetchall()
    return "\n".join(row[0] for row in rows)


def compare(session: Connection, statement: Statement, settings: Mapping[str, str], tally: Tally) -> None:
    """Compare a statement on the models, with the node and without it, with the local tables."""
    whole = [*statement.before, statement.sql, *statement.after]
    expected: Outcome = ""
    if not statement.refused:
        expected = outcome(session, "reference", settings, whole)
        assert not isinstance(expected, str) or expected[:5] == "21000", f"no statement: {expected} {statement.sql}"
    plan = "" if statement.refused else explain(session, "ml", settings, statement)
    tally.count(statement.shapes, plan)
    for node in ("on", "off"):
        found = outcome(session, "ml", {**settings, "model_fdw.enable_model_join": node}, whole)
        if isinstance(found, str) and (
            found[:5] in statement.refused or (isinstance(expected, str) and found[:5] == expected[:5] != "")
        ):
            continue
        # PostgreSQL then joins as written: nothing gives the model its inputs (docs/joins.md).
        if "join_collapse_limit" in settings and isinstance(found, str) and found.startswith("HV00L"):
            continue
        if found != expected or statement.refused:
            raise Difference(f"node {node}: {describe(found, expected)}\n{plan}")


def describe(found: Outcome, expected: Outcome) -> str:
    """Say how outcomes differ."""
    if isinstance(found, str) or isinstance(expected, str):
        return f"{found} instead of {expected}"[:2000]
    return "; ".join(
        f"surplus {dict(one - other)}, missing {dict(other - one)}"
        for one, other in zip(found, expected)
        if one != other
    )[:2000]


RunOne = Callable[[Connection, random.Random, dict[str, str], Tally], str | None]


def run_random(
    session: Connection, config: pytest.Config, count: int, run_one: RunOne, enough: Callable[[str], bool] | None = None
) -> Tally:
    """Run random statements, up to five that differ, or one that does in the way that is looked for."""
    seed, _, only = str(config.getoption("--seed")).partition(":")
    tally = Tally(int(seed))
    numbers = [int(only)] if only else range(int(count * config.getoption("--times")))
    batch_size = 0
    for number in numbers:
        if batch_size != BATCH_SIZES[number // PART % len(BATCH_SIZES)]:
            batch_size = BATCH_SIZES[number // PART % len(BATCH_SIZES)]
            for table in MODELS:
                set_table_options(session, table, batch_size=batch_size)
        source = random.Random(f"{seed}:{number}")
        settings = draw_settings(source)
        try:
            run_one(session, source, settings, tally)
        except Difference as error:
            tally.differences.append(f"--seed {seed}:{number}, batch size {batch_size}, {settings}\n{error}")
            if session.closed or (enough(str(error)) if enough else len(tally.differences) == MOST):
                break
    return tally


def prepared(sql: str) -> tuple[str, str]:
    """The statements that prepare one with a parameter, and run it."""
    return f"PREPARE random (float8) AS {sql}", "EXECUTE random (2)"


def settle(session: Connection) -> None:
    """Set what holds for all statements, and load auto_explain, which not every PostgreSQL has."""
    session.execute("SET statement_timeout = '60s'")
    # A method that is forbidden costs so much that all would be compiled.
    session.execute("SET jit = off")
    with contextlib.suppress(psycopg.Error):
        session.execute("LOAD 'auto_explain'")


@contextlib.contextmanager
def random_session(database: Database) -> Iterator[Connection]:
    """A session with the tables of random statements."""
    with database.connect() as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS reference, local CASCADE")
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute(SET_UP.format(server="triton").encode())
        connection.execute("RESET client_min_messages")
        settle(connection)
        yield connection
    with database.connect() as connection:
        connection.execute("SET client_min_messages = warning")
        for table in MODELS[:2]:
            set_table_options(connection, table, batch_size=None)
        connection.execute("DROP SCHEMA reference, local CASCADE")
        connection.execute("DROP VIEW ml.twice, ml.screened, ml.hidden")
        connection.execute("DROP TABLE ml.banded, ml.secured, ml.guarded")
        connection.execute("DROP OWNED BY reader")
        connection.execute("DROP ROLE reader")


@contextlib.contextmanager
def planted_session(triton: Triton, *flags: str) -> Iterator[Connection]:
    """A session in a PostgreSQL of its own, which may crash, with a library in which mistakes are planted."""
    places = default_places()
    revive()
    with (
        tempfile.TemporaryDirectory(prefix="model_fdw-planted-") as directory,
        Postgres(name="planted-postgres") as postgres,
    ):
        Path(directory).chmod(0o755)  # the server's user reads it
        native = Path(directory) / "fdw" / "native"
        shutil.copytree(SOURCES / "fdw" / "native", native, ignore=shutil.ignore_patterns("*.o", "*.so"))
        shutil.copytree(SOURCES / "sql", Path(directory) / "sql")
        command = ["make", "-j2", "-C", str(native), f"PG_CONFIG={places.pg_config}", f"PYTHON={places.venv_python}"]
        subprocess.run([*command, f"COPT=-O0 {' '.join(flags)}"], check=True, capture_output=True)
        postgres.psql("-c", "CREATE DATABASE planted")
        with psycopg.connect(postgres.conninfo("planted"), autocommit=True, prepare_threshold=None) as connection:
            library = native / "model_fdw.so"
            connection.execute(
                f"CREATE FUNCTION handler() RETURNS fdw_handler LANGUAGE c AS '{library}', 'model_fdw_handler'".encode()
            )
            connection.execute("CREATE FOREIGN DATA WRAPPER planted HANDLER handler")
            connection.execute(
                f"CREATE SERVER planted FOREIGN DATA WRAPPER planted OPTIONS (url '{triton.url}')".encode()
            )
            connection.execute("CREATE SCHEMA ml")
            connection.execute("IMPORT FOREIGN SCHEMA models LIMIT TO (affine, chain) FROM SERVER planted INTO ml")
            connection.execute(SET_UP.format(server="planted").encode())
            settle(connection)
            yield connection
