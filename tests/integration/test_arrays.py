"""Array columns under every plan, large values, every server encoding."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import Database, set_locally
from test_differential import NODE_OFF, PARALLEL, PARALLEL_NODE

pytestmark = pytest.mark.hosts("native", reason="it makes servers of its own; the engine behind both is the same")

Connection = psycopg.Connection[Any]

BATCH_SIZES = (1, 3, 4096)
ROWS = 150


VARIANTS: dict[str, dict[str, str]] = {
    "plain": {},
    "without node": NODE_OFF,
    "generic plan": {"plan_cache_mode": "force_generic_plan"},
    "hash joins only": {"enable_nestloop": "off", "enable_mergejoin": "off"},
    "merge joins only": {"enable_nestloop": "off", "enable_hashjoin": "off"},
    "little memory": {"work_mem": "64kB"},
    "parallel": PARALLEL,
    "parallel node": PARALLEL_NODE,
    "worker only": {"debug_parallel_query": "on"},
}

# Each with the same over table "v" alone: the model gives back what it gets.
QUERIES = {
    "inner": ("SELECT id, o FROM v JOIN t USING (i)", "SELECT id, i FROM v WHERE i IS NOT NULL"),
    "left": ("SELECT id, o FROM v LEFT JOIN t USING (i)", "SELECT id, i FROM v"),
    "exists": (
        "SELECT id FROM v WHERE EXISTS (SELECT FROM t WHERE t.i = v.i AND cardinality(o) > 2)",
        "SELECT id FROM v WHERE cardinality(i) > 2",
    ),
    "not exists": (
        "SELECT id FROM v WHERE NOT EXISTS (SELECT FROM t WHERE t.i = v.i AND cardinality(o) > 2)",
        "SELECT id FROM v WHERE cardinality(i) <= 2 OR i IS NULL",
    ),
    "subquery": ("SELECT id, (SELECT o FROM t WHERE t.i = v.i) FROM v", "SELECT id, i FROM v"),
    "chain": (
        "SELECT id, b.o FROM v JOIN t a ON a.i = v.i JOIN t b ON b.i = a.o",
        "SELECT id, i FROM v WHERE i IS NOT NULL",
    ),
    "whole row": (
        "SELECT id, t::text FROM v JOIN t USING (i)",
        "SELECT id, ROW(i, i)::text FROM v WHERE i IS NOT NULL",
    ),
    "grouped": (
        "SELECT o, count(*) FROM v JOIN t USING (i) GROUP BY o",
        "SELECT i, count(*) FROM v WHERE i IS NOT NULL GROUP BY i",
    ),
    "digest": (
        "SELECT count(*), sum(hashtext(o::text)) FROM v JOIN t USING (i)",
        "SELECT count(*), sum(hashtext(i::text)) FROM v WHERE i IS NOT NULL",
    ),
    "condition": (
        "SELECT id, o FROM v JOIN t USING (i) WHERE o[1] = i[1] AND cardinality(i) = 2",
        "SELECT id, i FROM v WHERE i[1] = i[1] AND cardinality(i) = 2",
    ),
}


def literal(source: random.Random, text: bool) -> str | None:
    """Draw an array of up to four elements, or NULL."""
    if source.random() < 0.05:
        return None
    values = [source.choice(["", "a", "NULL", 'q"', "ü"]) if text else str(source.randint(-9, 9)) for _ in range(9)]
    quoted = ['"' + value.replace('"', '\\"') + '"' for value in values[: source.choice([0, 1, 2, 2, 3, 4])]]
    return "{" + ",".join(quoted) + "}"


@pytest.fixture(scope="module", params=["fp32, real[]", "bytes, text[]"])
def arrays(database: Database, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A session with rows of many lengths in "v", and foreign table "t" in a schema per batch size."""
    dtype, type_ = request.param.split(", ")
    source = random.Random(dtype)
    with database.session() as connection:
        connection.execute(f"CREATE TABLE v (id int PRIMARY KEY, i {type_})".encode())
        with connection.cursor().copy("COPY v FROM STDIN") as copy:
            for number in range(ROWS):
                copy.write_row((number, literal(source, type_ == "text[]")))
        connection.execute("ANALYZE v")
        for size in BATCH_SIZES:
            columns = f"i {type_} OPTIONS (input 'in_{dtype}_vector'), o {type_} OPTIONS (output 'out_{dtype}_vector')"
            connection.execute(f"CREATE SCHEMA arrays_{size}".encode())
            connection.execute(
                f"CREATE FOREIGN TABLE arrays_{size}.t ({columns}) "
                f"SERVER triton OPTIONS (model 'tensors', batch_size '{size}', max_in_flight '3')".encode()
            )
        yield connection
        connection.execute("SET client_min_messages = warning")
        for size in BATCH_SIZES:
            connection.execute(f"DROP SCHEMA arrays_{size} CASCADE".encode())


def counted(connection: Connection, sql: str) -> Counter[str]:
    return Counter(map(str, connection.execute(sql.encode()).fetchall()))


