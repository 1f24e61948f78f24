"""Random queries of an ordinary role under row-level security, with functions that tell what they saw."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from randomly import Connection, Difference, Tally, transaction

GUARDED = (
    "k = 1",
    "id % 3 = 0",
    "word = 'word 7'",
    "x > 2",
    "k = current_setting('random.tenant')::int",
    "(SELECT p.s FROM affine p WHERE p.a = x AND p.b = y) > 6",
    "(SELECT p.s FROM affine p WHERE p.a = x AND p.b = y) > 1000",
    "EXISTS (SELECT FROM affine p WHERE p.a = x AND p.b = y AND p.d > 2)",
    "k IN (SELECT p.d::bigint FROM affine p WHERE p.a IN (1, 2, 3) AND p.b = 1)",
    "(SELECT q.t FROM affine p JOIN chain q ON q.s = p.s WHERE p.a = x AND p.b = y) < 5",
)
SECURED = (
    "s = 5",
    "d = 1",
    "s = current_setting('random.tenant')::float8",
    "s > 6",
    "d < 2 AND s <> 3",
    "a = 1",
    "s = d + 5",
    "(SELECT q.t FROM chain q WHERE q.s = secured.s) > 5",
)
NOTICE = re.compile(r"leak (\w) (.*)")


def query(source: random.Random, shapes: set[str]) -> tuple[str, set[str]]:
    """Write a query, and say which relations' rows it may leak: g, p, v or h."""

    def leak(alias: str) -> str:
        values = {"g": "g.id::text", "p": "ROW(p.a, p.b, p.s, p.d)::text", "v": "ROW(v.*)::text", "h": "ROW(h.*)::text"}
        return f"leak('{alias}', coalesce({values[alias]}, ''))"

    def cross(first: str, second: str, row: str) -> str:
        """A leak of one relation that reads another, so that it is a join condition."""
        values = {"g": "g.id::text", "p": "ROW(p.a, p.b, p.s, p.d)::text"}
        return f"leak('{first}', coalesce({values[first]} || left({second}.{row}::text, 0), ''))"

    kind = source.choice(
        ["guarded", "guarded join", "guarded model", "secured", "secured guarded", "screened", "hidden"]
    )
    shapes.add(kind)
    join = source.choice(["JOIN", "JOIN", "LEFT JOIN"])
    low = source.choice(["", f" AND c.id < {source.randint(3, 12)}"])
    value = source.choice([("c.x", "c.y"), ("c.x", "c.k"), ("c.x + 1", "c.y")])
    bound = f"p.a = {value[0]} AND p.b = {value[1]}"
    sql = {
        "guarded": lambda: f"SELECT g.id, g.word FROM guarded g WHERE {leak('g')} AND g.id > {source.randint(0, 9)}",
        "guarded join": lambda: (
            f"SELECT c.id, g.word FROM c {join} guarded g ON g.id = c.id AND {cross('g', 'c', 'id')} WHERE true{low}"
        ),
        "guarded model": lambda: (
            f"SELECT g.id, p.s FROM guarded g {join} affine p ON p.a = g.x AND p.b = g.y "
            f"WHERE {leak('g')} AND {cross('g', 'p', 's')}"
        ),
        "secured": lambda: (
            f"SELECT c.id, p.s FROM c {join} secured p ON {bound} "
            f"AND {source.choice([leak('p'), cross('p', 'c', 'id')])} WHERE true{low}"
        ),
        "secured guarded": lambda: (
            f"SELECT g.id, p.s FROM guarded g {join} secured p ON p.a = g.x AND p.b = g.y "
            f"AND {source.choice([leak('p'), cross('p', 'g', 'id')])} WHERE {leak('g')}"
        ),
        "screened": lambda: f"SELECT c.id, v.s FROM c {join} screened v ON v.id = c.id AND {leak('v')} WHERE true{low}",
        "hidden": lambda: (
            f"SELECT h.a, h.s FROM hidden h WHERE h.a = {source.randint(0, 4)} AND h.b = 1 AND {leak('h')}"
        ),
    }[kind]()
    return sql, set(re.findall(r"leak\('(\w)'", sql))


@contextmanager
def as_reader(session: Connection, schema: str, settings: dict[str, str], policies: dict[str, str]) -> Iterator[None]:
    """A transaction of the ordinary role, under policies."""
    with transaction(session, schema, settings):
        session.execute("SET LOCAL random.tenant = '5'")
        for table, policy in policies.items():
            session.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY".encode())
            session.execute(f"CREATE POLICY random ON {table} TO reader USING ({policy})".encode())
        session.execute("SET LOCAL ROLE reader")
        yield


def seen(session: Connection, schema: str, settings: dict[str, str], policies: dict[str, str], sql: str) -> set[str]:
    """What a query of the role returns, each row as text."""
    with as_reader(session, schema, settings, policies):
        return {str(row[0]) for row in session.execute(sql.encode()).fetchall()}


ALLOWED = {
    "g": "SELECT id::text FROM guarded",
    "p": "SELECT ROW(p.*)::text FROM secured p",
    "v": "SELECT ROW(v.*)::text FROM screened v",
    "h": "SELECT ROW(h.*)::text FROM hidden h",
}
# What an alias is where an outer join found nothing.
NOTHING = {"", "(,,,)", "(,,,,)"}


def run_policy(session: Connection, source: random.Random, settings: dict[str, str], tally: Tally) -> None:
    """Compare a query's rows, and what its functions saw with what the policies show."""
    settings = {name: value for name, value in settings.items() if not name.endswith("collapse_limit")}
    shapes: set[str] = set()
    sql, tags = query(source, shapes)
    policies = {"guarded": source.choice(GUARDED), "secured": source.choice(SECURED)}
    shapes |= {f"policy: {policy}" for table, policy in policies.items() if table in sql}
    leaks: list[tuple[str, str]] = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        found = NOTICE.fullmatch(diagnostic.message_primary or "")
        if found:
            leaks.append((found[1], found[2]))

    def run(schema: str, node: str) -> Counter[tuple[Any, ...]] | str:
        leaks.clear()
        some = {**settings, "model_fdw.enable_model_join": node}
        try:
            with as_reader(session, schema, some, policies):
                return Counter(session.execute(sql.encode()).fetchall())
        except psycopg.Error as error:
            if session.closed:
                raise Difference(f"the backend died: {sql}") from None
            return f"{error.sqlstate}: {error}"

    def context() -> str:
        return f"{sql} under {policies}\n{plan}"

    session.add_notice_handler(notice)
    try:
        expected = run("reference", "on")
        assert not isinstance(expected, str), f"no query: {expected} {sql}"
        allowed = {tag: seen(session, "reference", {}, policies, ALLOWED[tag]) | NOTHING for tag in tags}
        plan = "no plan"
        try:
            with as_reader(session, "ml", settings, policies):
                plan = "\n".join(row[0] for row in session.execute(f"EXPLAIN (VERBOSE) {sql}".encode()).fetchall())
        except psycopg.Error as error:
            raise Difference(f"EXPLAIN (VERBOSE) failed with {error.sqlstate}: {error} {context()}") from None
        tally.count(shapes, plan)
        for node in ("on", "off"):
            found = run("ml", node)
            if found != expected:
                raise Difference(f"node {node}: {found} instead of {expected}, {context()}")
            leaked = {f"{tag} {value}" for tag, value in leaks if value not in allowed[tag]}
            if leaked:
                raise Difference(f"node {node}: leaked {sorted(leaked)[:9]}, {context()}")
    finally:
        session.remove_notice_handler(notice)
