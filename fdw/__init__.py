"""Models on inference servers as PostgreSQL foreign tables.

``fdw.ModelFdw`` is the class that users name in ``CREATE SERVER ... OPTIONS (wrapper 'fdw.ModelFdw')``; this path is
stored in their catalogs and never moves. Importing this package alone imports nothing else: the class is loaded when it
is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fdw.wrapper import ModelFdw

__all__ = ["ModelFdw"]

# The control file's; the library and this package work together only if it is the same.
__version__ = "0.1.0"


def __getattr__(name: str) -> type[ModelFdw]:
    """Load the Multicorn class on first use (PEP 562)."""
    if name != "ModelFdw":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fdw.wrapper import ModelFdw

    return ModelFdw
