"""An assert-enabled PostgreSQL, built from the sources of Debian's package.

Asserts bring more than themselves: memory that was freed is overwritten, and the borders of each allocation are
checked. Where valgrind's headers are installed, the server also tells valgrind what palloc() and pfree() do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from dev.debian import Archive, find_suite
from dev.environments import write_last
from dev.places import Places, tool_environment
from dev.screen import Failure, run_logged, step

VALGRIND_HEADER = Path("/usr/include/valgrind/memcheck.h")
# From this version on the sources come without what these tools generate.
GENERATED_UNTIL = 17
GENERATORS = ("bison", "flex", "perl")
OPTIONS = ("--enable-cassert", "--enable-debug", "--without-icu", "--without-readline", "--without-zlib")
CFLAGS = "-O1 -g -fno-omit-frame-pointer"


def build_with_asserts(places: Places, version: int) -> Path:
    """Build a version of PostgreSQL, unless it is there; return its pg_config."""
    suite = find_suite(version)
    target = places.home / f"asserts-{version}"
    options = [*OPTIONS, f"--prefix={target}", f"CFLAGS={CFLAGS}"]
    if VALGRIND_HEADER.exists():
        options.append("CPPFLAGS=-DUSE_VALGRIND")
    stamp, recipe = target / "built", "\n".join([suite, *options])
    if not stamp.exists() or stamp.read_text() != recipe:
        check_generators(version)
        shutil.rmtree(target, ignore_errors=True)
        with step(f"building PostgreSQL {version} with asserts"):
            compile_sources(places, version, suite, options)
        write_last(stamp, recipe)
    return target / "bin" / "pg_config"


def check_generators(version: int) -> None:
    """Raise a failure that names the missing tools."""
    missing = [name for name in GENERATORS if shutil.which(name) is None]
    if version >= GENERATED_UNTIL and missing:
        prefix = "sudo " if os.geteuid() else ""
        raise Failure(
            f"PostgreSQL {version} cannot be built without {', '.join(missing)}",
            hint=f"{prefix}apt-get install {' '.join(missing)}",
        )


def compile_sources(places: Places, version: int, suite: str, options: Sequence[str]) -> None:
    """Fetch, unpack, compile and install the sources; leave nothing of them but what is installed."""
    log, build = places.log / f"asserts-{version}.log", places.build / f"asserts-{version}"
    archive = Archive(suite, build, log)
    archive.update()
    tree = build / "tree"
    tree.mkdir()
    packed = str(archive.source(f"postgresql-{version}"))
    make = ["make", f"--jobs={os.cpu_count() or 1}"]
    commands = [["tar", "--strip-components=1", "-xf", packed], ["./configure", *options]]
    commands += [[*make, "all"], [*make, "install"]]
    for command in commands:
        run_logged(
            command,
            log,
            f"could not build PostgreSQL {version}",
            environment=tool_environment(),
            append=True,
            popen_arguments={"cwd": tree},
        )
    shutil.rmtree(build)
