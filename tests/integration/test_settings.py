"""The README's table of settings is what the library defines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
from test_messages import execute

README = Path(__file__).parents[2] / "README.md"


def test_readme_has_every_setting(connection: psycopg.Connection[Any]) -> None:
    execute(connection, "LOAD 'model_fdw'")
    rows = execute(
        connection,
        "SELECT name, context, vartype, boot_val, short_desc FROM pg_settings WHERE name LIKE 'model\\_fdw.%'",
    )
    table = README.read_text().partition("| setting | default | meaning |")[2].partition("\n\n")[0]
    documented = dict(re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", table, re.MULTILINE))
    assert documented.keys() == {name for name, *_ in rows}
    for name, context, type_, value, description in rows:
        assert description.endswith("."), name
        if type_ != "string":
            assert documented[name].strip() == value, name
        if context == "superuser":
            assert re.search(rf"`{name}`.*superusers only", table), name
