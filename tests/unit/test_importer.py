from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_server import FAKE, FakeModel, FakeServer
from helpers import fails, finish

from fdw import errors, host, importer, options
from fdw.signature import Model, TensorSpec

SERVER = options.read_server(1, "s", {"url": "grpc://h:1"}, {})


def model(name: str = "m", max_batch_size: int = 8192, **fields: Any) -> Model:
    batched = fields.pop("batched", True)
    return Model(name, "", fields.pop("inputs", ()), fields.pop("outputs", ()), batched, max_batch_size, **fields)


def define(defined: Model) -> tuple[list[tuple[str, str, dict[str, str]]], list[str]]:
    notices: list[importer.Notice] = []
    table = importer.define_table(defined, SERVER, notices)
    return [(c.name, c.type, c.options) for c in table.columns], [message for message, _ in notices]


def run(server: FakeServer, restriction: str = "all", names: tuple[str, ...] = (), schema: str = "models") -> Any:
    described = {"oid": 5, "name": "s", "options": {"url": server.url}}
    return finish(host.import_schema(described, {}, schema, restriction, list(names), {}))


def test_a_statement_word_for_word() -> None:
    risky = FakeModel(
        (("v", "FP32", (-1, 2)), ("it's", "BYTES", (-1, 1))),
        (('p"q', "FP32", (-1, 1)),),
        dict,
        max_batch_size=16,
        optional=frozenset({"it's"}),
    )
    with FakeServer(models={'a"b\\': risky}) as server:
        ddl, notices = run(server)
    assert notices == []
    assert ddl == [
        'CREATE FOREIGN TABLE "a""b\\" (\n'
        "\t\"v_1\" double precision OPTIONS (input 'v', dtype 'FP32', shape '[-1,2]', index '1'),\n"
        "\t\"v_2\" double precision OPTIONS (input 'v', dtype 'FP32', shape '[-1,2]', index '2'),\n"
        "\t\"it's\" text OPTIONS (input 'it''s', dtype 'BYTES', shape '[-1,1]', optional 'true'),\n"
        "\t\"p\"\"q\" real OPTIONS (output 'p\"q', dtype 'FP32', shape '[-1,1]')\n"
        ") SERVER \"s\" OPTIONS (model  E'a\"b\\\\', batch_size '16')"
    ]


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


def finish_definitions(server: FakeServer) -> list[importer.TableDefinition]:
    from fdw.tickets import Ticket

    parsed = options.read_server(1, "s", {"url": server.url}, {})
    tables, _ = finish(Ticket(importer.import_tables(parsed, "models", "all", [])))
    return list(tables)


def test_limit_to_and_except() -> None:
    models = dict.fromkeys(("a", "b", "c"), FAKE)
    with FakeServer(models=models) as server:

        def names(restriction: str, *given: str) -> list[str]:
            ddl, notices = run(server, restriction, given)
            assert notices == []
            return [statement.split('"')[1] for statement in ddl]

        assert names("all") == ["a", "b", "c"]
        assert names("limit to", "c", "a", "nope") == ["a", "c"]
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
            ('skipped model "broken": it is not ready: no weights', None),
            (
                'skipped model "deep": input tensor "x" of model "deep" has shape [1,1,1,1,1,1,2] per row, '
                "and an array has at most 6 dimensions",
                None,
            ),
            ('skipped model "seq": model "seq" is a sequence model, which is not supported', None),
            ('skipped model "stream": model "stream" is decoupled, which is not supported', None),
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
            f'model server "127.0.0.1:{server.port}" does not support this request',
            None,
            'Check scheme and port in option "url" of server "s".',
        ):
            run(server)


@pytest.mark.parametrize(("limit", "expected"), [(0, None), (16, "16"), (4095, "4095"), (4096, None), (100000, None)])
def test_batch_size_is_written_where_the_model_takes_less_than_the_default(limit: int, expected: str | None) -> None:
    table = importer.define_table(model(max_batch_size=limit), SERVER, [])
    assert table.options == ({"model": "m"} if expected is None else {"model": "m", "batch_size": expected})


def test_vector_elements_are_named_by_the_models_parameter() -> None:
    vector = TensorSpec("v", "FP32", (-1, 3))
    named = model(inputs=(vector,), parameters=(("columns.v", "age, spend ,tenure"),))
    columns, notices = define(named)
    assert [(name, column["index"]) for name, _, column in columns] == [("age", "1"), ("spend", "2"), ("tenure", "3")]
    assert notices == []


@pytest.mark.parametrize("value", ["age,spend", "a,b,c,d", "a,,c", ""])
def test_a_parameter_that_does_not_fit_is_ignored_with_a_notice(value: str) -> None:
    columns, notices = define(model(inputs=(TensorSpec("v", "FP32", (-1, 3)),), parameters=(("columns.v", value),)))
    assert [name for name, _, _ in columns] == ["v_1", "v_2", "v_3"]
    assert notices == ['parameter "columns.v" of model "m" is ignored: it does not name 3 columns']


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
    named: list[importer.Notice] = []
    table = importer.define_table(model(name=long), SERVER, named)
    assert (table.name, table.options["model"]) == ("é" * 31, long)
    assert named == [(f'model "{long}" is imported as foreign table "{"é" * 31}"', None)]


def test_a_table_that_would_be_too_wide() -> None:
    with pytest.raises(errors.Unsupported, match="needs 1601 columns, and a table has 1600"):
        define(model(inputs=(TensorSpec("v", "FP32", (-1, 1601)),)))


def test_a_model_without_batch_dimension() -> None:
    columns, _ = define(model(inputs=(TensorSpec("v", "INT32", (2,)),), batched=False, max_batch_size=0))
    assert columns[1] == ("v_2", "integer", {"input": "v", "dtype": "INT32", "shape": "[2]", "index": "2"})


@pytest.mark.parametrize(
    ("text", "quoted"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("", "''"), ("'\\", " E'''\\\\'")]
)
def test_literals(text: str, quoted: str) -> None:
    assert importer.quote_literal(text) == quoted
