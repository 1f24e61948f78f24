from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from fake_server import FAKE, FakeModel, FakeServer
from helpers import fails, fake_table, finish, table

from fdw import definitions, errors, host, importer, options
from fdw.signature import Model, TensorSpec


def model(name: str = "m", max_batch_size: int = 8192, **fields: Any) -> Model:
    batched = fields.pop("batched", True)
    return Model(name, "", fields.pop("inputs", ()), fields.pop("outputs", ()), batched, max_batch_size, **fields)


def define(defined: Model, **settings: str) -> tuple[list[tuple[str, str, dict[str, str]]], list[str]]:
    notices: list[definitions.Notice] = []
    table = definitions.define_table(defined, defined.name, 4096, options.read_import(settings), notices)
    return [(c.name, c.type, c.options) for c in table.columns], [notice.message for notice in notices]


def run(
    server: FakeServer,
    restriction: str = "all",
    names: tuple[str, ...] = (),
    schema: str = "models",
    existing: tuple[dict[str, Any], ...] = (),
    **settings: str,
) -> Any:
    described = {"oid": 5, "name": "s", "options": {"url": server.url}}
    return finish(host.import_schema(described, {}, schema, restriction, list(names), settings, existing))


def test_a_statement_word_for_word() -> None:
    risky = FakeModel(
        (("v", "FP32", (-1, 2)), ("it's", "BYTES", (-1, 1))),
        (('p"q', "FP32", (-1, 1)),),
        dict,
        max_batch_size=16,
        optional=frozenset({"it's"}),
    )
    with FakeServer(models={'a"b\\': risky}) as server:
        ddl, notices = run(server, expand="all")
    assert notices == []
    assert ddl == [
        'CREATE FOREIGN TABLE "a""b\\" (\n'
        "\t\"v_1\" double precision OPTIONS (input 'v', dtype 'FP32', shape '[-1,2]', index '1'),\n"
        "\t\"v_2\" double precision OPTIONS (input 'v', dtype 'FP32', shape '[-1,2]', index '2'),\n"
        "\t\"it's\" text OPTIONS (input 'it''s', dtype 'BYTES', shape '[-1,1]', optional 'true'),\n"
        "\t\"p\"\"q\" real OPTIONS (output 'p\"q', dtype 'FP32', shape '[-1,1]')\n"
        ") SERVER \"s\" OPTIONS (model  E'a\"b\\\\', batch_size '16')"
    ]


def test_a_name_that_no_model_has_is_told() -> None:
    with FakeServer(models={"triangle": FAKE, "churn": FAKE}) as server:
        ddl, notices = run(server, "limit to", ("triangle", "chrun", "zzz"))
        assert len(ddl) == 1
        where = f"127.0.0.1:{server.port}"
        assert [(notice[0], notice[2]) for notice in notices] == [
            (f'model server "{where}" has no model "chrun"', 'Perhaps you meant "churn".'),
            (f'model server "{where}" has no model "zzz"', None),
        ]
        assert len(run(server, "except", ("chrun",))[1]) == 1


def test_what_is_imported_can_be_read_back_and_needs_no_server() -> None:
    with FakeServer() as server:
        defined = finish_definitions(server)[0]
        described = {
            "oid": 1,
            "schema": "public",
            "name": defined.name,
            "options": defined.options,
            "server": {"oid": 2, "name": "s", "options": {"url": server.url}},
            "user_mapping": {},
            "columns": [
                {"attnum": number, "name": column.name, "type": column.type, "options": column.options}
                for number, column in enumerate(defined.columns, start=1)
            ],
        }
        calls = dict(server.calls)
        ticket = host.describe(described)
        assert host.poll(ticket) == 0
        assert host.collect(ticket)[0] == [(1, "i", "d", False), (2, "o", "d", False), (3, "o", "s", False)]
        assert server.calls == calls
        finish(host.open(described, [1], [2, 3]))


def finish_definitions(server: FakeServer) -> list[definitions.TableDefinition]:
    from fdw.tickets import Ticket

    parsed = options.read_server(1, "s", {"url": server.url}, {})
    everything = importer.import_tables(parsed, "models", importer.Restriction(), options.ImportOptions(), {})
    tables, _ = finish(Ticket(everything))
    return list(tables)


def test_limit_to_and_except() -> None:
    models = dict.fromkeys(("a", "b", "c"), FAKE)
    with FakeServer(models=models) as server:

        def names(restriction: str, *given: str) -> list[str]:
            ddl, notices = run(server, restriction, given)
            assert notices == []
            return [statement.split('"')[1] for statement in ddl]

        assert names("all") == ["a", "b", "c"]
        assert names("limit to", "c", "a") == ["a", "c"]
        assert server.calls["ModelMetadata"] == 5, "only what is imported is asked for"
        assert names("except", "b") == ["a", "c"]


