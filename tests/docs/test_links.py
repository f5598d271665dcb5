"""Links of README and documentation lead to files and headings of the repository."""

import re
from urllib.parse import unquote

import pytest

from tests import ROOT
from tests.docs.markdown import PAGES, anchors, links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if ROOT / "docs" / "reference" in target.parents:
            continue  # written by `make docs`, which checks it
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_pages_that_code_and_tests_name_are_there():
    named = re.compile(r"\bdocs/[\w/-]+\.(?:md|svg|png)")
    folders = ("model", "pipeline", "jobs", "tests", "configs", "examples", "weights")
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".md", ".html", ".js")
    ]
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in named.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }
    assert not missing
