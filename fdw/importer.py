"""IMPORT FOREIGN SCHEMA: a server's models as foreign table definitions.

The remote schema is "models"; a server of protocol "grpc" has one for each service and package, too, and its methods
are its models. What a model's table is like, fdw.definitions says; here the server is asked, and models are chosen and
named. A table that an earlier import made is left as it is; where the model is not what it shows
any more, a notice says so.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import Mapping, Sequence

from fdw import errors
from fdw.compare import compare
from fdw.connections import Connection, ask_index, ask_model, connect, server_effort
from fdw.definitions import Names, Notice, TableDefinition, define_table, quote_identifier, shorten
from fdw.options import ImportOptions, Server, Table
from fdw.protocols.base import IndexEntry
from fdw.signature import Model, check_hint
from fdw.tickets import Steps, gather

REMOTE_SCHEMA = "models"

# How many models are asked about at the same time.
IN_FLIGHT = 8


@dataclass(frozen=True)
class Restriction:
    """LIMIT TO or EXCEPT: ``kind`` is 'all', 'limit to' or 'except'.

    A name stands for a model, or for the table that a prefix, a version or a cut makes of it.
    """

    kind: str = "all"
    names: frozenset[str] = frozenset()

    def admits(self, *names: str) -> bool:
        """Tell whether something of these names is to be imported."""
        named = not self.names.isdisjoint(names)
        return self.kind == "all" or named == (self.kind == "limit to")


@dataclass(frozen=True)
class _Chosen:
    """A model to import, as which table; version '' is the server's choice."""

    model: str
    version: str
    table: str


@dataclass(frozen=True)
class _Skipped:
    """A model that becomes no table, and why."""

    error: errors.ModelFdwError


def import_tables(
    server: Server,
    remote_schema: str,
    restriction: Restriction,
    settings: ImportOptions,
    existing: Mapping[str, Table],
) -> Steps[tuple[list[TableDefinition], list[Notice]]]:
    """Ask the server for its models and define a table for each.

    ``existing``: the server's tables that are in the local schema already, by name. Raises as fdw.host.import_schema.
    """
    services = server.options.protocol == "grpc"
    if remote_schema != REMOTE_SCHEMA and not services:
        raise _unknown_schema(server, remote_schema, [REMOTE_SCHEMA])
    connection = yield from connect(server)
    index = yield from _ask_index(connection, restriction, settings)
    if services:
        index = _methods_of(server, index, remote_schema)
    notices: list[Notice] = []
    chosen = _choose(connection, index, restriction, settings, notices)
    answers = yield from gather((_ask(connection, choice) for choice in chosen), IN_FLIGHT)
    tables = []
    for choice, answer in zip(chosen, answers):
        try:
            if isinstance(answer, _Skipped):
                raise answer.error
            present = existing.get(choice.table)
            if present is not None and (present.options.model, present.options.version) == (
                answer.name,
                answer.version,
            ):
                notices.append(_already_there(present, answer))
                continue
            batch_size = server.options.default_batch_size
            tables.append(define_table(answer, choice.table, batch_size, settings, notices, server.options.noun))
        except errors.BadOption:
            raise
        except errors.ModelFdwError as error:
            if restriction.kind == "limit to":
                raise
            notices.append(Notice(f'skipped {server.options.noun} "{choice.model}": {error.message}', None, error.hint))
    _check_named_tensors(settings, [answer for answer in answers if isinstance(answer, Model)])
    return tables, [notice.printable() for notice in notices]


def _ask_index(
    connection: Connection, restriction: Restriction, settings: ImportOptions
) -> Steps[tuple[IndexEntry, ...]]:
    """Ask the server for its models; where it does not list them, believe LIMIT TO: its metadata tells soon."""
    try:
        return (yield from ask_index(connection))
    except errors.Unsupported as error:
        if connection.server.options.protocol == "grpc":
            raise
        if restriction.kind != "limit to":
            raise errors.Unsupported(
                f'model server "{connection.endpoint}" has no repository index',
                error.detail,
                "Name the models with LIMIT TO.",
            ) from None
    versions = [""] if isinstance(settings.versions, str) else settings.versions
    return tuple(IndexEntry(name, version, True, "") for name in sorted(restriction.names) for version in versions)


def _unknown_schema(server: Server, remote_schema: str, known: Sequence[str]) -> errors.UnknownSchema:
    return errors.UnknownSchema(
        f'remote schema "{remote_schema}" does not exist on model server "{server.options.address}"',
        None,
        f"Import from remote schema {' or '.join(quote_identifier(name) for name in known)}.",
    )


def _methods_of(server: Server, index: Sequence[IndexEntry], remote_schema: str) -> tuple[IndexEntry, ...]:
    """Pick the methods of a service or a package; "models" stands for all."""
    if remote_schema == REMOTE_SCHEMA:
        return tuple(index)
    found = tuple(entry for entry in index if entry.name.startswith((f"{remote_schema}/", f"{remote_schema}.")))
    if not found:
        known = sorted({entry.name.partition("/")[0] for entry in index})
        raise _unknown_schema(server, remote_schema, [REMOTE_SCHEMA, *known])
    return found


