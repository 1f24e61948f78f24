"""Random statements that change rows of plain, partitioned and inherited tables, and random cursors."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import psycopg
from randomly import Connection, Difference, Statement, Tally, compare, explain, prepared, transaction

TARGETS = ("kept", "parted", "parent")
# What a changed row is joined with, one row of it at most.
OTHERS = ("e", "(SELECT id, k AS w, n AS v FROM c WHERE id < 25) e")


@dataclass
class Change:
    """A change that is being written: of alias o, with models and table e."""

    random: random.Random
    version: int
    target: str
    shapes: set[str] = field(default_factory=set)

    def value(self, row: str) -> str:
        """An expression of a row, for an input."""
        if self.random.random() < 0.15:
            return self.random.choice(["1", "2.5", "0", *(["$1"] if "prepared" in self.shapes else [])])
        if row == "e":
            return self.random.choice(["e.w", "e.v", "e.w + 1"])
        return self.random.choice([f"{row}.x", f"{row}.y", f"{row}.k", f"{row}.x + 1", f"abs({row}.k)"])

    def condition(self) -> str:
        low = self.random.randint(-2, 9)
        some = ["", "", f" AND p.s > {low}", f" AND p.d <= {low}", f" AND p.a < {low}", " AND p.s <> p.d"]
        return self.random.choice(some)

    def bound(self, row: str) -> str:
        return f"p.a = {self.value(row)} AND p.b = {self.value(row)}{self.condition()}"

    def model(self, row: str) -> tuple[str, str, list[str]]:
        """What gives at most one row for a row: the source, its condition, and columns of it."""
        kind = self.random.choice(["one", "one", "chained", "left chained", "union", "view", "partitions"])
        self.shapes.add(f"model: {kind}")
        columns = ["p.s", "p.d", "p.a + p.s"]
        union = "(SELECT a, b, s, d, 1 AS m FROM affine UNION ALL SELECT a, b, d, s, 2 FROM affine) p"
        member = f" AND p.m = 1 + {row}.id % 2"
        return {
            "one": ("affine p", "", columns),
            "chained": ("affine p JOIN chain pc ON pc.s = p.d", "", [*columns, "pc.t"]),
            "left chained": ("affine p LEFT JOIN chain pc ON pc.s = p.s AND pc.t > 3", "", [*columns, "pc.t"]),
            "union": (union, member, columns),
            "view": ("twice p", member, columns),
            "partitions": ("banded p", "", columns),
        }[kind]

    def assign(self, value: str) -> str:
        """A SET clause."""
        more = self.random.choice(["", "", ", note = o.note || '+'", f", note = ({value})::text", ", id = o.id + 1000"])
        return f"n = {value}{more}"

    def returning(self, *columns: str) -> str:
        """A RETURNING clause."""
        if self.random.random() < 0.3:
            return ""
        self.shapes.add("returning")
        subquery = "(SELECT r.s FROM affine r WHERE r.a = o.x AND r.b = o.y)"
        some = ["o.n", "o.note", "o.tableoid::regclass::text", "(o)::text", "o.x + o.y", subquery, *columns, *columns]
        return f" RETURNING o.id, {', '.join(self.random.sample(some, 3))}"

    def subquery(self, row: str, answer: str) -> str:
        other = self.random.random() < 0.3
        return (
            f"(SELECT {answer} FROM affine p{' LEFT JOIN chain pc ON pc.s = p.s' if other else ''} "
            f"WHERE p.a = {self.value(row)} AND p.b = {self.value('o')}{self.condition()})"
        )


def write_update(change: Change) -> str:  # noqa: PLR0911
    target = f"UPDATE {change.target} o SET"
    other = change.random.choice(OTHERS)
    kind = change.random.choice(
        ["from", "from", "from both", "from left", "subquery", "subquery from", "row", "exists", "in"]
    )
    change.shapes.add(f"update {kind}")
    if kind == "from":
        source, member, columns = change.model("o")
        value = change.random.choice(columns)
        where = f"{change.bound('o')}{member}"
        return f"{target} {change.assign(value)} FROM {source} WHERE {where}{change.returning(value)}"
    if kind == "from both":
        source, member, columns = change.model("o")
        value = change.random.choice(columns)
        where = f"e.id = o.id AND p.a = {change.value('o')} AND p.b = {change.value('e')}{member}"
        return f"{target} {change.assign(value)} FROM {other}, {source} WHERE {where}{change.returning(value, 'e.v')}"
    if kind == "from left":
        source, member, columns = change.model("e")
        value = f"coalesce({change.random.choice(columns)}, -1)"
        source = (
            f"{other} LEFT JOIN ({source}) ON {change.bound('e')}{member}"
            if " JOIN " in source
            else (f"{other} LEFT JOIN {source} ON {change.bound('e')}{member}")
        )
        more = change.random.choice(["", " AND (p.s IS NULL OR o.x > 1)"])
        return f"{target} {change.assign(value)} FROM {source} WHERE e.id = o.id{more}{change.returning(value)}"
    if kind == "subquery":
        where = change.random.choice(["", " WHERE o.k > 0", " WHERE o.id < 12"])
        return f"{target} {change.assign(change.subquery('o', 'p.s'))}{where}{change.returning()}"
    if kind == "subquery from":
        value = change.subquery("e", "p.d")
        return f"{target} {change.assign(value)} FROM {other} WHERE e.id = o.id{change.returning('e.w')}"
    if kind == "row":
        source = change.random.choice(["", f" FROM {other} WHERE e.id = o.id"])
        answer = change.subquery("e" if source else "o", "p.s, 'row ' || p.d")
        return f"{target} (n, note) = {answer}{source}{change.returning()}"
    if kind == "in":
        where = "o.x IN (SELECT p.d FROM affine p WHERE p.a = 3 AND p.b = 1 AND p.s > 2)"
        return f"{target} {change.assign('o.n + 1')} WHERE {where}{change.returning()}"
    return f"{target} {change.assign('o.n + 1')} WHERE {exists(change)}{change.returning()}"


def exists(change: Change) -> str:
    source, member, _ = change.model("o")
    negation = change.random.choice(["", "NOT "])
    change.shapes.add(f"{negation.lower()}exists")
    return f"{negation}EXISTS (SELECT FROM {source} WHERE {change.bound('o')}{member})"


def write_delete(change: Change) -> str:
    target = f"DELETE FROM {change.target} o"
    kind = change.random.choice(["using", "using", "using left", "exists", "exists", "subquery"])
    change.shapes.add(f"delete {kind}")
    other = change.random.choice(OTHERS)
    if kind == "using":
        source, member, columns = change.model("o")
        value = change.random.choice(columns)
        return f"{target} USING {source} WHERE {change.bound('o')}{member}{change.returning(value)}"
    if kind == "using left":
        source = f"{other} LEFT JOIN affine p ON {change.bound('e')}"
        where = f"e.id = o.id AND (p.s IS NULL OR p.s > {change.random.randint(0, 9)})"
        return f"{target} USING {source} WHERE {where}{change.returning('p.s', 'e.v')}"
    if kind == "subquery":
        return f"{target} WHERE {change.subquery('o', 'p.s')} > {change.random.randint(0, 9)}{change.returning()}"
    return f"{target} WHERE {exists(change)}{change.returning()}"


def write_merge(change: Change) -> str:
    kind = change.random.choice(["model", "join"])
    change.shapes.add(f"merge {kind}")
    if kind == "model":
        source, member, columns = change.model("o")
        on = f"{change.bound('o')}{member}"
        source = source if " JOIN " not in source else "affine p"
        value = columns[0]
        insert = ""
    else:
        source, member, columns = change.model("e")
        source = f"({source})" if " JOIN " in source else source
        value = "q.value"
        source = (
            f"(SELECT e.id + {change.random.choice([0, 3, 20])} AS id, {change.random.choice(columns)} AS value "
            f"FROM {change.random.choice(OTHERS)} {change.random.choice(['JOIN', 'LEFT JOIN'])} {source} "
            f"ON {change.bound('e')}{member}) q"
        )
        on = "q.id = o.id"
        insert = change.random.choice(
            [
                "",
                f" WHEN NOT MATCHED THEN INSERT (id, n) VALUES (q.id, {value})",
                " WHEN NOT MATCHED AND q.id % 2 = 0 THEN INSERT (note, id, n) VALUES ('new', q.id, q.value)",
            ]
        )
    delete = change.random.choice(
        ["", f" WHEN MATCHED AND {value} > 5 THEN DELETE", " WHEN MATCHED AND o.x > 4 THEN DO NOTHING"]
    )
    update = f" WHEN MATCHED THEN UPDATE SET n = {value}, note = o.note || '!'"
    returning = ""
    if change.version >= 170000 and change.random.random() < 0.5:
        returning = f" RETURNING merge_action(), o.id, o.n, {value}"
    return f"MERGE INTO {change.target} o USING {source} ON {on}{delete}{update}{insert}{returning}"


def write_insert(change: Change) -> str:
    source, member, columns = change.model("e")
    source = f"({source})" if " JOIN " in source else source
    row = (
        f"SELECT e.id + {change.random.choice([0, 4, 20])}, e.w, e.w + 1, {change.random.choice(columns)} "
        f"FROM {change.random.choice(OTHERS)} {change.random.choice(['JOIN', 'LEFT JOIN'])} {source} "
        f"ON {change.bound('e')}{member}"
    )
    subquery = "(SELECT p.s FROM affine p WHERE p.a = excluded.x AND p.b = o.y)"
    conflict = change.random.choice(
        [
            "DO NOTHING",
            "DO UPDATE SET n = excluded.n + o.id",
            f"DO UPDATE SET n = {subquery}",
            "DO UPDATE SET n = excluded.n, note = 'conflict' WHERE o.k > 0",
            f"DO UPDATE SET note = 'conflict' WHERE {subquery} > 5",
        ]
    )
    # Rows of the children are in no index of the parent.
    change.shapes.add(f"insert {conflict.split(' SET')[0].lower()}")
    return f"INSERT INTO {change.target} AS o (id, x, y, n) {row} ON CONFLICT (id) {conflict}{change.returning()}"


def write_lock(change: Change) -> str:
    source, member, columns = change.model("o")
    change.shapes.add("lock")
    source = f"({source})" if " JOIN " in source else source
    columns = ["o.id", "o.tableoid::regclass", change.random.choice(columns)]
    join = f"{change.target} o {change.random.choice(['JOIN', 'LEFT JOIN'])} {source} ON {change.bound('o')}{member}"
    return f"SELECT {', '.join(columns)} FROM {join} FOR {change.random.choice(['UPDATE', 'SHARE'])} OF o"


WRITERS = (write_update, write_update, write_update, write_delete, write_delete, write_merge, write_insert, write_lock)

# Changes of model tables: none, whatever the plan.
REFUSED = (
    "UPDATE {model} o SET s = 1 FROM e WHERE o.a = e.w AND o.b = 1",
    "UPDATE {model} o SET s = 1 WHERE o.a = 1 AND o.b = 1",
    "DELETE FROM {model} o USING e WHERE o.a = e.w AND o.b = 1",
    "DELETE FROM {model} o WHERE o.a = 1 AND o.b = 1 AND EXISTS (SELECT FROM affine p WHERE p.a = o.s AND p.b = o.d)",
    "INSERT INTO {model} SELECT x, y FROM c",
    "MERGE INTO {model} o USING e ON o.a = e.w AND o.b = 1 WHEN MATCHED THEN DELETE",
    "MERGE INTO {model} o USING affine p ON p.a = o.a AND p.b = o.b AND o.a = 1 AND o.b = 1 WHEN MATCHED THEN DELETE",
    "SELECT * FROM {model} o JOIN e ON o.a = e.w AND o.b = e.w FOR UPDATE OF o",
)
REFUSALS = frozenset({"0A000", "55000", "42809", "HV00L"})


def run_change(session: Connection, source: random.Random, settings: dict[str, str], tally: Tally) -> None:
    """Write a change and compare it: what it returns, and the table's rows after it."""
    version = session.info.server_version
    if source.random() < 0.04:
        sql = source.choice(REFUSED).format(model=source.choice(["affine", "banded", "banded_low"]))
        if version >= 150000 or "MERGE" not in sql:
            statement = Statement(sql, frozenset({"refused"}), refused=REFUSALS)
            if not sql.startswith("SELECT"):
                compare(session, statement, settings, tally)
        return
    change = Change(source, version, source.choice(TARGETS))
    if source.random() < 0.15:
        change.shapes.add("prepared")
    write = source.choice([writer for writer in WRITERS if version >= 150000 or writer is not write_merge])
    sql = write(change)
    change.shapes |= {f"{write.__name__.removeprefix('write_')} of {change.target}"}
    if " RETURNING o.id" in sql and not sql.startswith("MERGE") and source.random() < 0.15:
        change.shapes.add("in a CTE")
        sql = f"WITH done AS ({sql}) SELECT done.*, q.s FROM done LEFT JOIN affine q ON q.a = done.id % 8 AND q.b = 1"
    before: tuple[str, ...] = ()
    if "prepared" in change.shapes:
        first, sql = prepared(sql)
        before = (first,)
    after = (f"SELECT tableoid::regclass::text, o.id, o.x, o.y, o.k, o.n, o.note FROM {change.target} o",)
    compare(session, Statement(sql, frozenset(change.shapes), before, after), settings, tally)


