"""A table compared with the live model: what is wrong with it, and the DDL that cures it.

The cures can be run one after the other, in the order of the problems. Each is one statement about one tensor, because
columns of one tensor must agree whenever a statement ends (see fdw.checks). No cure drops a column: what a server says
today is no reason to lose a column. Where only that would help, the detail has the statement, for somebody to read and
to run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Mapping, NamedTuple, Sequence

from fdw import errors, signature
from fdw.connections import connect, load_model, table_effort
from fdw.definitions import (
    SYSTEM_COLUMNS,
    ColumnDefinition,
    ColumnNames,
    Names,
    check_tensor,
    column_clause,
    define_columns,
    define_elements,
    options_clause,
    plain_element_names,
    quote_identifier,
)
from fdw.options import Column, ImportOptions, Table
from fdw.signature import INPUT, OUTPUT, ROLE_NAMES, Model, Slot, TensorSpec, shape_text
from fdw.tickets import Steps

ERROR = "error"
WARNING = "warning"

DROP = "DROP COLUMN"

# How many columns or elements a text names before it only counts them.
NAMED = 5


class Problem(NamedTuple):
    """A row of model_fdw_check().

    ``severity`` is 'error' where queries fail or would be wrong, else 'warning'; ``column`` the first one concerned;
    ``cure`` a statement that drops nothing, or None where none helps.
    """

    severity: str
    column: str | None
    problem: str
    detail: str | None
    cure: str | None


@dataclass
class Comparison:
    """The problems, and the places of the columns that have none of these; their types may still not fit."""

    problems: list[Problem] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)


def check(table: Table) -> Steps[Comparison]:
    """Ask the server for the model anew, and compare; a server that does not tell is a problem like others."""
    connection = yield from connect(table.server)
    effort = table_effort(table.options)
    try:
        model = yield from load_model(connection, table.options, effort, time.monotonic())
    except errors.Cancelled:
        raise
    except errors.ModelFdwError as error:
        return Comparison([_problem_of(error)])
    return compare(table, model)


def compare(table: Table, model: Model) -> Comparison:
    """List what keeps a table from showing the model; nothing if it does."""
    try:
        signature.check_supported(model)
        model = signature.complete(table, model)
    except errors.ModelFdwError as error:
        return Comparison([_problem_of(error)])
    return _Comparer(table, model).run()


def _problem_of(error: errors.ModelFdwError, column: str | None = None, cure: str | None = None) -> Problem:
    """Turn an error into a row; its hint is there to be read unless there is a cure."""
    texts = (error.detail, None if cure else error.hint)
    return Problem(ERROR, column, error.message, " ".join(_sentence(text) for text in texts if text) or None, cure)


def _sentence(text: str) -> str:
    """End a text as a sentence does: what the server said may have no full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _enumerate(names: Sequence[object]) -> str:
    """Name some things, or the first of many."""
    if len(names) <= NAMED:
        return ", ".join(map(str, names))
    return f"{', '.join(map(str, names[:NAMED]))} and {len(names) - NAMED} more"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _columns(columns: Sequence[Column]) -> str:
    word = "Column" if len(columns) == 1 else "Columns"
    return f"{word} {_enumerate([quote_identifier(column.name) for column in columns])}"


def _by_hand(problem: Problem, statement: str) -> Problem:
    """Tell of the statement that cures a problem and drops columns, without making it the cure."""
    said = f"Only a statement that drops columns cures this: {statement}"
    return problem._replace(detail=f"{problem.detail} {said}" if problem.detail else said)


def _drop(columns: Sequence[Column]) -> list[str]:
    return [f"{DROP} {quote_identifier(column.name)}" for column in columns]


def _add(columns: Sequence[ColumnDefinition]) -> list[str]:
    return [f"ADD COLUMN {column_clause(column)}" for column in columns]


def _set(column: Column, **options: str | None) -> str:
    """Set a column's options; None drops one."""
    actions = {}
    for name, value in options.items():
        verb = "DROP" if value is None else "SET" if name in column.options.given else "ADD"
        actions[f"{verb} {name}"] = value
    return f"ALTER COLUMN {quote_identifier(column.name)} {options_clause(actions)}"


@dataclass(frozen=True)
class _Group:
    """A tensor of the model and the columns that are tied to it."""

    role: str
    spec: TensorSpec
    columns: list[Column]


