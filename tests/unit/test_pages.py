"""The documents are about what is there: their links, the targets of make, the languages of their blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import DOCUMENTS, ROOT, anchors, blocks, links, name_of

PAGES = [*DOCUMENTS, *(ROOT / part / "README.md" for part in ("bench", "examples", "examples/clients", "fdw/native"))]

# A block in another language would be run by nobody, and looked at by nobody.
LANGUAGES = {"", "sql", "hidden", "sh", "nginx", "ini", "yaml", "console"}

SQL = re.compile(r"^\s*(SELECT|CREATE|ALTER|DROP|INSERT|UPDATE|DELETE|EXPLAIN|GRANT|SET|IMPORT)\b.*", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page: Path) -> None:
    for link in links(page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in list(anchors(target.read_text())), link


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_every_document_is_linked_from_the_readme(page: Path) -> None:
    if page != ROOT / "README.md":
        assert name_of(page) in links((ROOT / "README.md").read_text())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_of_make(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    code = [*(block.text for block in blocks(text) if block.language == "sh"), *re.findall(r"`(make [^`]+)`", text)]
    named = {name for part in code for name in re.findall(r"^\s*make ([a-z][a-z-]*)", part, re.MULTILINE)}
    assert named <= targets, named - targets


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_sql_is_in_blocks_that_are_run(page: Path) -> None:
    for block in blocks(page.read_text()):
        assert block.language in LANGUAGES, f"line {block.line}: {block.language}"
        if block.language in ("", "console"):
            assert not SQL.search(block.text), f"line {block.line}: write ```sql"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=name_of)
def test_a_page_says_for_whom_it_is(page: Path) -> None:
    assert re.match(r"# .+\n\n\*For .+\.\*\n\n", page.read_text())


FILE = re.compile(r"`((?:[a-z_]+/)+[A-Za-z_.]*\.?[a-z]*)`")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named(page: Path) -> None:
    for name in FILE.findall(page.read_text()):
        if name.split("/")[0] in {path.name for path in ROOT.iterdir()}:
            assert (ROOT / name).exists(), name
