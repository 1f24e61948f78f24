"""The hooks of .pre-commit-config.yaml call what is there."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from ruamel.yaml import YAML

from dev.checks import lint_checks
from dev.places import CHECKOUT
from dev.servers import default_places

CONFIG = YAML(typ="safe").load(CHECKOUT / ".pre-commit-config.yaml")
HOOKS = [hook for repository in CONFIG["repos"] for hook in repository["hooks"]]
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


def named_checks(command: list[str]) -> list[str]:
    return [name for word in command[2:] for name in word.removeprefix("ARGS=").split()]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_hook(hook: dict[str, Any]) -> None:
    """A hook is a target of the Makefile, on the checks or tests of which it names only such as exist."""
    command = shlex.split(hook["entry"])
    assert command[0] == "make"
    assert command[1] in TARGETS
    if command[1] == "lint":
        assert set(named_checks(command)) <= set(lint_checks(default_places()))
    else:
        assert all((CHECKOUT / name).exists() for name in named_checks(command) if not name.startswith("-"))
    assert hook["language"] == "system"


def test_every_check_has_a_hook() -> None:
    named = {name for hook in HOOKS for name in named_checks(shlex.split(hook["entry"])) if " lint " in hook["entry"]}
    assert named == set(lint_checks(default_places()))


def test_no_other_repository() -> None:
    """Nothing is fetched from elsewhere in another version."""
    assert [repository["repo"] for repository in CONFIG["repos"]] == ["local"]