def test_tensors_that_are_arrays() -> None:
    model = FakeModel(
        (("x", "FP32", (-1, -1)), ("words", "BYTES", (-1, 2, 2))), (("y", "FP32", (-1, 2, -1)),), lambda inputs: inputs
    )
    with FakeServer(models={"m": model}) as server:
        (statement,), _ = run(server)
        assert (
            """(
\t"x" double precision[] OPTIONS (input 'x', dtype 'FP32', shape '[-1,-1]'),
\t"words" text[] OPTIONS (input 'words', dtype 'BYTES', shape '[-1,2,2]'),
\t"y" real[] OPTIONS (output 'y', dtype 'FP32', shape '[-1,2,-1]')
)"""
            in statement
        )


def test_models_that_are_skipped_say_why() -> None:
    models = {
        "fine": FAKE,
        "broken": replace(FAKE, ready=False),
        "stream": replace(FAKE, decoupled=True),
        "seq": replace(FAKE, sequence=True),
        "deep": replace(FAKE, inputs=(("x", "FP32", (-1, 1, 1, 1, 1, 1, 1, 2)),)),
    }
    with FakeServer(models=models) as server:
        ddl, notices = run(server)
        assert len(ddl) == 1
        assert notices == [
            ('skipped model "broken": it is not ready: no weights', None, None),
            (
                'skipped model "deep": input tensor "x" of model "deep" has shape [1,1,1,1,1,1,2] per row, '
                "and an array has at most 6 dimensions",
                None,
                None,
            ),
            ('skipped model "seq": model "seq" is a sequence model, which is not supported', None, None),
            ('skipped model "stream": model "stream" is decoupled, which is not supported', None, None),
        ]
        assert run(server, "except", ("broken", "deep", "seq", "stream"))[1] == []
        for name in ("stream", "seq", "deep"):
            with pytest.raises(errors.Unsupported):
                run(server, "limit to", (name,))
        with fails(
            "55000",
            f'model "broken" on model server "127.0.0.1:{server.port}" is not ready',
            "The server said: no weights",
            "Load the model on the server, or wait until it is loaded.",
        ):
            run(server, "limit to", ("broken",))


def test_the_remote_schema_is_called_models() -> None:
    with FakeServer() as server:
        with fails(
            "HV00Q",
            f'remote schema "public" does not exist on model server "127.0.0.1:{server.port}"',
            None,
            'Import from remote schema "models".',
        ):
            run(server, schema="public")
        assert server.calls == {}


def test_a_server_without_repository_index() -> None:
    with FakeServer() as server:
        import grpc
        from fake_server import Behaviour

        server.behaviour = Behaviour(
            status=grpc.StatusCode.UNIMPLEMENTED, status_text="", status_methods=frozenset({"RepositoryIndex"})
        )
        with fails(
            "0A000",
            f'model server "127.0.0.1:{server.port}" has no repository index',
            None,
            "Name the models with LIMIT TO.",
        ):
            run(server)


@pytest.mark.parametrize(("limit", "expected"), [(0, None), (16, "16"), (4095, "4095"), (4096, None), (100000, None)])
def test_batch_size_is_written_where_the_model_takes_less_than_the_default(limit: int, expected: str | None) -> None:
    table = definitions.define_table(model(max_batch_size=limit), "m", 4096, options.ImportOptions(), [])
    assert table.options == ({"model": "m"} if expected is None else {"model": "m", "batch_size": expected})


def test_vector_elements_are_named_by_the_models_parameter() -> None:
    vector = TensorSpec("v", "FP32", (-1, 3))
    named = model(inputs=(vector,), parameters=(("columns.v", "age, spend ,tenure"),))
    columns, notices = define(named)
    assert [(name, column["index"]) for name, _, column in columns] == [("age", "1"), ("spend", "2"), ("tenure", "3")]
    assert notices == []


@pytest.mark.parametrize("value", ["age,spend", "a,b,c,d", "a,,c", ""])
def test_a_parameter_that_does_not_fit_is_ignored_with_a_notice(value: str) -> None:
    vector = model(inputs=(TensorSpec("v", "FP32", (-1, 3)),), parameters=(("columns.v", value),))
    ignored = ['parameter "columns.v" of model "m" is ignored: it does not name 3 columns']
    columns, notices = define(vector)
    assert [(name, type_) for name, type_, _ in columns] == [("v", "double precision[]")]
    assert notices == ignored
    columns, notices = define(vector, expand="all")
    assert [name for name, _, _ in columns] == ["v_1", "v_2", "v_3"]
    assert notices == ignored
    assert define(vector, expand="none")[1] == []
    assert define(vector, columns="v: a, b, c")[1] == []


