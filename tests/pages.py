"""The project's documents: their fenced blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *(path for path in [ROOT / "CONTRIBUTING.md"] if path.exists()),
]

FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
HIDDEN = re.compile(r"^<!-- sql\n(.*?)^-->$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text and first line; ``output`` is the plain block right behind one of SQL."""

    language: str
    text: str
    line: int
    output: str | None = None


def name_of(path: Path) -> str:
    """Name a document as its reader does."""
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[Block]:
    """Read the blocks of a document, in order; hidden SQL (a comment "<!-- sql ... -->") has language "hidden"."""
    found: list[Block] = []
    end = 0
    matches = sorted([*FENCE.finditer(text), *HIDDEN.finditer(text)], key=lambda match: match.start())
    for match in matches:
        line = text.count("\n", 0, match.start()) + 1
        if match.re is HIDDEN:
            found.append(Block("hidden", match[1], line))
        elif found and found[-1].language == "sql" and not match[2] and not text[end : match.start()].strip():
            found[-1] = Block("sql", found[-1].text, found[-1].line, match[3])
        else:
            found.append(Block(match[2], match[3], line))
        end = match.end()
    return found


def anchors(text: str) -> Iterator[str]:
    """Give the anchors of a document's headings, as GitHub and others make them."""
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower()
        yield re.sub(r"[^a-z0-9 _-]", "", plain).strip().replace(" ", "-")


def links(text: str) -> list[str]:
    """Give what a document links to, outside of blocks."""
    return LINK.findall(FENCE.sub("", text))
