"""PostgreSQL from Debian's archive: other versions than the machine has, for whoever can run apt-get, root or not.

The package lists and the packages stay below .run; apt checks Debian's signatures as it does for the system.

unpack() takes the binary packages of a version and of the C library that they were built for: a program finds the
libraries beside it, those of the system only after them. source() fetches what the packages were built from.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.environments import write_last
from dev.places import Places, tool_environment
from dev.screen import Failure, run_logged, step

# Which release of Debian has which version.
SUITES = {15: "bookworm", 17: "trixie", 18: "forky"}
ARCHIVE = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Libraries that only JIT and PL/Perl need.
UNUSED = re.compile(r"llvm|perl|libz3")


@dataclass(frozen=True)
class Archive:
    """The packages of one release, with lists apart from the system's.

    directory: holds the lists, and what is fetched.
    """

    suite: str
    directory: Path
    log: Path

    def update(self) -> None:
        """Fetch the lists."""
        for tool, package in (("apt-get", "apt"), (str(KEYRING), "debian-archive-keyring")):
            if shutil.which(tool) is None and not Path(tool).exists():
                raise Failure(f'Debian\'s packages cannot be fetched: package "{package}" is missing')
        shutil.rmtree(self.directory, ignore_errors=True)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.directory / name).mkdir(parents=True)
        kinds = "".join(f"{kind} [signed-by={KEYRING}] {ARCHIVE} {self.suite} main\n" for kind in ("deb", "deb-src"))
        (self.directory / "sources.list").write_text(kinds)
        (self.directory / "installed").touch()
        self._get("update", append=False)

    def libraries(self, package: str) -> list[str]:
        """List the packages with the libraries that a package needs."""
        kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        command = ["apt-cache", *self._options, "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), package]
        output = subprocess.run(command, env=tool_environment(), capture_output=True, text=True, check=True).stdout
        names = re.findall(r"^((?:lib|zlib)\S+)$", output, flags=re.MULTILINE)
        return sorted({name for name in names if not UNUSED.search(name)})

    def packages(self, names: Sequence[str]) -> list[Path]:
        """Fetch packages."""
        self._get("download", *names)
        return sorted(self.directory.glob("*.deb"))

    def source(self, package: str) -> Path:
        """Fetch the authors' own archive of a package's sources."""
        self._get("source", "--download-only", package)
        return next(self.directory.glob(f"{package}_*.orig.tar.*"))

    @property
    def _options(self) -> list[str]:
        places = {"Etc::SourceList": self.directory / "sources.list", "Etc::SourceParts": Path("/dev/null")}
        places |= {"State": self.directory / "state", "Cache": self.directory / "cache"}
        # What the system has is another matter.
        places |= {"State::status": self.directory / "installed"}
        return [part for name, path in places.items() for part in ("-o", f"Dir::{name}={path}")]

    def _get(self, *arguments: str, append: bool = True) -> None:
        run_logged(
            ["apt-get", *self._options, *arguments],
            self.log,
            f"could not fetch packages of Debian's {self.suite}",
            environment=tool_environment(),
            hint="they come from Debian's archive: check the network, or apt's own settings",
            append=append,
            popen_arguments={"cwd": self.directory},
        )


def find_suite(version: int) -> str:
    """Name the release that has a version of PostgreSQL."""
    if version not in SUITES:
        raise Failure(f"PostgreSQL {version} is in no release of Debian's archive; these are: {sorted(SUITES)}")
    return SUITES[version]


def unpack(places: Places, version: int) -> Path:
    """Unpack a version of PostgreSQL, unless it is there; return its pg_config."""
    suite = find_suite(version)
    target = places.home / f"debian-{version}"
    bindir = target / "usr" / "lib" / "postgresql" / str(version) / "bin"
    stamp, recipe = target / "unpacked", f"{suite}\n{target}\n"
    if not stamp.exists() or stamp.read_text() != recipe:
        with step(f"unpacking PostgreSQL {version} of Debian's {suite}"):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            archive = Archive(suite, places.build / f"debian-{version}", places.log / f"debian-{version}.log")
            archive.update()
            server = f"postgresql-{version}"
            names = [server, f"postgresql-client-{version}", f"postgresql-server-dev-{version}", "patchelf"]
            for package in archive.packages([*names, *archive.libraries(server)]):
                command: list[str | Path] = ["dpkg-deb", "--extract", package, target]
                environment = tool_environment()
                run_logged(command, archive.log, f"could not unpack {package}", environment=environment, append=True)
            settle(target, bindir, archive.log)
            shutil.rmtree(archive.directory)
        write_last(stamp, recipe)
    return bindir / "pg_config"


def settle(root: Path, bindir: Path, log: Path) -> None:
    """Make unpacked programs run where they lie, and extensions for them compile on this machine."""
    loader = next(path for path in root.glob("**/ld-linux-*.so.*"))
    libraries = next(root.glob("usr/lib/*/libpq.so.5")).parent
    patchelf: list[str | Path] = [loader, "--library-path", libraries, root / "usr" / "bin" / "patchelf"]
    patchelf += ["--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries]
    programs = [path for path in bindir.iterdir() if path.read_bytes()[:4] == b"\x7fELF"]
    run_logged([*patchelf, *programs], log, "could not patch programs", environment=tool_environment(), append=True)
    # The C library of the packages may declare more than the one whose headers are here; it provides the same.
    header = next(root.glob("usr/include/postgresql/*/server/pg_config.h"))
    header.write_text(re.sub(r"(HAVE_DECL_STRLC\w+) 1", r"\1 0", header.read_text()))
    # JIT's own library was left out; PostgreSQL does without JIT where this file is missing.
    for library in root.glob("usr/lib/postgresql/*/lib/llvmjit.so"):
        library.unlink()
