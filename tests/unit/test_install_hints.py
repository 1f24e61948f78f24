"""What "make install" and "make uninstall" propose: none of it leads to another refusal."""

from __future__ import annotations

import re
import subprocess
import sysconfig
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


@pytest.mark.parametrize(
    ("path", "packages"),
    [
        (b"/opt/a/lib/python3.11/site-packages", "/opt/a/lib/python3.11/site-packages"),
        (b"/usr/local/lib/python3.11/dist-packages:/usr/lib64/b", "/usr/local/lib/python3.11/dist-packages"),
        (sysconfig.get_path("purelib").encode(), None),
        (b"/nothing/of/ours", None),
    ],
)
def test_another_python_than_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: bytes, packages: str | None
) -> None:
    monkeypatch.setattr(install, "installed", lambda pg_config, directory: tmp_path)
    assert install.other_packages(Path("pg_config")) is None, "nothing is installed"
    (tmp_path / "model_fdw.so").write_bytes(b"\x7fELF\0/usr\0" + path + b"\0/etc\0")
    assert install.other_packages(Path("pg_config")) == (packages and Path(packages))


def test_an_unreadable_python_is_not_answered_with_one_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "can_enter", lambda account, directory: False)
    with pytest.raises(Failure, match=re.escape(str(base_python()))) as failure:
        install.check_readable(STRANGER)
    assert failure.value.hint == install.MAKE_ENVIRONMENT