class _Comparer:
    """Compares one table with one model; the lists of problems are in the order in which they are cured."""

    def __init__(self, table: Table, model: Model) -> None:
        self.table, self.model = table, model
        taken = SYSTEM_COLUMNS.union(column.name for column in table.columns)
        self.names = ColumnNames(table.name, [], Names(set(taken)))
        self.claimed: set[tuple[str, str]] = set()  # tensors whose columns are cured
        self.gone: dict[tuple[str, str], list[tuple[Column, errors.ModelFdwError]]] = {}  # tied to what is not there
        self.slots: list[Slot] = []
        self.declared: list[tuple[Problem, list[str]]] = []  # with actions instead of cures
        self.changed: list[Problem] = []
        self.missing: list[Problem] = []
        self.surplus: list[Problem] = []

    def run(self) -> Comparison:
        groups = self._group()
        self._rename(groups)
        for group in groups.values():
            self._compare(group)
        for spec in self.model.inputs:
            required = not (spec.optional or spec.omittable)
            if required and (INPUT, spec.name) not in groups and (INPUT, spec.name) not in self.claimed:
                self._add_tensor(spec)
        if not any(role == OUTPUT for role, _ in (*groups, *self.claimed)):
            self._add_outputs()
        self._compare_batch_size()
        return Comparison(self._declarations() + self.changed + self.missing + self.surplus, self.slots)

    def _declarations(self) -> list[Problem]:
        """Give the problems with dtypes and shapes a cure each; one for all where the batch dimension has changed.

        A shape is read with or without a batch dimension depending on those of the other tensors.
        """
        shapes = [column.options.shape for column in self.table.columns if column.options.shape is not None]
        was_batched = all(shape[:1] == (-1,) for shape in shapes)
        if len(self.declared) < 2 or was_batched == self.model.batched:
            return [self._cured(problem, actions) for problem, actions in self.declared]
        whole = self.declared[0][0]._replace(
            problem=f'model "{self.model.name}" {"now has a" if self.model.batched else "has no"} batch dimension',
            detail=_capital("; ".join(problem.problem for problem, _ in self.declared)) + ".",
        )
        return [self._cured(whole, [action for _, actions in self.declared for action in actions])]

    def _cured(self, problem: Problem, actions: Sequence[str]) -> Problem:
        """Give a problem its cure, or tell of the statement where that drops something."""
        statement = self._alter(actions)
        if any(action.startswith(DROP) for action in actions):
            return _by_hand(problem, statement)
        return problem._replace(cure=statement)

    def _alter(self, actions: Sequence[str]) -> str:
        return f"ALTER FOREIGN TABLE {signature.qualified_name(self.table)} {', '.join(actions)}"

    def _tensor(self, group: _Group) -> str:
        return f'{ROLE_NAMES[group.role]} tensor "{group.spec.name}" of model "{self.model.name}"'

    # ---- which column is tied to which tensor ----

    def _group(self) -> dict[tuple[str, str], _Group]:
        groups: dict[tuple[str, str], _Group] = {}
        for column in self.table.columns:
            if column.options.error:
                self.slots.append(signature.tie(self.table, column, self.model))
                continue
            try:
                role, spec = signature.find_tensor(self.table, column, self.model)
            except errors.ModelFdwError as error:
                self._tie_anew(column, error)
            else:
                groups.setdefault((role, spec.name), _Group(role, spec, [])).columns.append(column)
        return groups

    def _tie_anew(self, column: Column, error: errors.ModelFdwError) -> None:
        """Decide about a column that is tied to nothing, or by its bare name to two tensors."""
        explicit = column.options.input or column.options.output
        if not explicit and any(spec.name == column.name for spec in self.model.inputs):
            self.claimed.add((INPUT, column.name))
            self.changed.append(_problem_of(error, column.name, self._alter([_set(column, input=column.name)])))
        elif explicit:
            role = INPUT if column.options.input else OUTPUT
            self.gone.setdefault((role, explicit), []).append((column, error))
        else:
            self._drop_by_hand(column, error)

    def _drop_by_hand(self, column: Column, error: errors.ModelFdwError) -> None:
        self.surplus.append(_by_hand(_problem_of(error, column.name), self._alter(_drop([column]))))

    def _rename(self, groups: Mapping[tuple[str, str], _Group]) -> None:
        """Tie columns of a tensor that the model lacks to the one that took its place, where that is plain.

        It is where one tensor of a role has gone, one has no column, and both have the same dtype and shape.
        """
        for (role, name), tied in self.gone.items():
            columns = [column for column, _ in tied]
            alone = sum(other == role for other, _ in self.gone) == 1
            new = [spec for spec in self.model.tensors(role) if (role, spec.name) not in groups]
            if alone and len(new) == 1 and all(self._declares(column, new[0]) for column in columns):
                self._tie_to(role, name, new[0], columns)
                continue
            for column, error in tied:
                self._drop_by_hand(column, error)

    def _declares(self, column: Column, spec: TensorSpec) -> bool:
        return (column.options.dtype, column.options.shape) == (spec.dtype, spec.shape)

    def _tie_to(self, role: str, name: str, spec: TensorSpec, columns: Sequence[Column]) -> None:
        self.claimed.add((role, spec.name))
        said = "names" if len(columns) == 1 else "name"
        self.changed.append(
            Problem(
                ERROR,
                columns[0].name,
                f'model "{self.model.name}" has no {ROLE_NAMES[role]} tensor "{name}"',
                f'{_columns(columns)} {said} it. Tensor "{spec.name}", of the same dtype and shape, has no column.',
                self._alter([_set(column, **{ROLE_NAMES[role]: spec.name}) for column in columns]),
            )
        )

    # ---- one tensor ----

    def _compare(self, group: _Group) -> None:
        try:
            check_tensor(self.model, group.role, group.spec)
        except errors.ModelFdwError as error:
            problem = _problem_of(error, group.columns[0].name)
            dispensable = group.role == OUTPUT or group.spec.optional
            self.surplus.append(_by_hand(problem, self._alter(_drop(group.columns))) if dispensable else problem)
            return
        kept = self._compare_declarations(group)
        if group.role == INPUT:
            kept = self._compare_overlaps(group, kept)
            self._compare_optional(group, kept)
        self._compare_order(group, kept)
        if group.role == INPUT:
            self._add_elements(group, kept)

    def _compare_declarations(self, group: _Group) -> list[Column]:
        """Compare dtype and shape, and whether there are such elements; return the columns that stay."""
        outside = [column for column in group.columns if self._is_outside(group, column)]
        kept = [column for column in group.columns if column not in outside]
        stale = [column for column in kept if self._declared(group, column)]
        self.slots += [signature.tie(self.table, column, self.model) for column in kept if column not in stale]
        concerned = [column for column in group.columns if column in outside or column in stale]
        if not concerned:
            return kept
        actions = [action for column in stale for action in self._redeclare(group, column)] + _drop(outside)
        if not kept:
            # before the old ones go: the table may have no others
            actions = _add(define_columns(self.model, group.role, group.spec, self.names, ImportOptions())) + actions
        declared = self._declared(group, concerned[0])
        says = f"{'declares' if len(concerned) == 1 else 'declare'} {declared}" if declared else "would be outside"
        problem = f"{self._tensor(group)} has dtype {group.spec.dtype} and shape {shape_text(group.spec.shape)}"
        detail = f"{_columns(concerned)} {says}."
        self.declared.append((Problem(ERROR, concerned[0].name, problem, detail, None), actions))
        return kept

    def _is_outside(self, group: _Group, column: Column) -> bool:
        try:
            signature.check_index(self.table, column, self.model, group.role, group.spec)
        except errors.ModelFdwError:
            return True
        return False

    def _declared(self, group: _Group, column: Column) -> str:
        """Say what a column declares otherwise than the model; empty if nothing."""
        said, spec = column.options, group.spec
        parts = []
        if said.dtype not in (None, spec.dtype):
            parts.append(f"dtype {said.dtype}")
        if said.shape not in (None, spec.shape):
            parts.append(f"shape {shape_text(said.shape or ())}")
        return " and ".join(parts)

    def _redeclare(self, group: _Group, column: Column) -> list[str]:
        """Correct a column's options, and its type where the tensor's natural type is another one now."""
        said, spec = column.options, group.spec
        options: dict[str, str | None] = {}
        if said.dtype not in (None, spec.dtype):
            options["dtype"] = spec.dtype
        if said.shape not in (None, spec.shape):
            options["shape"] = shape_text(spec.shape)
        earlier = replace(spec, dtype=said.dtype or spec.dtype, shape=spec.shape if said.shape is None else said.shape)
        natural = self._natural_type(group.role, spec, column)
        actions = [_set(column, **options)]
        if natural != self._natural_type(group.role, earlier, column):
            actions.insert(0, f"ALTER COLUMN {quote_identifier(column.name)} TYPE {natural}")
        return actions

    def _natural_type(self, role: str, spec: TensorSpec, column: Column) -> str:
        whole = column.options.index is None and not signature.is_scalar(self.model.row_shape(spec))
        return signature.sql_type(spec.dtype, role, array=whole)

    def _compare_overlaps(self, group: _Group, columns: Sequence[Column]) -> list[Column]:
        """Let one column feed the whole or each element; return the columns that stay."""
        kept: list[Column] = []
        for column in sorted(columns, key=lambda column: column.options.index is not None):
            twin = next((k for k in kept if None in (k.options.index, column.options.index)), None)
            twin = twin or next((k for k in kept if k.options.index == column.options.index), None)
            if twin is None:
                kept.append(column)
                continue
            detail = f'Columns "{twin.name}" and "{column.name}" feed the same input.'
            problem = Problem(ERROR, column.name, f"{self._tensor(group)} is fed twice", detail, None)
            self.surplus.append(_by_hand(problem, self._alter(_drop([column]))))
        return kept

    def _compare_order(self, group: _Group, columns: Sequence[Column]) -> None:
        """Compare the elements' names in the table and in the model, which may have put them into another order."""
        misplaced = signature.misplaced_elements(columns, self.model, group.spec)
        if not misplaced:
            return
        column, element = misplaced[0]
        self.changed.append(
            Problem(
                ERROR,
                column.name,
                f"{self._tensor(group)} has its elements in another order",
                f'Column "{column.name}" is element {column.options.index}; '
                f"the model gives this name to element {element}.",
                self._alter([_set(column, index=str(element)) for column, element in misplaced]),
            )
        )

    def _compare_optional(self, group: _Group, columns: Sequence[Column]) -> None:
        """Compare whether an input may stay unbound; where the server is asked anyway, nothing need be said."""
        optional = group.spec.optional
        wrong = [
            column
            for column in columns
            if column.options.optional != optional and (not optional or signature.is_described(column))
        ]
        if not wrong:
            return
        one = len(wrong) == 1
        says = ("does" if one else "do") + " not declare" if optional else "declares" if one else "declare"
        self.changed.append(
            Problem(
                WARNING if optional else ERROR,
                wrong[0].name,
                f"{self._tensor(group)} is {'optional' if optional else 'required'}",
                f"{_columns(wrong)} {says} it optional.",
                self._alter([_set(column, optional="true" if optional else None) for column in wrong]),
            )
        )

    # ---- what is missing ----

    def _add_elements(self, group: _Group, columns: Sequence[Column]) -> None:
        """Add columns for the elements of an input vector that no column feeds."""
        present = {column.options.index for column in columns}
        row_shape = self.model.row_shape(group.spec)
        if not present or None in present or len(row_shape) > 1:
            return
        width = row_shape[0] if row_shape else 1
        count = width if width >= 0 else max(index or 0 for index in present)
        absent = [element for element in range(1, count + 1) if element not in present]
        if not absent:
            return
        names = signature.element_names(self.model, group.spec) or []
        if len(names) != count:
            names = plain_element_names(group.spec, count)
        elements = {element: names[element - 1] for element in absent}
        defined = define_elements(group.role, group.spec, elements, self.names)
        which = "element" if len(absent) == 1 else "elements"
        self.missing.append(
            Problem(
                ERROR,
                None,
                f"no column for {which} {_enumerate(absent)} of {self._tensor(group)}",
                f"The tensor has shape {shape_text(row_shape)} per row; all elements of a vector must be bound.",
                self._alter(_add(defined)),
            )
        )

    def _add_tensor(self, spec: TensorSpec) -> None:
        """Add columns for an input that no column feeds."""
        problem = f'no column for input tensor "{spec.name}" of model "{self.model.name}"'
        try:
            defined = define_columns(self.model, INPUT, spec, self.names, ImportOptions())
        except errors.ModelFdwError as error:
            self.missing.append(_problem_of(error))
        else:
            self.missing.append(Problem(ERROR, None, problem, "The model requires it.", self._alter(_add(defined))))

    def _add_outputs(self) -> None:
        """Add columns for the outputs, of which none is shown. Whoever shows some may leave others out."""
        defined = []
        for spec in self.model.outputs:
            try:
                defined += define_columns(self.model, OUTPUT, spec, self.names, ImportOptions())
            except errors.ModelFdwError:
                continue
        if defined:
            names = ", ".join(f'"{spec.name}"' for spec in self.model.outputs)
            self.missing.append(
                Problem(
                    WARNING,
                    None,
                    f'no column for any output tensor of model "{self.model.name}"',
                    f"The model's output tensors are: {names}.",
                    self._alter(_add(defined)),
                )
            )

    def _compare_batch_size(self) -> None:
        """Compare the batch size with what the model takes; larger batches are cut, which costs requests."""
        limit, size = self.model.max_batch_size, self.table.options.batch_size
        if not 0 < limit < size:
            return
        verb = "SET" if "batch_size" in self.table.given else "ADD"
        self.changed.append(
            Problem(
                WARNING,
                None,
                f'batch size {size} is more than model "{self.model.name}" takes',
                f"The model takes {limit} rows in a request, so that each batch is cut into several.",
                self._alter([]) + options_clause({f"{verb} batch_size": str(limit)}),
            )
        )
