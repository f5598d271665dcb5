"""The site of the documentation: Sphinx, with pages in Markdown.

`make docs` builds it. Pages of the reference are written from the code before Sphinx looks for
pages, so they are always those of this code. No page needs a network: fonts are the reader's own,
and scripts and styles lie beside the pages.
"""

import re
import sys
from pathlib import Path

_SITE = Path(__file__).parent
_ROOT = _SITE.parents[1]
sys.path[:0] = [str(_SITE), str(_ROOT)]

import reference  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.errors import SphinxError  # noqa: E402

project = "VSD-MOT"
author = "VSD-MOT"
extensions = ["myst_parser"]
exclude_patterns = ["site"]

# Links to headings are those that GitHub knows, too.
myst_heading_anchors = 4
# References to anything that is not there are warnings, which `make docs` takes as errors.
nitpicky = True

# Dashes and quotes stay as they are typed: many stand in commands.
smartquotes = False

html_theme = "furo"
html_title = "VSD-MOT"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False

_CARD = "weights/README.md"
_LOADS = re.compile(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]*"')


def setup(app: Sphinx) -> None:
    """Register what runs before pages are read, and when they are written."""
    app.connect("builder-inited", _write_generated)
    app.connect("source-read", _link_card)
    app.connect("build-finished", _refuse_loads)


def _write_generated(app: Sphinx) -> None:
    docs = Path(app.srcdir)
    reference.write(docs / "reference")
    card = (_ROOT / _CARD).read_text(encoding="utf-8")
    reference.write_if_changed(
        docs / "explanation" / "model-card.md",
        card.replace("](../docs/explanation/", "](").replace("](../docs/", "](../"),
    )


def _link_card(app: Sphinx, name: str, source: list[str]) -> None:
    """The model card lies beside the weights; on the site it is a page."""
    for way in ("../", "../../"):
        source[0] = source[0].replace(f"]({way}{_CARD}", "](/explanation/model-card.md")


def _refuse_loads(app: Sphinx, error: Exception | None) -> None:
    """End the build if a page would load anything over the network."""
    if error is None:
        for page in Path(app.outdir).rglob("*.html"):
            if found := _LOADS.search(page.read_text(encoding="utf-8")):
                raise SphinxError(f"{page}: {found.group()} is loaded over the network")