def _short_names(methods: Sequence[str]) -> dict[str, str]:
    """Map methods to names of tables: "package.Service/Method" has the method's own name.

    Where several methods have it, the service's name stands before it, or the package's as well.
    """
    candidates = {
        name: (
            name.rpartition("/")[2],
            name.rpartition("/")[0].rpartition(".")[2] + "_" + name.rpartition("/")[2],
            name,
        )
        for name in methods
    }
    counts = Counter(candidate for names in candidates.values() for candidate in set(names))
    return {
        method: next((candidate for candidate in names if counts[candidate] == 1), method)
        for method, names in candidates.items()
    }


def _ask(connection: Connection, choice: _Chosen) -> Steps[Model | _Skipped]:
    options = connection.server.options
    request = errors.Request(
        connection.endpoint,
        connection.server.name,
        choice.model,
        choice.version,
        timeout_ms=options.default_timeout_ms,
    )
    try:
        return (yield from ask_model(connection, request, server_effort(options)))
    except (errors.UnknownModel, errors.ModelNotReady, errors.ModelFailed, errors.Unsupported) as error:
        return _Skipped(error)


def _already_there(table: Table, model: Model) -> Notice:
    """Tell that a table stays, and whether it still shows its model."""
    problems = compare(table, model).problems
    message = f'foreign table "{table.name}" already exists, skipping'
    if not problems:
        return Notice(message)
    more = f" There are {len(problems)} differences." if len(problems) > 1 else ""
    return Notice(
        f"{message}, although it does not match its model any more",
        f"{problems[0].problem[0].upper()}{problems[0].problem[1:]}.{more}",
        check_hint(table),
    )


def _check_named_tensors(settings: ImportOptions, models: Sequence[Model]) -> None:
    """Refuse option "columns" for a tensor that nothing imported has."""
    tensors = {spec.name for model in models for spec in (*model.inputs, *model.outputs)}
    for name, _ in settings.columns:
        if name not in tensors:
            raise errors.BadOption(
                f'option "columns" names tensor "{name}", which no imported model has', None, "Correct the name."
            )


def _choose(
    connection: Connection,
    index: Sequence[IndexEntry],
    restriction: Restriction,
    settings: ImportOptions,
    notices: list[Notice],
) -> list[_Chosen]:
    """Pick what to import: versions that are ready. Names do not depend on the restriction."""
    services = connection.server.options.protocol == "grpc"
    named = _name_tables([entry for entry in index if entry.ready], settings, services)
    chosen = []
    for choice, wanted in named:
        if restriction.admits(choice.model, choice.table):
            chosen.append(choice)
            if choice.table != wanted:
                notices.append(Notice(f'model "{choice.model}" is imported as foreign table "{choice.table}"'))
    _tell_unready(connection, index, restriction, notices)
    _tell_unknown(connection, index, named, restriction, notices)
    return chosen


def _tell_unknown(
    connection: Connection,
    index: Sequence[IndexEntry],
    named: Sequence[tuple[_Chosen, str]],
    restriction: Restriction,
    notices: list[Notice],
) -> None:
    """Tell of names in LIMIT TO and EXCEPT that stand for no model and no table."""
    known = {entry.name for entry in index} | {name for choice, _ in named for name in (choice.model, choice.table)}
    noun = connection.server.options.noun
    for name in sorted(restriction.names - known):
        close = difflib.get_close_matches(name, sorted(known), 1)
        hint = f'Perhaps you meant "{close[0]}".' if close else None
        notices.append(Notice(f'model server "{connection.endpoint}" has no {noun} "{name}"', None, hint))


def _name_tables(ready: Sequence[IndexEntry], settings: ImportOptions, services: bool) -> list[tuple[_Chosen, str]]:
    """Name the tables: prefix, model and, where there is one for each, version; cut, and numbered where they clash.

    Returns also the name that each would have without limits.
    """
    names = Names()
    result = []
    models = sorted({entry.name for entry in ready})
    short_names = _short_names(models) if services else {name: name for name in models}
    for model, short_name in short_names.items():
        versions = [""]
        if settings.versions != "latest":
            versions = sorted(
                (entry.version for entry in ready if entry.name == model and settings.imports_version(entry.version)),
                key=lambda version: (len(version), version),
            )
        for version in versions:
            wanted = f"{settings.prefix}{settings.name(short_name)}" + (f"_v{version}" if version else "")
            result.append((_Chosen(model, version, names.take(shorten(wanted))), wanted))
    return result


def _tell_unready(
    connection: Connection, index: Sequence[IndexEntry], restriction: Restriction, notices: list[Notice]
) -> None:
    """Tell of models without a version that is ready; an error where the statement names one."""
    ready = {entry.name for entry in index if entry.ready}
    reasons = {entry.name: entry.reason for entry in index if entry.name not in ready}
    for name in sorted(reasons):
        if not restriction.admits(name):
            continue
        if restriction.kind == "limit to":
            request = errors.Request(connection.endpoint, connection.server.name, name)
            raise errors.model_not_ready(request, reasons[name])
        reason = f": {reasons[name]}" if reasons[name] else ""
        notices.append(Notice(f'skipped model "{name}": it is not ready{reason}'))
