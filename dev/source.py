"""An assert-enabled PostgreSQL, built from the sources of Debian's package.

Asserts bring more than themselves: memory that was freed is overwritten, and the borders of each allocation are
checked. Where valgrind's headers are installed, the server also tells valgrind what palloc() and pfree() do.

Whoever can run apt-get can do this, root or not: the package lists stay below .run, and apt checks Debian's
signatures as it does for the system.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from dev.environments import write_last
from dev.places import Places, tool_environment
from dev.screen import Failure, run_logged, step

# Which release of Debian has which version.
SUITES = {15: "bookworm", 17: "trixie", 18: "forky"}
ARCHIVE = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
VALGRIND_HEADER = Path("/usr/include/valgrind/memcheck.h")
# From this version on the sources come without what these tools generate.
GENERATED_UNTIL = 17
GENERATORS = ("bison", "flex", "perl")
OPTIONS = ("--enable-cassert", "--enable-debug", "--without-icu", "--without-readline", "--without-zlib")
CFLAGS = "-O1 -g -fno-omit-frame-pointer"


def build_with_asserts(places: Places, version: int) -> Path:
    """Build a version of PostgreSQL, unless it is there; return its pg_config."""
    target = places.home / f"asserts-{version}"
    options = [*OPTIONS, f"--prefix={target}", f"CFLAGS={CFLAGS}"]
    if VALGRIND_HEADER.exists():
        options.append("CPPFLAGS=-DUSE_VALGRIND")
    stamp, recipe = target / "built", "\n".join(options)
    if not stamp.exists() or stamp.read_text() != recipe:
        check(version)
        shutil.rmtree(target, ignore_errors=True)
        with step(f"building PostgreSQL {version} with asserts"):
            compile_sources(places, version, options)
        write_last(stamp, recipe)
    return target / "bin" / "pg_config"


def check(version: int) -> None:
    """Raise a failure where the version is not Debian's, or that names the packages that are missing."""
    if version not in SUITES:
        raise Failure(f"PostgreSQL {version} is in no release of Debian's archive; these are: {sorted(SUITES)}")
    if shutil.which("apt-get") is None:
        raise Failure("the sources of PostgreSQL cannot be fetched without apt-get")
    missing = [name for name in GENERATORS if version >= GENERATED_UNTIL and shutil.which(name) is None]
    if not KEYRING.exists():
        missing.append(KEYRING.stem)
    if missing:
        prefix = "sudo " if os.geteuid() else ""
        raise Failure(
            f"PostgreSQL {version} cannot be built without {', '.join(missing)}",
            hint=f"{prefix}apt-get install {' '.join(missing)}",
        )


def compile_sources(places: Places, version: int, options: Sequence[str]) -> None:
    """Fetch, unpack, compile and install the sources; leave nothing of them but what is installed."""
    log, build = places.log / f"asserts-{version}.log", places.build / f"asserts-{version}"
    tree = build / "tree"
    shutil.rmtree(build, ignore_errors=True)
    tree.mkdir(parents=True)
    log.unlink(missing_ok=True)
    packed = fetch(f"postgresql-{version}", SUITES[version], build, log)
    make = ["make", f"--jobs={os.cpu_count() or 1}"]
    commands = [["tar", "--strip-components=1", "-xf", str(packed)], ["./configure", *options]]
    for command in [*commands, [*make, "all"], [*make, "install"]]:
        run(command, tree, log, f"could not build PostgreSQL {version}")
    shutil.rmtree(build)


def fetch(package: str, suite: str, directory: Path, log: Path) -> Path:
    """Fetch the authors' own archive of a package's sources, with package lists apart from the system's."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb-src [signed-by={KEYRING}] {ARCHIVE} {suite} main\n")
    places = {"Etc::SourceList": sources, "Etc::SourceParts": Path("/dev/null")}
    places |= {"State": directory / "state", "Cache": directory / "cache"}
    apt = ["apt-get", *(part for name, path in places.items() for part in ("-o", f"Dir::{name}={path}"))]
    hint = "they come from Debian's archive: check the network, or apt's own settings"
    for command in ([*apt, "update"], [*apt, "source", "--download-only", package]):
        run(command, directory, log, f"could not fetch the sources of {package} from Debian's {suite}", hint)
    return next(directory.glob(f"{package}_*.orig.tar.*"))


def run(command: Sequence[str], directory: Path, log: Path, failure: str, hint: str = "") -> None:
    """Run a command in a directory; its output goes to the end of the log."""
    arguments = {"cwd": directory}
    environment = tool_environment()
    run_logged(command, log, failure, environment=environment, hint=hint, append=True, popen_arguments=arguments)
