"""The benchmark's models: the example "sum10", and the same for other numbers of features."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.places import CHECKOUT
from dev.screen import Failure

SOURCE = CHECKOUT / "examples" / "models" / "sum10"


BUSY = "busy10"
BUSY_MS = 20

# Appended to the example's model: one request after the other, as on a device that is fully used.
BUSY_CODE = f"""

class Sum(TritonPythonModel):
    pass


class TritonPythonModel:
    def execute(self, requests):
        import time

        time.sleep({BUSY_MS / 1000} * len(requests))
        return Sum.execute(self, requests)
"""


def write_busy_model(repository: Path) -> None:
    """Write model "busy10" into a repository: sum10, and each request takes BUSY_MS."""
    target = repository / BUSY
    shutil.copytree(SOURCE, target, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "config.pbtxt").write_text((SOURCE / "config.pbtxt").read_text().replace('"sum10"', f'"{BUSY}"'))
    model = target / "1" / "model.py"
    model.write_text(model.read_text() + BUSY_CODE)


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
