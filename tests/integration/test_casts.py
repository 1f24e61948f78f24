"""Columns of other types than the natural ones: PostgreSQL's own casts convert, each way, in scans and in joins."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
import pytest

pytestmark = pytest.mark.hosts("native", reason="Multicorn has one SQLSTATE; the engine behind both is the same")

Connection = psycopg.Connection[Any]


class Cast(NamedTuple):
    """A tensor of model "tensors", a column type, and values as literals with what SQL shows of the answers."""

    tensor: str
    type: str
    values: dict[str, str]
    output: str = ""


CASTS = {
    "numeric": Cast("fp64_scalar", "numeric(9,2)", {"1.25": "1.25", "-3": "-3.00"}),
    "integer for a float": Cast("fp32_scalar", "integer", {"7": "7"}),
    "bigint for INT8": Cast("int8_scalar", "bigint", {"-128": "-128"}),
    "text for a float": Cast("fp64_scalar", "double precision", {"1.5": "1.5"}, "text"),
    "date": Cast("bytes_scalar", "date", {"2024-02-29": "2024-02-29"}),
    "timestamp": Cast("bytes_scalar", "timestamp", {"2024-02-29 12:00:00.5": "2024-02-29 12:00:00.5"}),
    "uuid": Cast(
        "bytes_scalar", "uuid", {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}
    ),
    "jsonb": Cast("bytes_scalar", "jsonb", {'{"b": [1, 2], "a": null}': '{"a": null, "b": [1, 2]}'}),
    "varchar": Cast("bytes_scalar", "varchar(3)", {"abc": "abc", "": ""}),
    "enum": Cast("bytes_scalar", "mood", {"sad": "sad", "so so": "so so"}),
    "domain": Cast("fp32_scalar", "percentage", {"99.5": "99.5"}),
    "domain over text": Cast("bytes_scalar", "word", {"abc": "abc"}),
    "numeric array": Cast("fp32_vector", "numeric[]", {"{0.5,3}": "{0.5,3}", "{}": "{}"}),
    "integer array for a float": Cast("fp16_vector", "integer[]", {"{1,-2}": "{1,-2}"}),
    "bigint array for INT16": Cast("int16_matrix", "bigint[]", {"{{1,2},{3,4}}": "{{1,2},{3,4}}"}),
    "double for real": Cast("fp32_vector", "real[]", {"{0.1}": "{0.10000000149011612}"}, "double precision[]"),
    "real for double": Cast("fp64_vector", "real[]", {"{0.1}": "{0.1}"}),
    "text of an array": Cast("int32_vector", "integer[]", {"{1,2}": "{1,2}"}, "text"),
    "domain over an array": Cast("fp32_vector", "couple", {"{1,2}": "{1,2}"}),
    "array of a domain": Cast("fp32_vector", "percentage[]", {"{1,100}": "{1,100}"}),
    "array of an enum": Cast("bytes_vector", "mood[]", {'{sad,"so so"}': '{sad,"so so"}'}),
    "array of jsonb": Cast("bytes_vector", "jsonb[]", {'{"[1]","{}"}': '{[1],"{}"}'}),
    "array of varchar": Cast("bytes_matrix", "varchar(3)[]", {"{{a,b}}": "{{a,b}}"}),
    "array of dates": Cast("bytes_vector", "date[]", {"{2024-02-29}": "{2024-02-29}"}),
    "array of a scalar": Cast("fp32_scalar", "real[]", {"{5}": "{5}"}),
}

VECTORS = {
    f"{type_} for {tensor}": Cast(f"{tensor}_{shape}", type_, values)
    for tensor in ("fp16", "bf16", "fp32", "fp64")
    for type_, shape, values in [
        ("vector", "vector", {"[1,-2.5]": "[1,-2.5]", "[3]": "[3]"}),
        ("vector(3)", "triple", {"[1,2,3]": "[1,2,3]"}),
        ("halfvec", "vector", {"[1,-2.5]": "[1,-2.5]"}),
        ("halfvec(3)", "triple", {"[1,2,3]": "[1,2,3]"}),
    ]
}

DEFINITIONS = (
    "CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad')",
    "CREATE DOMAIN percentage AS real CHECK (value BETWEEN 0 AND 100)",
    "CREATE DOMAIN word AS text CHECK (value ~ '^[a-z]+$')",
    "CREATE DOMAIN couple AS real[] CHECK (cardinality(value) <= 2)",
)


def add_table(connection: Connection, cast: Cast) -> None:
    output = cast.output or cast.type
    columns = f"i {cast.type} OPTIONS (input 'in_{cast.tensor}'), o {output} OPTIONS (output 'out_{cast.tensor}')"
    connection.execute(f"CREATE FOREIGN TABLE t ({columns}) SERVER triton OPTIONS (model 'tensors')".encode())


def check(connection: Connection, cast: Cast) -> None:
    """Ask for each value by itself, and for all of them in one join."""
    add_table(connection, cast)
    quoted = [value.replace("'", "''") for value in cast.values]
    for value, expected in zip(quoted, cast.values.values()):
        found = connection.execute(f"SELECT o::text FROM t WHERE i = '{value}'::{cast.type}".encode()).fetchall()
        assert found == [(expected,)]
    rows = ", ".join(f"({number}, '{value}'::{cast.type})" for number, value in enumerate(quoted))
    for kind in ("JOIN", "LEFT JOIN"):
        sql = f"SELECT t.o::text FROM (VALUES {rows}) v (n, i) {kind} t ON t.i = v.i ORDER BY n"
        assert [value for (value,) in connection.execute(sql.encode()).fetchall()] == list(cast.values.values())


@pytest.fixture
def session(connection: Connection) -> Connection:
    for definition in DEFINITIONS:
        connection.execute(definition.encode())
    return connection


@pytest.mark.parametrize("name", CASTS)
def test_cast(session: Connection, name: str) -> None:
    check(session, CASTS[name])


@pytest.fixture
def vectors(session: Connection) -> Connection:
    """A session with pgvector."""
    (available,) = session.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'").fetchall()
    if not available[0]:
        pytest.skip("this PostgreSQL has no pgvector")
    session.execute("CREATE EXTENSION vector SCHEMA scratch")
    return session


@pytest.mark.parametrize("name", VECTORS)
def test_vector(vectors: Connection, name: str) -> None:
    check(vectors, VECTORS[name])


@pytest.mark.parametrize("type_", ["vector", "halfvec"])
def test_vector_elsewhere(vectors: Connection, type_: str) -> None:
    """The type is found also where its name needs a schema."""
    add_table(vectors, Cast("fp32_vector", type_, {}))
    vectors.execute("SET search_path = public")
    found = vectors.execute(
        f"SELECT o::text FROM scratch.t WHERE i OPERATOR(scratch.=) '[1,2]'::scratch.{type_}".encode()
    )
    assert found.fetchall() == [("[1,2]",)]


def test_list_of_vectors(vectors: Connection) -> None:
    add_table(vectors, Cast("fp32_vector", "vector", {}))
    sql = "SELECT o::text FROM t WHERE i IN ('[1,2]', '[3]', '[1,2]')"
    assert vectors.execute(sql).fetchall() == [("[1,2]",), ("[3]",)]


@pytest.mark.parametrize(
    ("cast", "value", "sqlstate", "message", "context"),
    [
        (Cast("fp32_vector", "real[]", {}, "percentage[]"), "{101}", "23514", "percentage_check", "output"),
        (Cast("bytes_scalar", "text", {}, "mood"), "bored", "22P02", "enum mood", "output"),
        (Cast("bytes_vector", "text[]", {}, "mood[]"), "{bored}", "22P02", "enum mood", "output"),
        (Cast("bytes_scalar", "text", {}, "varchar(3)"), "long", "22001", "character varying(3)", "output"),
        (Cast("bytes_vector", "text[]", {}, "varchar(3)[]"), "{long}", "22001", "character varying(3)", "output"),
        (Cast("bytes_scalar", "text", {}, "jsonb"), "{", "22P02", "json", "output"),
        (Cast("int64_vector", "bigint[]", {}, "integer[]"), "{5000000000}", "22003", "out of range", "output"),
        (Cast("int16_vector", "integer[]", {}), "{70000}", "22003", "smallint out of range", "input"),
        (Cast("fp32_vector", "real[]", {}, "couple"), "{1,2,3}", "23514", "couple_check", "output"),
    ],
)
@pytest.mark.parametrize("query", ["scan", "join"])
def test_value_without_a_cast(
    session: Connection, query: str, cast: Cast, value: str, sqlstate: str, message: str, context: str
) -> None:
    """What the cast refuses is an error that names the column; nothing is cut off in silence."""
    add_table(session, cast)
    given = f"'{value}'::{cast.type}"
    sql = {
        "scan": f"SELECT o FROM t WHERE i = {given}",
        "join": f"SELECT o FROM (VALUES ({given})) v JOIN t ON i = column1",
    }
    with pytest.raises(psycopg.Error) as caught:
        session.execute(sql[query].encode())
    assert caught.value.sqlstate == sqlstate
    assert message in str(caught.value)
    column = "i" if context == "input" else "o"
    assert f'{context} column "{column}" of foreign table "t"' in (caught.value.diag.context or "")


@pytest.mark.parametrize(
    "query", ["SELECT o FROM t WHERE i = '[1,2]'", "SELECT o FROM (SELECT '[1,2]'::vector i) v JOIN t USING (i)"]
)
def test_vector_of_the_wrong_length(vectors: Connection, query: str) -> None:
    add_table(vectors, Cast("fp32_vector", "vector", {}, "vector(3)"))
    with pytest.raises(psycopg.Error) as caught:
        vectors.execute(query.encode())
    assert str(caught.value.diag.message_primary) == "expected 3 dimensions, not 2"
    assert caught.value.diag.context == 'output column "o" of foreign table "t"'


@pytest.mark.parametrize("type_", ["bpchar[]", "char(3)[]"])
def test_array_whose_equality_is_coarse(session: Connection, type_: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        add_table(session, Cast("bytes_vector", type_, {}))
        session.execute(f"SELECT o FROM t WHERE i = '{{a}}'::{type_}".encode())
    assert caught.value.diag.message_primary is not None
    assert caught.value.diag.message_primary.startswith('input column "i" of foreign table "t" cannot have type')
    assert caught.value.diag.message_hint == "Use type text[]."


# Floats that PostgreSQL's cast to numeric, which keeps 15 digits, does not bring back; and what the column becomes.
FLOATS = {
    "sum": ("0.1::float8 + 0.2", "0.30000000000000004"),
    "17 digits": ("123456789.123456789::float8", "123456789.12345679"),
    "real": ("0.1::real", "0.10000000149011612"),
    "half": ("0.5::float8", "0.5"),
    "2 to the 53rd": ("9007199254740992::float8", "9007199254740992"),
    "2 to the 63rd": ("9223372036854775808::float8", "9223372036854775808"),
    "large": ("1.2345678901234567e100::float8", None),
    "small": ("1.2345678901234567e-100::float8", None),
    "least": ("5e-324::float8", None),
    "greatest": ("1.7976931348623157e308::float8", None),
    "negative": ("-1e-5::float8 / 3", None),
    "zero": ("'-0'::float8", "0"),
    "NaN": ("'NaN'::float8", "NaN"),
    "infinity": ("'-Infinity'::float8", "-Infinity"),
}
# Each reads the output, too: the model answers nothing else for this input.
FOUND = "CASE WHEN t.o IS NOT NULL THEN t.i END"
FLOAT_QUERIES = {
    "join": f"SELECT v.n, {FOUND} FROM v JOIN t ON t.i = v.n",
    "left join": f"SELECT v.n, {FOUND} FROM v LEFT JOIN t ON t.i = v.n",
    "computed": f"SELECT v.n, {FOUND} FROM v JOIN t ON t.i = v.n * 1",
    "subquery": f"SELECT v.n, (SELECT {FOUND} FROM t WHERE t.i = v.n) FROM v",
    "per row": f"SELECT v.n, i FROM v LEFT JOIN LATERAL (SELECT {FOUND} FROM t WHERE t.i = v.n LIMIT 1) p (i) ON true",
    "constant": f"SELECT {{value}}, {FOUND} FROM t WHERE t.i = {{value}}",
    "list": f"SELECT {{value}}, {FOUND} FROM t WHERE t.i = ANY (ARRAY[{{value}}, {{value}}, NULL])",
    "whole row": "SELECT n, (t).i FROM (SELECT v.n, t FROM v LEFT JOIN t ON t.i = v.n OFFSET 0) p",
}


@pytest.mark.parametrize("digits", [1, 0, -15])
@pytest.mark.parametrize("name", FLOATS)
def test_float_for_a_numeric(session: Connection, name: str, digits: int) -> None:
    """The numeric that equals the float is found: in few digits or, where the float is whole, exactly."""
    value, expected = FLOATS[name]
    add_table(session, Cast("fp64_scalar", "numeric", {}, "double precision"))
    session.execute(f"CREATE TABLE v AS SELECT {value} AS n".encode())
    session.execute(f"SET extra_float_digits = {digits}".encode())
    for sql in FLOAT_QUERIES.values():
        query = f"SELECT q.i::text, q.i = q.n FROM ({sql.format(value=value)}) q (n, i)"
        ((text, equal),) = session.execute(query.encode()).fetchall()
        assert (text, equal) == (expected or text, True), sql


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("numeric(5,2)", "1.25::float8", "1.25"),
        ("numeric(5,2)", "1.255::float8", None),
        ("numeric(20)", "9007199254740993::float8", "9007199254740992"),
        ("tenth", "0.1::float8", "0.1"),
        ("tenth", "0.5::real", "0.5"),
    ],
)
def test_float_for_a_numeric_with_a_limit(session: Connection, type_: str, value: str, expected: str | None) -> None:
    session.execute("CREATE DOMAIN tenth AS numeric(10,1) CHECK (value < 1)")
    add_table(session, Cast("fp64_scalar", type_, {}, "double precision"))
    for sql in (
        f"SELECT {FOUND}::text FROM (SELECT {value} OFFSET 0) v (n) LEFT JOIN t ON t.i = n",
        f"SELECT (SELECT {FOUND}::text FROM t WHERE t.i = {value})",
        f"SELECT (SELECT {FOUND}::text FROM t WHERE t.i IN ({value}, {value} * 1))",
    ):
        assert session.execute(sql.encode()).fetchall() == [(expected,)], sql


def test_float_that_a_numeric_refuses(session: Connection) -> None:
    session.execute("CREATE DOMAIN tenth AS numeric(10,1) CHECK (value < 1)")
    for type_, sqlstate in (("numeric(5,2)", "22003"), ("tenth", "23514")):
        session.execute("DROP FOREIGN TABLE IF EXISTS t")
        add_table(session, Cast("fp64_scalar", type_, {}, "double precision"))
        for sql in (
            "SELECT o FROM (VALUES (1e6::float8)) v (n) JOIN t ON i = n",
            "SELECT o FROM t WHERE i = 1e6::float8",
            "SELECT o FROM t WHERE i IN (1e6::float8, 2::float8)",
        ):
            with pytest.raises(psycopg.Error) as caught:
                session.execute(sql.encode())
            assert (caught.value.sqlstate, caught.value.diag.context) == (
                sqlstate,
                'input column "i" of foreign table "t"',
            )
