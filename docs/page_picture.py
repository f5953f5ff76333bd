"""The picture of the page in the README: `make picture RESULTS=results CACHES=cache`.

It writes the page of a folder of results, opens it in Chromium, without a network, and keeps what
a reader sees first as docs/figures/page.png. Made from EmoDB with whisper-tiny.en:

    lsmprobe extract --model whisper-tiny-en --dataset emodb --data-dir FOLDER
    lsmprobe probe --head linear --layer all --feature-norm NORM --split loso --runs 5
"""

import shutil
import sys
import tempfile
from pathlib import Path

from figures import write_small
from playwright.sync_api import sync_playwright

from lsmprobe.config import ReportConfig
from lsmprobe.report.make import write_page

WIDTH, HEIGHT = 1240, 1560  # pixels
COLOURS = 96  # of the picture: the page is flat, so that few are enough
MOST_BYTES = 200_000


def photograph(page: Path) -> bytes:
    """The top of the page as PNG, as Chromium shows it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        sys.exit("no Chromium is installed (apt-get install chromium)")
    with sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = window.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        return tab.screenshot()


def main(results_dir: Path, cache_dir: Path, out: Path) -> None:
    """Write the picture; exit status 1 if it is too large to be kept."""
    with tempfile.TemporaryDirectory() as folder:
        page = write_page(
            ReportConfig(results_dir=results_dir, cache_dir=cache_dir, out=Path(folder))
        )
        png = photograph(page)
    write_small(png, out, colours=COLOURS, most_bytes=MOST_BYTES)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
