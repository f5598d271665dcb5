"""What is in the pages of the documentation: fenced blocks with their marks, links, headings."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests import ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "weights" / "README.md"]
    + [p for p in (ROOT / "docs").rglob("*.md") if "reference" not in p.parts
       and p.name != "model-card.md"]
)  # fmt: skip
"""Pages that are written by hand."""

_MARK = re.compile(r"<!-- (not run|slow): (.+) -->\s*")
_COMMENT = re.compile(r"<!--")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of the page below the root.
        line: number of the line with the fence, from 1.
        language: first word behind the fence.
        text: what is in it.
        mark: "not run", "slow" or empty: the comment before the block, which readers do not see.
        reason: why it is marked.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page.

    Raises:
        ValueError: a comment is no mark, or has no block behind it.
    """
    page, found, mark = str(path.relative_to(ROOT)), [], None
    for token in _tokens(path):
        if token.type == "html_block" and _COMMENT.match(token.content):
            if mark is not None or (mark := _MARK.fullmatch(token.content)) is None:
                raise ValueError(f"{page}: {token.content.strip()} is no mark of a block")
        elif token.type == "fence":
            language = (token.info.split() or [""])[0]
            given = mark.groups() if mark else ("", "")
            found.append(Block(page, token.map[0] + 1, language, token.content, *given))
            mark = None
        elif mark is not None and token.nesting != -1:
            raise ValueError(f"{page}: {mark.group().strip()} stands before no block")
    if mark is not None:
        raise ValueError(f"{page}: {mark.group().strip()} stands before no block")
    return found


def links(path: Path) -> Iterator[str]:
    """Targets of all links and pictures of a page."""
    for token in _tokens(path):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield str(child.attrs.get("href") or child.attrs.get("src"))


def anchors(path: Path) -> set[str]:
    """Names of the headings of a page, as GitHub and the site make them."""
    tokens = _tokens(path)
    titles = [
        "".join(child.content for child in inline.children or ())
        for opening, inline in itertools.pairwise(tokens)
        if opening.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _tokens(path: Path) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(path.read_text(encoding="utf-8"))
