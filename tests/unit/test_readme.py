"""The README's tables are those of the code: options as in fdw/options.py, every SQLSTATE of fdw/errors.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fdw import errors
from fdw.options import LEVELS, OPTIONS, Option

README = Path(__file__).parents[2] / "README.md"


def _values(option: Option) -> str:
    if option.choices and len(option.choices) < 5:
        return ", ".join(option.choices)
    if option.kind in ("integer", "number"):
        return f"{option.low:.0f} to {option.high:.0f}"
    return "true, false" if option.kind == "boolean" else ""


def _default(option: Option) -> str:
    if option.required:
        return "required"
    if option.kind == "boolean":
        return str(option.default).lower()
    return "" if option.default in (None, "", ()) else str(option.default)


def markdown() -> str:
    """Give the README's table of options: level, name, default, values, meaning."""
    lines = ["| level | option | default | values | meaning |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {option.level} | `{option.name}` | {_default(option)} | {_values(option)} | {option.help} |"
        for level in LEVELS
        for option in OPTIONS
        if option.level == level
    ]
    return "\n".join(lines)


def test_readme_has_the_option_table() -> None:
    table = markdown()
    assert table in README.read_text(), f"put this table into README.md:\n{table}"


def subclasses(kind: type) -> Iterator[type]:
    for found in kind.__subclasses__():
        yield found
        yield from subclasses(found)


def test_readme_has_every_sqlstate() -> None:
    """All but that of a cancelled ticket, which PostgreSQL's own error overtakes."""
    raised = {found.sqlstate for found in (errors.ModelFdwError, *subclasses(errors.ModelFdwError))}
    table = README.read_text().partition("## Errors")[2].partition("## Limits")[0]
    written = set(re.findall(r"\b[0-9A-Z]{5}\b", "".join(re.findall(r"^\| ([^|]+)\|", table, re.MULTILINE))))
    assert raised - written == {errors.Cancelled.sqlstate}
    assert not written - raised
