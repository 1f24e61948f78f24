"""End a server when the program that started it is gone, however it went.

Runs as a process of its own: waits until its standard input closes, which the kernel does when the
holder of the other end exits or is killed, then ends the server's process group and removes its files.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dev.processes import Running


def main() -> None:
    """Wait for the end of standard input, then end the server of the first argument."""
    running = Running.from_dict(json.loads(sys.argv[1]))
    with contextlib.suppress(KeyboardInterrupt):
        while os.read(sys.stdin.fileno(), 1):
            pass
    running.stop(timeout_s=5)


if __name__ == "__main__":
    main()