# ---- cursors ----

DDL = (
    "ALTER FOREIGN TABLE affine DROP COLUMN d CASCADE",
    "ALTER FOREIGN TABLE affine ADD COLUMN more float8",
    "ALTER FOREIGN TABLE affine OPTIONS (SET model 'chain')",
    "ALTER FOREIGN TABLE affine ALTER COLUMN d TYPE float4",
    "DROP FOREIGN TABLE affine CASCADE",
    "DROP FOREIGN TABLE banded_low",
    "ALTER TABLE banded DETACH PARTITION banded_high",
    "ALTER TABLE banded DROP COLUMN d CASCADE",
    "DROP TABLE banded CASCADE",
    "DROP VIEW twice",
    "TRUNCATE c",
    "ALTER TABLE c DROP COLUMN n CASCADE",
)
# In use by the cursor, or by a view.
DDL_REFUSALS = frozenset({"55006", "0A000"})
CURSORS = {
    "join": "SELECT c.id, p.s, p.d FROM c {kind} affine p ON p.a = c.x AND p.b = c.y",
    "union": "SELECT c.id, p.s, p.d FROM c {kind} twice p ON p.a = c.x AND p.b = c.y",
    "partitions": "SELECT c.id, p.s, p.d FROM c {kind} banded p ON p.a = c.x AND p.b = c.y",
    "group": "SELECT c.id, p.d, q.t FROM c {kind} (affine p JOIN chain q ON q.s = p.s) ON p.a = c.x AND p.b = c.y",
    "subquery": "SELECT c.id, (SELECT p.s - p.d FROM affine p WHERE p.a = c.x AND p.b = c.y) FROM c",
    "exists": "SELECT c.id FROM c WHERE NOT EXISTS (SELECT FROM affine p WHERE p.a = c.x AND p.b = c.y AND p.d > 1)",
    "scan": "SELECT p.a, p.s, p.d FROM affine p WHERE p.a IN (1, 2, 3, 4, 5) AND p.b = 1",
}