@pytest.mark.parametrize("query", QUERIES)
def test_every_plan_gives_the_same(arrays: Connection, query: str) -> None:
    asked, expected = QUERIES[query]
    right = counted(arrays, expected)
    for name, settings in VARIANTS.items():
        for size in BATCH_SIZES if name in ("plain", "without node") else (3,):
            with arrays.transaction(force_rollback=True):
                arrays.execute(f"SET LOCAL search_path = scratch, arrays_{size}".encode())
                set_locally(arrays, settings)
                assert counted(arrays, asked) == right, f"{name}, batch size {size}"


def test_order_is_kept(arrays: Connection) -> None:
    """Rows of different shapes travel apart and come back in the order of the other table."""
    arrays.execute("SET search_path = scratch, arrays_4096")
    found = arrays.execute("SELECT id FROM (SELECT * FROM v ORDER BY id DESC) v LEFT JOIN t USING (i)").fetchall()
    assert [number for (number,) in found] == list(range(ROWS))[::-1]


# ---- forms that the matrix of test_types does not have ----


def add_table(connection: Connection, tensor: str, input_: str, output: str = "", index: str = "") -> None:
    columns = f"i {input_} OPTIONS (input 'in_{tensor}'), o {output or input_} OPTIONS (output 'out_{tensor}'{index})"
    connection.execute(f"CREATE FOREIGN TABLE t ({columns}) SERVER triton OPTIONS (model 'tensors')".encode())


def test_elements_of_a_vector_of_variable_length(connection: Connection) -> None:
    """The table decides how long an input is; of an output it shows a part."""
    columns = [f"i{n} real OPTIONS (input 'in_fp32_vector', index '{n}')" for n in (2, 1, 3)]
    columns += [f"o{n} real OPTIONS (output 'out_fp32_vector', index '{n}')" for n in (3, 1)]
    columns += ["o real[] OPTIONS (output 'out_fp32_vector')"]
    connection.execute(
        f"CREATE FOREIGN TABLE t ({', '.join(columns)}) SERVER triton OPTIONS (model 'tensors')".encode()
    )
    sql = "SELECT o1, o3, o FROM (VALUES (1, 2, 3), (4, 5, 6)) v (i1, i2, i3) JOIN t USING (i1, i2, i3)"
    assert connection.execute(sql).fetchall() == [(1, 3, [1, 2, 3]), (4, 6, [4, 5, 6])]


@pytest.mark.parametrize(
    "query", ["SELECT o FROM t WHERE i = '{1,2}'", "SELECT o FROM (VALUES ('{1,2}'::real[])) v (i) JOIN t USING (i)"]
)
def test_an_element_that_an_output_lacks(connection: Connection, query: str) -> None:
    add_table(connection, "fp32_vector", "real[]", "real", ", index '3'")
    with pytest.raises(psycopg.errors.FdwUnableToCreateReply) as caught:
        connection.execute(query.encode())
    assert caught.value.diag.message_primary == 'model "tensors" sent a malformed reply'
    assert caught.value.diag.message_detail == (
        'Output tensor "out_fp32_vector" has 2 elements per row, and element 3 is asked for.'
    )


def test_lower_bounds_do_not_count(connection: Connection) -> None:
    add_table(connection, "int32_matrix", "integer[]")
    sql = "SELECT o::text FROM (SELECT '[2:3][-1:0]={{1,2},{3,4}}'::integer[] i) v JOIN t USING (i)"
    assert connection.execute(sql).fetchall() == [("{{1,2},{3,4}}",)]


def test_three_dimensions(connection: Connection) -> None:
    add_table(connection, "int32_cube", "integer[]")
    cubes = [[[[1, 2, 3]], [[4, 5, 6]]], [], [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 1, 2]]]]
    found = connection.execute(
        "SELECT o FROM (VALUES (1, %s::int[]), (2, %s), (3, %s)) v (n, i) JOIN t USING (i) ORDER BY n", cubes
    ).fetchall()
    assert found == [(cube,) for cube in cubes]


# ---- large values ----

