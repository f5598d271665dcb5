"""A picture of the page of a run's best video: `python -m tests.page_picture RUN FILE.png`."""

import io
import re
import sys
from pathlib import Path

from PIL import Image

from tests.browser import MISSING, PROGRAM, Browser

_WIDTH, _HEIGHT = 1100, 1500
_COLOURS = 255


def main(run: str, target: str) -> int:
    """Open the page that the page of the run begins with, and write what a window shows of it."""
    if PROGRAM is None:
        print(MISSING, file=sys.stderr)
        return 1
    report = Path(run) / "report"
    found = re.search(r'id="best" href="([^"]+)"', (report / "index.html").read_text())
    if found is None:
        print(f"{report}: no page there shows anybody", file=sys.stderr)
        return 1
    with Browser() as browser:
        page = browser.open(report / found[1], width=_WIDTH, height=_HEIGHT)
        page.wait("report.boxesAt(report.player.now())")
        if page.run("document.getElementById('video') !== null"):
            page.wait("document.getElementById('video').readyState > 1")
        # The note names folders of this machine.
        page.run("document.getElementById('note').hidden = true")
        page.run("new Promise(done => setTimeout(done, 500))")
        end = page.run("document.getElementById('tracks').getBoundingClientRect().bottom") + 16
        data = Path(page.screenshot(target, whole=False)).read_bytes()
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture = picture.crop((0, 0, _WIDTH, min(_HEIGHT, round(end))))
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target}: {Path(target).stat().st_size // 1000} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