def run_cursor(session: Connection, source: random.Random, settings: dict[str, str], tally: Tally) -> None:
    """Change tables between two fetches of a cursor, or rows where it stands."""
    settings = {name: value for name, value in settings.items() if not name.endswith("collapse_limit")}
    if source.random() < 0.3:
        run_current_of(session, source, settings, tally)
        return
    kind = source.choice(list(CURSORS))
    query = CURSORS[kind].format(kind=source.choice(["JOIN", "LEFT JOIN"]))
    ddl = source.choice(DDL)
    scroll = source.choice(["", "SCROLL "])
    declare = f"DECLARE random {scroll}CURSOR FOR {query}"
    plan = explain(session, "ml", settings, Statement(declare))
    tally.count({f"cursor: {kind}", f"ddl: {' '.join(ddl.split()[:5])}"}, plan)
    with transaction(session, "reference", settings):
        expected = sorted(map(str, session.execute(query.encode()).fetchall()))
    for node in ("on", "off"):
        steps = f"{declare}; FETCH 2; {ddl}; FETCH ALL (node {node})"
        with transaction(session, "ml", {**settings, "model_fdw.enable_model_join": node}):
            session.execute(declare.encode())
            rows = session.execute("FETCH 2 FROM random").fetchall()
            session.execute("SAVEPOINT before")
            try:
                session.execute(ddl.encode())
            except psycopg.Error as error:
                if error.sqlstate not in DDL_REFUSALS:
                    raise Difference(f"{steps}: DDL ended with {error.sqlstate}: {error}\n{plan}") from None
                session.execute("ROLLBACK TO before")
            try:
                rows += session.execute("FETCH ALL FROM random").fetchall()
            except psycopg.Error as error:
                raise Difference(f"{steps}: {error.sqlstate}: {error}\n{plan}") from None
        if sorted(map(str, rows)) != expected:
            raise Difference(f"{steps}: {len(rows)} rows differ\n{plan}")


