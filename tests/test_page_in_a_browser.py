"""The page in a real browser, from a file, offline: what is there works, and nothing is fetched."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import utterance_table, write_cache
from simulated import simulated_record, write_records

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.report.page import make_page

pytestmark = pytest.mark.slow
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
HOSTILE = "<script>document.title = 'taken'</script>\"' \u202egnp.exe " + "w" * 120


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Two models, one of a hostile name, five layers each; clips that can be heard."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    records = []
    for model in ("plain", HOSTILE):
        for layer in range(5):
            record = simulated_record("plain", "corpus", "linear", 0, layer, n_test=14)
            record |= {"model": model, "experiment": f"{records.__len__():012x}"}
            record["alarms"] = [{"code": "one-class", "text": HOSTILE}] if layer == 2 else []
            records.append(record)
    said = records[0]["predictions"]
    speakers, emotions = [one["speaker"] for one in said], [one["emotion"] for one in said]
    table = utterance_table(speakers, emotions, [15] * 14, "female")
    for i, key in enumerate(table.key):
        (folder / "clips").mkdir(exist_ok=True)
        table.loc[i, "path"] = str(folder / "clips" / key)
        soundfile.write(folder / "clips" / key, rng.normal(0, 0.1, 4800), 16_000)
    states = [torch.randn(5, 15, 6) for _ in said]
    path = write_cache(folder / "cache" / "plain" / "corpus.h5", table, states)
    for record in records:
        record["cache"] |= {"file": "plain/corpus.h5", "hash": FeatureCache(path).identity_hash}
    for n, record in enumerate(records):
        write_records(folder / "results" / str(n), [record | {"model": "plain"}])
        [written] = (folder / "results" / str(n)).rglob("*.json")
        if record["model"] == HOSTILE:
            content = written.read_text().replace('"model": "plain", "corpus"', "MARK", 1)
            import json

            content = content.replace("MARK", f'"model": {json.dumps(HOSTILE)}, "corpus"')
            written.write_text(content)
    return make_page(
        folder / "results", folder / "report.html", cache_dir=folder / "cache", embed_audio=2
    )


@pytest.fixture
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra dev")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )


@pytest.fixture
def opened(browser, page_file):
    """Open the page; at the end, nothing but files was asked for and nothing was complained of."""
    asked, complaints = [], []

    def open_page(width=1200, **settings):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, offline=True, **settings
        )
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    assert asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert complaints == []


def column(page, number):
    rows = page.locator("#scores-table tbody tr:visible")
    return rows.evaluate_all(f"rows => rows.map(row => row.cells[{number}].textContent.trim())")


def test_tables_sort_by_number_and_by_name_and_say_so(opened):
    page = opened()
    head = page.locator("#scores-table th").nth(6)
    head.get_by_role("button").click()
    values = [float(value.split()[0]) for value in column(page, 6)]
    assert values == sorted(values, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(value.split()[0]) for value in column(page, 6)]
    assert values == sorted(values)


def test_filters_leave_what_fits_and_count_it(opened):
    page = opened()
    n = len(column(page, 0))
    assert n == 10
    page.get_by_label("Search").fill("plain linear")
    assert column(page, 0) == ["plain"] * 5
    assert "5 of 10" in page.locator("#shown").text_content()
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("model", exact=True).select_option("plain")
    assert column(page, 0) == ["plain"] * 5


def test_a_point_says_what_it_is_to_the_keyboard(opened):
    page = opened()
    page.locator(".point").nth(2).focus()
    assert "layer 2: " in page.locator("figure.curves output").text_content()


def test_the_slider_shows_every_layer_and_colours_by_what_is_chosen(opened):
    page = opened()
    figure = page.locator("figure.projection")
    first = figure.locator(".dot").first
    before = first.get_attribute("cx"), first.get_attribute("cy")
    figure.get_by_role("slider").focus()
    page.keyboard.press("Home")
    assert figure.locator("output").text_content() == "layer 0"
    assert (first.get_attribute("cx"), first.get_attribute("cy")) != before
    figure.get_by_label("Colour").select_option("speaker")
    assert "s0" in figure.locator(".legend").text_content()


def test_the_theme_turns(opened):
    page = opened(color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(colour) != light
    assert page.evaluate(colour) == opened(color_scheme="dark").evaluate(colour)


@pytest.mark.parametrize("source", ["data:", "clips/"])
def test_clips_play_from_inside_the_page_and_from_the_corpus_folder(opened, source):
    page = opened()
    page.locator("#runs details").first.locator("summary").click()
    seconds = page.evaluate(
        """async (source) => {
            const clip = [...document.querySelectorAll("audio")]
                .find((one) => one.getAttribute("src").startsWith(source));
            await clip.play();
            return clip.duration;
        }""",
        source,
    )
    assert seconds == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_overflows_and_hostile_names_stay_text(opened, width):
    page = opened(width)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.title() == "lsmprobe: results"
    assert HOSTILE in page.locator("body").text_content()


def test_without_its_script_the_page_says_the_same(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("#scores-table tbody tr").count() == 10
    assert page.locator("#theme").is_hidden()
    assert page.locator("figure.projection .dot").count() == 14


def test_a_link_opens_its_experiment(opened):
    page = opened()
    page.locator("#scores-table tbody a").first.click()
    page.locator("details[open]").wait_for()
    assert page.locator("details[open]").count() == 1