def test_names_that_clash_get_a_suffix() -> None:
    columns, notices = define(
        model(
            inputs=(TensorSpec("x", "FP64", (-1, 1)), TensorSpec("ctid", "INT64", (-1, 1))),
            outputs=(TensorSpec("x", "FP64", (-1, 1)), TensorSpec("x_output", "FP64", (-1, 1))),
        )
    )
    assert [(name, {**column}) for name, _, column in columns] == [
        ("x", {"input": "x", "dtype": "FP64", "shape": "[-1,1]"}),
        ("ctid_input", {"input": "ctid", "dtype": "INT64", "shape": "[-1,1]"}),
        ("x_output", {"output": "x", "dtype": "FP64", "shape": "[-1,1]"}),
        ("x_output_output", {"output": "x_output", "dtype": "FP64", "shape": "[-1,1]"}),
    ]
    assert notices == [
        'column "ctid" of foreign table "m" is imported as "ctid_input"',
        'column "x" of foreign table "m" is imported as "x_output"',
        'column "x_output" of foreign table "m" is imported as "x_output_output"',
    ]


def test_names_over_63_bytes_are_cut_at_a_character() -> None:
    long = "é" * 40
    columns, notices = define(
        model(inputs=(TensorSpec(long, "FP64", (-1, 1)),), outputs=(TensorSpec(long, "FP64", (-1, 1)),))
    )
    names = [name for name, _, _ in columns]
    assert names == ["é" * 28 + "_input", "é" * 28 + "_output"]
    assert all(len(name.encode()) <= 63 for name in names)
    assert len(notices) == 2
    assert columns[0][2]["input"] == long
    with FakeServer(models={long: FAKE, long + "b": FAKE}) as server:
        ddl, found = run(server)
        assert [statement.split('"')[1] for statement in ddl] == ["é" * 31, "é" * 30 + "_2"]
        assert [notice.message for notice in found] == [
            f'model "{long}" is imported as foreign table "{"é" * 31}"',
            f'model "{long}b" is imported as foreign table "{"é" * 30}_2"',
        ]
        # a name that PostgreSQL has cut stands for what it was cut from, whatever else is imported
        assert run(server, "limit to", ("é" * 30 + "_2",))[0] == ddl[1:]
        assert run(server, "except", ("é" * 31,))[0] == ddl[1:]


def test_a_table_that_would_be_too_wide() -> None:
    with pytest.raises(errors.Unsupported, match="needs 1601 columns, and a table has 1600"):
        define(model(inputs=(TensorSpec("v", "FP32", (-1, 1601)),)), expand="all")
    assert len(define(model(inputs=(TensorSpec("v", "FP32", (-1, 1600)),)), expand="all")[0]) == 1600
    assert len(define(model(inputs=(TensorSpec("v", "FP32", (-1, 1601)),)))[0]) == 1


def test_a_model_without_batch_dimension() -> None:
    vector = model(inputs=(TensorSpec("v", "INT32", (2,)),), batched=False, max_batch_size=0)
    columns, _ = define(vector, expand="all")
    assert columns[1] == ("v_2", "integer", {"input": "v", "dtype": "INT32", "shape": "[2]", "index": "2"})


@pytest.mark.parametrize(
    ("text", "quoted"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("", "''"), ("'\\", " E'''\\\\'")]
)
def test_literals(text: str, quoted: str) -> None:
    assert definitions.quote_literal(text) == quoted


VECTORS = model(
    inputs=(TensorSpec("v", "FP32", (-1, 2)), TensorSpec("w", "FP32", (-1, 2)), TensorSpec("s", "FP32", (-1, 1))),
    outputs=(TensorSpec("m", "FP16", (-1, 2, 2)), TensorSpec("t", "FP32", (-1, -1))),
    parameters=(("columns.v", "a,b"), ("columns.s", "scalar")),
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "a b w scalar m t"),
        ({"expand": "named"}, "a b w scalar m t"),
        ({"expand": "all"}, "a b w_1 w_2 scalar m t"),
        ({"expand": "none"}, "v w scalar m t"),
        ({"columns": "w: c, d; v: e, f"}, "e f c d scalar m t"),
        ({"columns": "w: c, d", "expand": "none"}, "v c d scalar m t"),
        ({"columns": "s: x; v: a, a"}, "a a_input w x m t"),
    ],
)
def test_which_vectors_are_expanded(settings: dict[str, str], expected: str) -> None:
    assert " ".join(name for name, _, _ in define(VECTORS, **settings)[0]) == expected


