"""Train the example models and write the demo's rows, once for each state of the examples."""

from __future__ import annotations

import shutil

from dev.build import changed, digest_of, files_of
from dev.environments import write_last
from dev.places import CHECKOUT, Places, tool_environment
from dev.screen import run_logged, step
from dev.servers import copy_models, make_readable

EXAMPLES = CHECKOUT / "examples"
SOURCES = (
    "examples/models",
    "examples/train.py",
    "examples/data.py",
    "examples/phrases.csv",
    "dev/requirements-triton.txt",
)


def ensure(places: Places) -> None:
    """Make places.models and places.patients where they are missing or out of date."""
    stamp, digest = places.home / "models.stamp", digest_of(files_of(SOURCES))
    if not changed(stamp, digest):
        return
    with step("training the example models"):
        shutil.rmtree(places.models, ignore_errors=True)
        copy_models([EXAMPLES / "models"], places.models)
        python = places.triton_venv / "bin" / "python"
        for script, target in (("train.py", places.models), ("data.py", places.patients)):
            run_logged(
                [python, EXAMPLES / script, target],
                places.log / f"{script.removesuffix('.py')}.log",
                f"could not run examples/{script}",
                environment={**tool_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
            )
            make_readable(target)
    write_last(stamp, digest)