LARGE = {
    "text": ("bytes_scalar", "text", "repeat('aä', 1800000)"),
    "bytea": ("bytes_scalar", "bytea", "convert_to(repeat('aä', 1800000), 'UTF8') || '\\x00ff'"),
    "real[]": ("fp32_vector", "real[]", "(SELECT array_agg(n)::real[] FROM generate_series(1, 1300000) n)"),
    "text[]": ("bytes_vector", "text[]", "(SELECT array_agg(repeat('ü', 500000)) FROM generate_series(1, 6))"),
    "numeric[]": ("uint64_vector", "numeric[]", "(SELECT array_agg(n::numeric) FROM generate_series(1, 100000) n)"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_values(connection: Connection, kind: str) -> None:
    tensor, type_, value = LARGE[kind]
    add_table(connection, tensor, type_)
    connection.execute(f"CREATE TABLE v AS SELECT n, {value} AS i FROM generate_series(1, 3) n".encode())
    assert connection.execute("SELECT count(*) FROM t WHERE i = (SELECT i FROM v LIMIT 1) AND o = i").fetchall() == [
        (1,)
    ]
    assert connection.execute("SELECT count(*) FROM v JOIN t USING (i) WHERE o = i").fetchall() == [(3,)]


# ---- encodings of the server ----

ENCODINGS = {
    "LATIN1": ["", "Grüße", "ÿ", "plain"],
    "EUC_JP": ["素晴らしい", "", "ｶﾅ", "plain"],
    "EUC_KR": ["안녕하세요", "plain"],
    "SQL_ASCII": ["plain", ""],
}


@pytest.fixture(params=ENCODINGS)
def encoded(database: Database, request: pytest.FixtureRequest) -> Iterator[tuple[Connection, str]]:
    """A session in a database of an encoding, with a table of texts and one of arrays of them."""
    name = f"in_{request.param}".lower()
    database.postgres.psql("-c", f"CREATE DATABASE {name} ENCODING '{request.param}' LOCALE 'C' TEMPLATE template0")
    with psycopg.connect(database.postgres.conninfo(name), autocommit=True, client_encoding="UTF8") as connection:
        connection.execute("CREATE EXTENSION model_fdw")
        url = database.triton.url
        connection.execute(f"CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{url}')".encode())
        yield connection, request.param
    database.postgres.psql("-c", f"DROP DATABASE {name}")


def test_texts_in_every_encoding(encoded: tuple[Connection, str]) -> None:
    connection, encoding = encoded
    texts = ENCODINGS[encoding]
    add_table(connection, "bytes_scalar", "text")
    seen = "CREATE FOREIGN TABLE seen (i text OPTIONS (input 'in_bytes_scalar'), seen text) SERVER triton"
    connection.execute(f"{seen} OPTIONS (model 'tensors')".encode())
    for text in texts:
        assert connection.execute("SELECT o FROM t WHERE i = %s::text", [text]).fetchall() == [(text,)]
        ((shown,),) = connection.execute("SELECT seen FROM seen WHERE i = %s::text", [text]).fetchall()
        assert bytes.fromhex(shown)[4:].decode() == text, "UTF-8 reaches the model"
    sql = "SELECT o FROM unnest(%s::text[]) WITH ORDINALITY v (i, n) JOIN t USING (i) ORDER BY n"
    assert connection.execute(sql, [texts]).fetchall() == [(text,) for text in texts]


def test_arrays_in_every_encoding(encoded: tuple[Connection, str]) -> None:
    connection, encoding = encoded
    texts = ENCODINGS[encoding]
    add_table(connection, "bytes_vector", "text[]")
    assert connection.execute("SELECT o FROM t WHERE i = %s::text[]", [texts]).fetchall() == [(texts,)]
    sql = "SELECT o FROM (VALUES (1, %s::text[]), (2, %s::text[])) v (n, i) JOIN t USING (i) ORDER BY n"
    assert connection.execute(sql, [texts, texts[:1]]).fetchall() == [(texts,), (texts[:1],)]


@pytest.mark.parametrize(
    ("type_", "value"), [("text", "convert_to('日本', 'UTF8')"), ("text[]", "ARRAY[convert_to('日本', 'UTF8')]")]
)
def test_an_answer_that_the_encoding_lacks(database: Database, type_: str, value: str) -> None:
    form = "vector" if type_ == "text[]" else "scalar"
    database.postgres.psql("-c", "CREATE DATABASE lacking ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with psycopg.connect(database.postgres.conninfo("lacking"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION model_fdw")
            url = database.triton.url
            connection.execute(f"CREATE SERVER triton FOREIGN DATA WRAPPER model_fdw OPTIONS (url '{url}')".encode())
            add_table(connection, f"bytes_{form}", type_.replace("text", "bytea"), type_)
            given = value.replace("convert_to('日本', 'UTF8')", "'\\xe697a5e69cac'::bytea")
            with pytest.raises(psycopg.errors.UntranslatableCharacter) as caught:
                connection.execute(f"SELECT o FROM t WHERE i = {given}".encode())
            assert caught.value.diag.context == 'output column "o" of foreign table "t"'
    finally:
        database.postgres.psql("-c", "DROP DATABASE lacking WITH (FORCE)")


@pytest.mark.parametrize(("form", "suffix"), [("scalar", ""), ("vector", "[]")])
@pytest.mark.parametrize(("contents", "problem"), [("\\xff", "bytes that are not UTF-8"), ("\\x6100", "a zero byte")])
def test_an_answer_that_is_no_text(connection: Connection, form: str, suffix: str, contents: str, problem: str) -> None:
    add_table(connection, f"bytes_{form}", f"bytea{suffix}", f"text{suffix}")
    given = f"'{contents}'::bytea" if form == "scalar" else f"ARRAY['{contents}'::bytea]"
    with pytest.raises(psycopg.errors.CharacterNotInRepertoire) as caught:
        connection.execute(f"SELECT o FROM t WHERE i = {given}".encode())
    assert caught.value.diag.message_primary == f'model answered {problem} for output column "o"'
    assert caught.value.diag.message_hint == f"Declare the column as bytea{suffix}."
