"""Random statements: the same rows with the Model Join, without it, and with a local table in the model's place."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from conftest import Database
from random_changes import run_change, run_cursor
from random_policies import run_policy
from randomly import (
    Connection,
    RunOne,
    Statement,
    Tally,
    compare,
    planted_session,
    prepared,
    random_session,
    run_random,
)

QUERIES, CHANGES, CURSORS, POLICIES = 450, 400, 60, 200


@dataclass
class Query:
    """A query that is being written."""

    random: random.Random
    shapes: set[str] = field(default_factory=set)
    select: list[str] = field(default_factory=list)
    source: str = "c"
    where: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def value(self) -> str:
        """An expression of the outer rows, for an input."""
        place = self.random.random()
        if place < 0.15:
            return self.random.choice(["1", "2.5", "-1", "0"])
        if place < 0.2:
            self.shapes.add("volatile")
            return "local.drift(c.x)"
        if "prepared" in self.shapes and place < 0.5:
            return "$1"
        return self.random.choice(self.values)

    def bind(self, alias: str) -> str:
        """Conditions that bind the inputs of "affine"."""
        a, b = self.value(), self.value()
        equal = [f"{alias}.a = {a}", f"{b} = {alias}.b"]
        if self.random.random() < 0.1:
            equal[0] = f"{alias}.a IN ({self.random.randint(0, 3)}, {self.random.randint(0, 3)}, 1)"
            self.shapes.add("list")
        return " AND ".join(equal)

    def condition(self, alias: str) -> str:
        """A condition on inputs, outputs or both."""
        low = self.random.randint(-3, 12)
        return self.random.choice(
            [
                f"{alias}.s > {low}",
                f"{alias}.d <= {low}",
                f"{alias}.a < {low}",
                f"{alias}.s <> {alias}.d",
                f"{alias}.s > c.id",
                f"{alias}.a + c.x > {low}",
                f"{alias}.s IS NOT NULL",
                f"c.id > {low}",
            ]
        )

    def conditions(self, alias: str, likely: float = 0.4) -> str:
        return f" AND {self.condition(alias)}" if self.random.random() < likely else ""


def add_join(query: Query, alias: str) -> None:
    kind = query.random.choice(["JOIN", "LEFT JOIN"])
    query.shapes.add("inner" if kind == "JOIN" else "left")
    query.source += f" {kind} affine {alias} ON {query.bind(alias)}{query.conditions(alias)}"
    query.select += query.random.sample([f"{alias}.s", f"{alias}.d", f"{alias}.a", f"coalesce({alias}.s, -99)"], 2)
    if query.random.random() < 0.3:
        query.where.append(query.condition(alias))
    if query.random.random() < 0.3:
        add_chain(query, alias)


def add_chain(query: Query, alias: str) -> None:
    query.shapes.add("chained")
    kind = query.random.choice(["JOIN", "LEFT JOIN"])
    query.source += f" {kind} chain {alias}c ON {alias}c.s = {alias}.{query.random.choice(['s', 'd'])}"
    query.select.append(f"{alias}c.t")
    if query.random.random() < 0.5:
        query.shapes.add("chained types")
        query.source += f" {kind} affine {alias}x ON {alias}x.a = {alias}c.t % 20 AND {alias}x.b = {query.value()}"
        query.select.append(f"{alias}x.d")


def add_right(query: Query, alias: str) -> None:
    query.shapes.add("right")
    query.source = f"affine {alias} RIGHT JOIN c ON {query.bind(alias)}{query.conditions(alias)}"
    query.values = [value for value in query.values if not value.startswith("e.")]
    query.select += [f"{alias}.s", f"{alias}.b"]


def add_exists(query: Query, alias: str) -> None:
    negation = query.random.choice(["", "NOT "])
    query.shapes.add("anti" if negation else "semi")
    bound = query.bind(alias)
    query.where.append(f"{negation}EXISTS (SELECT 1 FROM affine {alias} WHERE {bound}{query.conditions(alias, 0.8)})")


def add_in(query: Query, alias: str) -> None:
    if query.random.random() < 0.5:
        query.shapes.add("in")
        # Uncorrelated: before version 17, PostgreSQL makes a join of such an IN only.
        inner = f"SELECT {alias}.a FROM affine {alias} WHERE {alias}.b = 1 AND {alias}.s > {query.random.randint(0, 9)}"
    else:
        query.shapes.add("correlated in")
        inner = f"SELECT {alias}.d FROM affine {alias} WHERE {query.bind(alias)}{query.conditions(alias, 0.2)}"
    # A constant: PostgreSQL makes no join of it, and nothing binds the input.
    query.where.append(f"{query.random.choice(query.values)} IN ({inner})")


def add_pairs(query: Query, alias: str) -> None:
    query.shapes.add("unique outer")
    query.source += f" CROSS JOIN affine {alias}"
    query.where.append(
        f"({alias}.a, {alias}.b) IN (SELECT q.x, q.y FROM c q WHERE q.id < {query.random.randint(1, 9)})"
    )
    query.where.append(f"c.id < {query.random.randint(2, 6)}")
    query.select.append(f"{alias}.s")


def add_scalar(query: Query, alias: str) -> None:
    query.shapes.add("scalar")
    answer = query.random.choice([f"{alias}.s", f"{alias}.s + c.id", f"{alias}.d"])
    subquery = f"(SELECT {answer} FROM affine {alias} WHERE {query.bind(alias)}{query.conditions(alias)})"
    if "list" in query.shapes:
        subquery = subquery.replace(f"SELECT {answer}", f"SELECT max({answer})")
    place = query.random.random()
    if place < 0.5:
        query.select.append(query.random.choice([subquery, f"{subquery} * 2"]))
    elif place < 0.7:
        query.shapes.add("conditional")
        query.select.append(f"CASE WHEN c.id % 2 = 0 THEN {subquery} END")
    else:
        query.where.append(f"{subquery} > {query.random.randint(-2, 10)}")


def add_lateral(query: Query, alias: str) -> None:
    query.shapes.add("lateral")
    offset = query.random.choice(["", " OFFSET 0"])
    query.source += (
        f" CROSS JOIN LATERAL (SELECT {alias}.s, {alias}.d + c.id AS d FROM affine {alias} "
        f"WHERE {query.bind(alias)}{query.conditions(alias)}{offset}) l{alias}"
    )
    query.select += [f"l{alias}.s", f"l{alias}.d"]


def group(query: Query, alias: str) -> tuple[str, list[str]]:
    """A join of two or three models, and its columns."""
    chained = query.random.choice([f"{alias}.s", f"{alias}.d", f"coalesce({alias}.s, 1)", f"{alias}.a", "2.5"])
    source = f"affine {alias} JOIN chain {alias}c ON {alias}c.s = {chained}"
    if query.random.random() < 0.3:
        source += f" AND {alias}c.t > {query.random.randint(-3, 6)}"
    columns = [f"{alias}.s", f"{alias}.d", f"{alias}.b", f"{alias}c.t", f"coalesce({alias}c.t, {alias}.d, -7)"]
    if query.random.random() < 0.3:
        query.shapes.add("nested three")
        source += f" JOIN affine {alias}x ON {alias}x.a = {alias}c.t % 20 AND {alias}x.b = {alias}.b"
        columns.append(f"{alias}x.s")
    return source, columns


def add_nested(query: Query, alias: str) -> None:
    source, columns = group(query, alias)
    bound = f"{query.bind(alias)}{query.conditions(alias)}"
    if query.random.random() < 0.3:
        bound += query.random.choice([f" AND {alias}c.t > {query.value()}", f" AND {alias}c.t <> {alias}.d"])
    place = query.random.random()
    if place < 0.15:
        query.shapes.add("nested semi")
        query.where.append(f"EXISTS (SELECT FROM {source} WHERE {bound})")
        return
    if place < 0.3:
        query.shapes.add("nested anti")
        query.where.append(f"NOT EXISTS (SELECT FROM {source} WHERE {bound})")
        return
    if place < 0.5:
        query.shapes.add("nested derived")
        query.source += (
            f" LEFT JOIN (SELECT {alias}.*, {alias}c.t, coalesce({alias}c.t, 0) + {alias}.d AS both, 'x' AS mark "
            f"FROM {source}) {alias} ON {bound.replace(f'{alias}c.t', f'{alias}.t')}"
        )
        query.select += [f"{alias}.both", f"{alias}.mark", f"{alias}.s"]
        return
    query.shapes.add("nested join")
    query.source += f" LEFT JOIN ({source}) ON {bound}"
    query.select += query.random.sample(columns, 2)
    if query.random.random() < 0.3:
        query.where.append(query.random.choice([query.condition(alias), f"{alias}c.t IS NULL", f"{alias}.d < 2"]))


def add_view(query: Query, alias: str) -> None:
    query.shapes.add("derived")
    query.source += (
        f" LEFT JOIN (SELECT a, b, coalesce(s, 0) + 1 AS s, 'x' AS mark, d FROM affine) {alias} "
        f"ON {query.bind(alias)}{query.conditions(alias)}"
    )
    query.select += [f"{alias}.s", f"{alias}.mark"]


def add_union(query: Query, alias: str) -> None:
    source = "(SELECT a, b, s, d FROM affine UNION ALL SELECT s, s, s + 1, t::float8 FROM chain)"
    if query.random.random() < 0.4:
        source = "banded"
        query.shapes.add("partitions")
    else:
        query.shapes.add("union")
    value = query.value()
    other = value if source != "banded" and query.random.random() < 0.7 else query.value()
    bound = f"{alias}.a = {value} AND {alias}.b = {other}{query.conditions(alias)}"
    kind = query.random.choice(["JOIN", "LEFT JOIN", "EXISTS", "NOT EXISTS"])
    query.shapes.add(f"several {kind.lower()}")
    if "EXISTS" in kind:
        query.where.append(f"{kind} (SELECT FROM {source} {alias} WHERE {bound})")
        return
    query.source += f" {kind} {source} {alias} ON {bound}"
    query.select += query.random.sample([f"{alias}.s", f"{alias}.d", f"{alias}.a", f"coalesce({alias}.s, -99)"], 2)
    if query.random.random() < 0.3:
        query.where.append(query.condition(alias))


def add_beside(query: Query, alias: str) -> None:
    """A model on the nullable side beside several models, and a condition that reads both."""
    query.shapes.add("beside")
    source, shape = query.random.choice(
        [
            ("twice", "beside a union"),
            ("banded", "beside partitions"),
            ("affine", "beside a model"),
            ("(SELECT a, b, s, d FROM affine UNION ALL SELECT s, s, s + 1, t::float8 FROM chain)", "beside a union"),
        ]
    )
    query.shapes.add(shape)
    model = query.random.choice(["affine", "affine", "banded", "(SELECT a, b, coalesce(s, 0) + 1 AS s, d FROM affine)"])
    first = f"{alias}.a = {query.value()} AND {alias}.b = {query.value()}{query.conditions(alias)}"
    value = query.value()
    other = query.random.choice([value, query.value()] if source in ("twice", "banded", "affine") else [value])
    second = f"{alias}u.a = {value} AND {alias}u.b = {other}"
    both = query.random.choice(
        [
            f"({alias}.s IS NULL OR {alias}u.s > {query.random.randint(-3, 9)})",
            f"coalesce({alias}.s, 1) >= {alias}u.d",
            f"{alias}.d IS DISTINCT FROM {alias}u.d",
            f"({alias}.s < {alias}u.s OR {alias}.a IS NULL)",
        ]
    )
    place = query.random.random() if query.source == "c" else query.random.random() * 0.8
    kind = query.random.choice(["JOIN", "LEFT JOIN"])
    query.select += [f"{alias}.s", f"{alias}u.d"]
    if place < 0.5:
        query.source += f" LEFT JOIN {model} {alias} ON {first} {kind} {source} {alias}u ON {second}"
        query.where.append(both)
    elif place < 0.8:
        query.source += f" LEFT JOIN {model} {alias} ON {first} {kind} {source} {alias}u ON {second} AND {both}"
    else:
        query.shapes.add("full")
        query.source = (
            f"(SELECT c.*, {alias}.s FROM {query.source} LEFT JOIN {model} {alias} ON {first}) c FULL JOIN "
            f"(SELECT e.id, p.a, p.b, p.s, p.d FROM e {kind} {source} p ON p.a = e.w AND p.b = e.w) {alias}u "
            f"ON {alias}u.id = c.id"
        )
        query.select[-2] = "c.s"
        query.where.append(both.replace(f"{alias}.s", "c.s").replace(f"{alias}.d", "c.s").replace(f"{alias}.a", "c.s"))


ADD: tuple[Callable[[Query, str], None], ...] = (
    add_join,
    add_join,
    add_join,
    add_exists,
    add_exists,
    add_in,
    add_pairs,
    add_scalar,
    add_scalar,
    add_lateral,
    add_nested,
    add_nested,
    add_view,
    add_union,
    add_union,
    add_beside,
    add_beside,
)

# What the outer rows come from, and what else may be done with a query.
SOURCES_OF_C = {
    "partitioned": "divided c",
    "barrier": "barrier c",
    "subquery": "(SELECT * FROM c ORDER BY id LIMIT 20) c",
}


def write_query(source: random.Random) -> Query:
    """Write one query; ``source`` decides everything."""
    query = Query(source)
    query.select = ["c.id"]
    query.values = ["c.x", "c.y", "c.k", "c.n", "c.f", "c.x + 1", "c.y * 2", "(c.x - c.y)", "abs(c.k)"]
    if source.random() < 0.1:
        query.shapes.add("prepared")
    if source.random() < 0.1:
        add_right(query, "p")
    elif source.random() < 0.15:
        kind = source.choice(list(SOURCES_OF_C))
        query.shapes.add(kind)
        query.source = SOURCES_OF_C[kind]
    elif source.random() < 0.3:
        query.shapes.add("two tables")
        query.source = source.choice(["c JOIN e ON e.w = c.k", "c LEFT JOIN e ON e.id = c.id", "c CROSS JOIN e"])
        query.values += ["e.w", "e.v", "e.w + c.x"]
        query.select.append("e.id")
        query.where.append("c.id % 4 = 1")
    for alias in ("p", "q")[len(query.shapes & {"right"}) : source.choice([1, 1, 2])]:
        source.choice(ADD)(query, alias)
    if source.random() < 0.3:
        query.where.append(f"c.id {source.choice(['<', '>'])} {source.randint(1, 25)}")
    return query


# What is done with a query, how often in a hundred, and with which of its columns.
ENDINGS: dict[str, tuple[int, str]] = {
    "": (45, "{plain}"),
    "limit": (10, "{plain} ORDER BY {every} LIMIT {number}"),
    "group": (10, "SELECT o0 % 3, count(*), count(o{last}), max(o{last}) FROM ({plain}) t GROUP BY o0 % 3"),
    "cte": (5, "WITH t AS ({plain}) SELECT * FROM t WHERE o0 > 3"),
    "materialized": (5, "WITH t AS MATERIALIZED ({plain}) SELECT * FROM t WHERE o0 > 3"),
    "distinct": (5, "SELECT DISTINCT {every} FROM ({plain}) t"),
    "window": (5, "SELECT o0, count(*) OVER (PARTITION BY o0 % 5) FROM ({plain}) t"),
    "for update": (5, "{plain} FOR UPDATE OF c"),
    "insert": (5, "INSERT INTO sink SELECT o0, o{last}::text FROM ({plain}) t RETURNING *"),
    "cursor": (5, "DECLARE random CURSOR FOR {plain}"),
}
# Which endings PostgreSQL does not have for a query.
IMPOSSIBLE = {"prepared": {"cursor"}, "subquery": {"for update"}, "full": {"for update"}}


def finish(query: Query) -> str:
    """Put the query together, perhaps grouped, limited or nested."""
    columns = ", ".join(f"{expression} AS o{n}" for n, expression in enumerate(query.select))
    rescan = query.random.random() < 0.05
    where = " AND ".join([*query.where, *(["c.id % 4 = r.w"] if rescan else [])])
    plain = f"SELECT {columns} FROM {query.source}{f' WHERE {where}' if where else ''}"
    if rescan:
        query.shapes.add("rescan")
        return f"SELECT r.id, (SELECT count(*) FROM ({plain}) t) FROM e r"
    impossible = set().union(*(IMPOSSIBLE.get(shape, set()) for shape in query.shapes))
    endings = [ending for ending in ENDINGS if ending not in impossible]
    (ending,) = query.random.choices(endings, [ENDINGS[name][0] for name in endings])
    query.shapes |= {ending} - {""}
    every = ", ".join(f"o{n}" for n in range(len(query.select)))
    last = len(query.select) - 1
    return ENDINGS[ending][1].format(plain=plain, every=every, last=last, number=query.random.randint(1, 20))


@pytest.fixture(scope="module")
def session(database: Database) -> Iterator[Connection]:
    """A session that reads models or their local tables, as its search path says."""
    with random_session(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
def as_usual(session: Connection) -> None:
    """Let a test not suffer from what another one left."""
    if not session.closed:
        session.execute("ROLLBACK")


def run_query(session: Connection, source: random.Random, settings: dict[str, str], tally: Tally) -> None:
    """Write a query and compare it."""
    query = write_query(source)
    sql = finish(query)
    shapes = frozenset(query.shapes)
    if "prepared" in shapes:
        first, sql = prepared(sql)
        compare(session, Statement(sql, shapes, before=(first,)), settings, tally)
    else:
        after = ("FETCH ALL FROM random",) if "cursor" in shapes else ()
        compare(session, Statement(sql, shapes, after=after), settings, tally)


def test_random_queries(session: Connection, request: pytest.FixtureRequest) -> None:
    tally = run_random(session, request.config, QUERIES, run_query)
    tally.show("queries")
    tally.check(0.6)


def test_random_changes(session: Connection, request: pytest.FixtureRequest) -> None:
    tally = run_random(session, request.config, CHANGES, run_change)
    tally.show("changes")
    tally.check(0.5)


def test_random_cursors(session: Connection, request: pytest.FixtureRequest) -> None:
    tally = run_random(session, request.config, CURSORS, run_cursor)
    tally.show("cursors")
    tally.check(0.4)


def test_random_policies(session: Connection, request: pytest.FixtureRequest) -> None:
    tally = run_random(session, request.config, POLICIES, run_policy)
    tally.show("queries under policies")
    tally.check(0.4)


# Mistakes that were made, or could be: who finds them, and how. A backend with asserts dies instead.
DIED = "the backend died"
PLANTED: dict[str, tuple[RunOne, tuple[str, ...]]] = {
    "MODEL_FDW_BREAK_MAPPING": (run_query, ("surplus",)),
    "MODEL_FDW_BREAK_SOURCES": (run_query, (DIED,)),
    "MODEL_FDW_BREAK_GROUP": (run_change, ("negative bitmapset member", DIED)),
    "MODEL_FDW_BREAK_IDENTITY": (run_change, ("bogus varno", DIED)),
    "MODEL_FDW_BREAK_ORDER": (run_policy, ("leaked",)),
}


@pytest.mark.parametrize("flag", PLANTED)
def test_a_planted_mistake_is_found(database: Database, request: pytest.FixtureRequest, flag: str) -> None:
    run_one, signs = PLANTED[flag]
    with planted_session(database.triton, f"-D{flag}") as session:
        if flag == "MODEL_FDW_BREAK_SOURCES" and session.info.server_version < 160000:
            pytest.skip("before version 16, no set of relations holds outer joins")
        tally = run_random(session, request.config, QUERIES, run_one, lambda text: any(sign in text for sign in signs))
    found = tally.differences[-1] if tally.differences else "nothing"
    print(f"\n{flag} was found by statement {tally.statements + 1}: {found}")
    assert any(sign in found for sign in signs)
