"""A model with real weights, pgvector and an index: the example "documents"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from conftest import Database
from direct import Direct

pytestmark = pytest.mark.hosts("native", reason="the engine behind both is the same")

Connection = psycopg.Connection[Any]

EXAMPLE = Path(__file__).parents[2] / "examples" / "documents.sql"

# What somebody asks, and the document that answers it; no telling word is the same.
QUESTIONS = {
    "I cannot log in any more": "To reset your password",
    "How long does shipping take?": "Parcels are delivered",
    "I want a refund": "You can return an article",
    "Are pets allowed?": "Dogs and cats are welcome",
    "What will the weather be like?": "Tomorrow it will rain",
    "Who won the football game?": "The striker scored",
}

NEAREST = """
SELECT text FROM documents
ORDER BY embedding <=> (SELECT embedding FROM ml.embedder WHERE text = '{}') LIMIT 5
"""


@pytest.fixture(scope="module")
def documents(database: Database) -> Iterator[tuple[Connection, list[str]]]:
    """A session in which the example has run, with what its last statement shows."""
    with database.session() as connection, connection.transaction(force_rollback=True):
        (available,) = connection.execute("SELECT FROM pg_available_extensions WHERE name = 'vector'").fetchall() or [
            None
        ]
        if available is None:
            pytest.skip("this PostgreSQL has no pgvector")
        cursor = connection.execute(EXAMPLE.read_bytes())
        while cursor.nextset():
            pass
        yield connection, [text for (text,) in cursor.fetchall()]


def test_the_example(documents: tuple[Connection, list[str]]) -> None:
    connection, shown = documents
    assert len(shown) == 5
    assert shown[0].startswith(QUESTIONS["I cannot log in any more"])
    found = connection.execute("SELECT count(*), min(vector_dims(embedding)) FROM documents").fetchall()
    assert found == [(20, 384)]


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_index_finds_the_answer(documents: tuple[Connection, list[str]], question: str) -> None:
    connection, _ = documents
    sql = NEAREST.format(question)
    with connection.transaction(force_rollback=True):
        exact = connection.execute(sql.encode()).fetchall()
        connection.execute("SET LOCAL enable_seqscan = off")  # 20 rows are no reason for an index
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN (COSTS OFF) {sql}".encode()).fetchall())
        assert "Index Scan using documents_by_meaning on documents" in plan
        assert "Foreign Scan on embedder" in plan
        found = connection.execute(sql.encode()).fetchall()
    assert found[0][0].startswith(QUESTIONS[question])
    assert found == exact


def test_many_questions_in_one_join(documents: tuple[Connection, list[str]]) -> None:
    connection, _ = documents
    sql = """
        SELECT q.text, d.text
        FROM unnest(%s::text[]) q (text) JOIN ml.embedder e USING (text)
        CROSS JOIN LATERAL (SELECT * FROM documents d ORDER BY d.embedding <=> e.embedding LIMIT 1) d
    """
    found = dict(connection.execute(sql, [list(QUESTIONS)]).fetchall())
    assert {question: found[question].startswith(answer) for question, answer in QUESTIONS.items()} == dict.fromkeys(
        QUESTIONS, True
    )
    (plan,) = zip(*connection.execute(f"EXPLAIN {sql}".encode(), [list(QUESTIONS)]).fetchall())
    assert any("Custom Scan (Model Join)" in line for line in plan)


def test_embeddings_are_those_of_the_model(database: Database, documents: tuple[Connection, list[str]]) -> None:
    connection, _ = documents
    rows = connection.execute("SELECT text, embedding::real[] FROM documents").fetchall()
    texts = np.array([[text.encode()] for text, _ in rows], np.object_)
    (expected,) = Direct(database.triton.grpc).infer("embedder", {"text": ("BYTES", texts)}, ["embedding"])
    assert np.array([embedding for _, embedding in rows], np.float32).tobytes() == expected.tobytes()
    assert np.allclose(np.linalg.norm(expected, axis=1), 1)