CURRENT = {
    "plain": "SELECT o.id FROM {target} o WHERE o.id > 3",
    "join": "SELECT o.id, p.s FROM {target} o LEFT JOIN affine p ON p.a = o.x AND p.b = o.y",
    "union": "SELECT o.id, p.s FROM {target} o JOIN twice p ON p.a = o.x AND p.b = o.y",
    "subquery": "SELECT o.id, (SELECT p.s FROM affine p WHERE p.a = o.x AND p.b = o.y) FROM {target} o",
}


def run_current_of(session: Connection, source: random.Random, settings: dict[str, str], tally: Tally) -> None:
    """The row where a cursor stands is the row that is changed."""
    target, kind = source.choice(TARGETS), source.choice(list(CURRENT))
    # Without FOR UPDATE, PostgreSQL wants a scan of the table and nothing above that.
    lock = " FOR UPDATE OF o" if kind != "plain" or source.random() < 0.5 else ""
    declare = f"DECLARE random CURSOR FOR {CURRENT[kind].format(target=target)}{lock}"
    tally.count({f"current of: {kind}"}, explain(session, "ml", settings, Statement(declare)))
    change = source.choice(
        [
            f"UPDATE {target} o SET n = (SELECT p.s FROM affine p WHERE p.a = o.x AND p.b = 1) "
            "WHERE CURRENT OF random RETURNING id",
            f"DELETE FROM {target} o WHERE CURRENT OF random RETURNING id",
        ]
    )
    for node in ("on", "off"):
        steps = f"{declare}; FETCH; {change} (node {node})"
        try:
            with transaction(session, "ml", {**settings, "model_fdw.enable_model_join": node}):
                session.execute(declare.encode())
                current = session.execute(f"FETCH {source.randint(1, 9)} FROM random".encode()).fetchall()[-1]
                changed = session.execute(change.encode()).fetchall()
        except psycopg.Error as error:
            raise Difference(f"{steps}: {error.sqlstate}: {error}") from None
        if changed != [(current[0],)]:
            raise Difference(f"{steps}: changed {changed}, the cursor was at {current}")
