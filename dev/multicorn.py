"""A PostgreSQL that has Multicorn, where one is found: it is in no package registry, and nothing here installs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dev.build import build_library
from dev.environments import site_packages
from dev.places import Places, installed
from dev.servers import Postgres
from dev.versions import SYSTEM

EXTENSION = Path("extension") / "multicorn.control"
NOT_FOUND = f"Multicorn is in no PostgreSQL here (neither the tested one nor {SYSTEM}/*)"


def find_multicorn(places: Places) -> Places | None:
    """Find a PostgreSQL with Multicorn for which the library can be built: the one of these places, else Debian's."""
    debian = sorted(SYSTEM.glob("*/bin/pg_config"), reverse=True)
    candidates = [places, *(replace(places, postgres=pg_config) for pg_config in debian)]
    return next((candidate for candidate in candidates if has_multicorn(candidate.pg_config)), None)


def has_multicorn(pg_config: Path) -> bool:
    """Look for the extension, and for what builds another one."""
    return (installed(pg_config, "sharedir") / EXTENSION).exists() and installed(pg_config, "pgxs").exists()


def multicorn_postgres(places: Places, *, name: str, settings: Mapping[str, str] | None = None) -> Postgres:
    """Describe a cluster with the library, in which Multicorn finds our class: it looks where its Python does."""
    build_library(places)
    variables = {"PYTHONPATH": str(site_packages(places.venv))}
    return Postgres(settings=settings, variables=variables, name=name, places=places)


def create_server(name: str, options: str) -> str:
    """Write the statement that makes a foreign server of our class."""
    return f"CREATE SERVER {name} FOREIGN DATA WRAPPER multicorn OPTIONS (wrapper 'fdw.ModelFdw', {options})"
