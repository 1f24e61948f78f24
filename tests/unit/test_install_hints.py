"""What "make install" and "make uninstall" propose: none of it leads to another refusal."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dev import install
from dev.places import Account, base_python
from dev.screen import Failure

STRANGER = Account("stranger", 1, 1)


@pytest.fixture
def managed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "check_postgres", lambda pg_config: None)
    monkeypatch.setattr(install.prerequisites, "check_building", lambda: None)
    refused: subprocess.CompletedProcess[bytes] = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: refused)


@pytest.mark.usefixtures("managed")
def test_a_managed_python_needs_an_environment_of_the_systems_python() -> None:
    """The first python3 of root's PATH may be one that the server's user cannot read."""
    with pytest.raises(Failure) as failure:
        install.install(Path("pg_config"), Path("/usr/bin/python3"))
    assert failure.value.hint.startswith("/usr/bin/python3 -m venv ")


@pytest.mark.usefixtures("managed")
def test_a_managed_python_has_nothing_to_uninstall() -> None:
    with pytest.raises(Failure) as failure:
        install.uninstall(Path("pg_config"), Path("/usr/bin/python3"))
    assert "make uninstall" in failure.value.hint
    assert "venv" not in failure.value.hint


def test_an_unreadable_python_is_not_answered_with_one_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "can_enter", lambda account, directory: False)
    with pytest.raises(Failure, match=re.escape(str(base_python()))) as failure:
        install.check_readable(STRANGER)
    assert failure.value.hint == install.MAKE_ENVIRONMENT
