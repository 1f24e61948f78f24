"""The benchmark's models: the example "sum10", and the same for other numbers of features."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.places import CHECKOUT
from dev.screen import Failure

SOURCE = CHECKOUT / "examples" / "models" / "sum10"


def write_model(repository: Path, features: int) -> None:
    """Write model "sumN", which adds up N features, into a repository."""
    target = repository / f"sum{features}"
    config = (SOURCE / "config.pbtxt").read_text()
    for old, new in (
        ('name: "sum10"', f'name: "{target.name}"'),
        ("dims: [ 10 ]", f"dims: [ {features} ]"),
        (f'"{names(10)}"', f'"{names(features)}"'),
    ):
        if config.count(old) != 1:
            raise Failure(f"{SOURCE / 'config.pbtxt'} has changed: the benchmark does not find {old}")
        config = config.replace(old, new)
    shutil.copytree(SOURCE / "1", target / "1", ignore=shutil.ignore_patterns("__pycache__"))
    (target / "config.pbtxt").write_text(config)


def names(features: int) -> str:
    """List the feature columns as the model's configuration does."""
    return ",".join(f"f{number}" for number in range(1, features + 1))