def test_types_of_float_arrays() -> None:
    def types(**settings: str) -> list[str]:
        return [type_ for _, type_, _ in define(VECTORS, expand="none", **settings)[0]]

    assert types() == ["double precision[]", "double precision[]", "double precision", "real[]", "real[]"]
    assert types(float_arrays="real") == ["real[]", "real[]", "double precision", "real[]", "real[]"]


@pytest.mark.parametrize("names", ["a", "a, b, c"])
def test_names_that_do_not_fit(names: str) -> None:
    with fails(
        "22023",
        f'option "columns" names {names.count(",") + 1} elements of tensor "v" of model "m"',
        "The tensor has shape [2] per row.",
        "Name all its elements, or import the model apart with LIMIT TO.",
    ):
        define(VECTORS, columns=f"v: {names}")


def test_names_for_no_tensor() -> None:
    with (
        FakeServer() as server,
        fails("22023", 'option "columns" names tensor "z", which no imported model has', None, "Correct the name."),
    ):
        run(server, columns="z: a")


def test_prefix() -> None:
    with FakeServer(models={"a": FAKE, "b": FAKE}) as server:
        assert [statement.split('"')[1] for statement in run(server, prefix="m_")[0]] == ["m_a", "m_b"]
        for name in ("b", "m_b"):
            ddl, notices = run(server, "limit to", (name,), prefix="m_")
            assert [statement.split('"')[1] for statement in ddl] == ["m_b"]
            assert "model 'b'" in ddl[0]
            assert notices == []
            assert "m_a" in run(server, "except", (name,), prefix="m_")[0][0]


def test_models_whose_names_have_a_slash() -> None:
    with FakeServer(models={"BAAI/bge-small": FAKE, "bge-small": FAKE, "a.b/c": FAKE}) as server:
        ddl, notices = run(server)
        assert [statement.split('"')[1] for statement in ddl] == ["BAAI/bge-small", "a.b/c", "bge-small"]
        assert ["OPTIONS (model '" in statement.rpartition("SERVER")[2] for statement in ddl] == [True] * 3
        assert notices == []
        with fails(
            "HV00R",
            f'model "no/ne" does not exist on model server "127.0.0.1:{server.port}"',
            "The server said: Request for unknown model: 'no/ne' is not found",
            'Check table option "model", or import the schema again.',
        ):
            finish(host.describe(fake_table(server.url, model="no/ne")))


def existing(name: str, url: str, columns: Any, **table_options: str) -> dict[str, Any]:
    return table(*columns, url=url, name=name, **table_options)


def test_a_table_that_is_there_stays() -> None:
    described = {"dtype": "FP64", "shape": "[-1,1]"}
    x: tuple[str, str, dict[str, str]] = ("x", "float8", {"input": "x", **described})
    y: tuple[str, str, dict[str, str]] = ("y", "float8", {"output": "y", **described})
    stale: tuple[str, str, dict[str, str]] = ("x", "float8", {"input": "x", "dtype": "FP32", "shape": "[-1,1]"})
    gone: tuple[str, str, dict[str, str]] = ("z", "float8", {"output": "z", **described})
    with FakeServer(models={"a": FAKE, "b": FAKE, "c": FAKE}) as server:
        there = (
            existing("a", server.url, (x, y), model="a"),
            existing("b", server.url, (stale, y, gone)),
            # another model's, with which IMPORT collides
            existing("c", server.url, (x, y), model="a"),
        )
        ddl, notices = run(server, existing=there)
    assert [statement.split('"')[1] for statement in ddl] == ["c"]
    assert notices == [
        ('foreign table "a" already exists, skipping', None, None),
        (
            'foreign table "b" already exists, skipping, although it does not match its model any more',
            'Input tensor "x" of model "b" has dtype FP64 and shape [-1,1]. There are 2 differences.',
            "\"SELECT * FROM model_fdw_check('public.b')\" shows what differs, and the statements that cure it.",
        ),
    ]


def test_names_in_lower_case() -> None:
    """Only ASCII changes, as where PostgreSQL folds a name itself; what clashes then is numbered."""
    mixed = FakeModel((("TenureÄ", "FP32", (-1, 1)), ("Q", "FP32", (-1, 2))), (("Score", "FP32", (-1, 1)),), dict)
    with FakeServer(models={"Churn": mixed, "churn": FAKE}) as server:
        (first, second), _ = run(server, lower_names="true", expand="all", prefix="P_")
        assert first.startswith('CREATE FOREIGN TABLE "P_churn" (')
        assert re.findall('\t"(.*?)"', first) == ["tenureÄ", "q_1", "q_2", "score"]
        assert "(model 'Churn'" in first
        assert "output 'Score'" in first
        assert second.startswith('CREATE FOREIGN TABLE "P_churn_2" (')
