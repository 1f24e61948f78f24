"""Build the Python package; its version is the extension's, read from the control file."""

import re
from pathlib import Path

from setuptools import find_packages, setup

CONTROL = Path(__file__).resolve().parent / "sql" / "model_fdw.control"


def version() -> str:
    """Read default_version from the control file."""
    found = re.search(r"^default_version\s*=\s*'([^']+)'", CONTROL.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{CONTROL}: no default_version")
    return found.group(1)


setup(
    name="model_fdw",
    version=version(),
    description="Models on gRPC inference servers as PostgreSQL foreign tables, with batched joins",
    packages=find_packages(include=["fdw", "fdw.*"]),
    package_data={"fdw": ["py.typed"]},
    python_requires=">=3.9",
    install_requires=[
        # From 1.24 on a cast reports its overflow; before, a value out of range became infinite in silence.
        "numpy>=1.24,<3",
        # Source of the message classes and the stub; the one minor version that is tested, and for Python 3.9, for
        # which its gRPC does not exist any more, the ones before it.
        "tritonclient[grpc]>=2.73,<2.74; python_version >= '3.10'",
        "tritonclient[grpc]>=2.60,<2.73; python_version < '3.10'",
        # The stub refuses older ones.
        "grpcio>=1.81.1,<2; python_version >= '3.10'",
        "grpcio>=1.60,<2; python_version < '3.10'",
        # The message classes refuse older ones, although tritonclient declares less; 7 breaks them.
        "protobuf>=6.33.5,<7",
    ],
)
