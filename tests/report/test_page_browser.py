"""The page in a real browser, opened from a file: nothing fails, nothing is fetched, and everything can be worked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import USUAL, build, failed, record_of

from dbbench.report.summary import write_report

selenium = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="needs Debian's chromium and chromium-driver"),
]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run --force-prefers-reduced-motion"
).split()
HOSTILE = "<script>alert(1)</script>"
SECONDS = 60


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    variants = (*USUAL[:3], replace(USUAL[4], label=HOSTILE), USUAL[7])
    build(path, variants=variants, seeds=2, failures=[failed(USUAL[2], 1, "failed", "</script><img src=x onerror=y>")])
    write_report(path)
    return path / "report.html"


@pytest.fixture(scope="module")
def browser(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    try:
        size(driver, 1400, 1000)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Any:
    browser.get("about:blank")
    browser.get_log("performance")  # of the browser's own first page
    browser.get(file.as_uri())
    wait(browser, lambda: browser.execute_script("return document.querySelector('#timeline-live').dataset.ready"))
    return browser


def size(driver: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def wait(driver: Any, done: Callable[[], Any]) -> Any:
    return WebDriverWait(driver, SECONDS, poll_frequency=0.05).until(lambda _: done())


def find(driver: Any, css: str) -> Any:
    return driver.find_element(By.CSS_SELECTOR, css)


def in_sight(driver: Any, css: str) -> Any:
    element = find(driver, css)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


def shown_range(driver: Any) -> list[float]:
    return driver.execute_script("return document.querySelector('#timeline-plot')._fullLayout.xaxis.range.map(Number)")


def test_nothing_is_fetched_but_the_file_and_no_error_is_logged(opened, file):
    """The browser's own log of the network, from before the page was opened until it was ready."""
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    urls = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    fetched = {url for url in urls if not url.startswith("data:")}
    assert fetched == {file.as_uri()}
    assert opened.get_log("browser") == []
    assert opened.execute_script("return typeof Plotly") == "object"


def column(driver: Any, table: str, place: int) -> list[str]:
    rows = driver.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[place].text for row in rows]


PEAKS = "memory-at-the-peak-of-a-training-step-mib-0"


def test_a_table_sorts_by_click_and_by_keyboard(opened):
    """By the exact bytes: up, down, and by another column from the keyboard."""
    sizes = [float(words) for words in column(opened, PEAKS, 1)]
    assert sizes != sorted(sizes)
    button = in_sight(opened, f"#{PEAKS} th:nth-child(2) button")
    button.click()
    assert [float(words) for words in column(opened, PEAKS, 1)] == sorted(sizes)
    heading = find(opened, f"#{PEAKS} th:nth-child(2)")
    assert heading.get_attribute("aria-sort") == "ascending"
    button.click()
    assert [float(words) for words in column(opened, PEAKS, 1)] == sorted(sizes, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    opened.execute_script("arguments[0].focus()", find(opened, f"#{PEAKS} th:first-child button"))
    ActionChains(opened).send_keys(Keys.ENTER).perform()
    names = column(opened, PEAKS, 0)
    assert names == sorted(names, key=str.lower)
    assert heading.get_attribute("aria-sort") is None, "one column at a time says that it is sorted"


def test_what_is_missing_stands_last_either_way(opened):
    """The linear network has no backprop to be compared with: its dash may not count as the smallest ratio."""
    button = in_sight(opened, f"#{PEAKS} th:nth-child(3) button")
    for _ in range(2):
        button.click()
        ratios = column(opened, PEAKS, 2)
        assert ratios.index("–") == len(ratios) - 1 == 4


def test_hover_says_bytes_by_role_total_phase_module_and_op(opened):
    plot = in_sight(opened, "#timeline-plot")
    ActionChains(opened).move_to_element_with_offset(plot, 60, 40).perform()
    label = " ".join(wait(opened, lambda: find(opened, "#timeline-plot .hoverlayer").text).split())
    assert re.search(r"instant \d+", label)
    assert re.search(r"[\d.]+ MiB in all, (forward|backward|optimizer)", label)
    assert re.search(r"aten\.mm in (layers\.\d|head)\s*(allocates|frees) [\d.]+ (MiB|KiB|B) of \w+", label)
    for role in ("parameters", "optimizer", "activations", "inputs", "buffers"):
        assert re.search(rf"[\d.]+ (MiB|KiB|B) {role}", label), role


def test_zoom_by_mouse_and_by_button_changes_the_range_and_reset_restores_it(opened):
    plot = in_sight(opened, "#timeline-plot")
    whole = shown_range(opened)
    find(opened, "#zoom-in").click()
    wait(opened, lambda: shown_range(opened) != whole)
    low, high = shown_range(opened)
    assert (high - low) == pytest.approx((whole[1] - whole[0]) / 2)
    find(opened, "#zoom-out").click()
    wait(opened, lambda: shown_range(opened) == whole)
    drag = ActionChains(opened).move_to_element_with_offset(plot, -100, 0).click_and_hold()
    drag.move_by_offset(60, 0).move_by_offset(60, 0).release().perform()
    wait(opened, lambda: shown_range(opened) != whole)
    find(opened, "#zoom-reset").click()
    wait(opened, lambda: shown_range(opened) == whole)


def test_a_role_is_switched_off_and_on_by_keyboard(opened):
    def areas() -> list[str]:
        return opened.execute_script(
            "return document.querySelector('#timeline-plot')._fullData.filter(t => t.visible === true).map(t => t.name)"
        )

    before = areas()
    assert "activations" in before
    box = in_sight(opened, "#timeline-roles input[value=activations]")
    opened.execute_script("arguments[0].focus()", box)
    ActionChains(opened).send_keys(Keys.SPACE).perform()
    wait(opened, lambda: "activations" not in areas())
    assert "activations" not in find(opened, "#timeline-readout").text.split("\n")[1]
    ActionChains(opened).send_keys(Keys.SPACE).perform()
    wait(opened, lambda: areas() == before)


def test_the_slider_walks_the_instants_and_goes_to_the_peak(opened):
    """From the keyboard; the region that a screen reader follows says where it is."""
    readout = find(opened, "#timeline-readout")
    assert readout.get_attribute("aria-live") == "polite"
    find(opened, "#to-peak").click()
    peak = readout.text
    assert f"{record_of(USUAL[0], 0).row.peak_bytes / 2**20:.2f} MiB in all, backward" in peak
    slider = in_sight(opened, "#timeline-instant")
    slider.send_keys(Keys.ARROW_RIGHT)
    wait(opened, lambda: readout.text != peak)
    after = readout.text
    assert int(re.search(r"Instant (\d+)", after)[1]) == int(re.search(r"Instant (\d+)", peak)[1]) + 1
    slider.send_keys(Keys.HOME)
    wait(opened, lambda: readout.text.startswith("Instant 0 "))
    assert slider.get_attribute("aria-valuetext").startswith("instant 0, ")
    find(opened, "#to-peak").click()
    wait(opened, lambda: readout.text == peak)


def test_another_configuration_is_shown_with_its_own_peak_and_its_name_as_it_is(opened):
    select = in_sight(opened, "#timeline-variant")
    names = [option.text for option in select.find_elements(By.TAG_NAME, "option")]
    assert HOSTILE in names
    option = select.find_elements(By.TAG_NAME, "option")[names.index(HOSTILE)]
    option.click()
    mib = record_of(USUAL[4], 0).row.peak_bytes / 2**20
    wait(opened, lambda: f"{mib:.2f} MiB in all" in find(opened, "#timeline-readout").text)
    assert f"peak {mib:.2f} MiB" in find(opened, "#timeline-plot").text


def test_the_tree_opens_by_keyboard(opened):
    summary = in_sight(opened, "#held .tree > summary")
    opened.execute_script("arguments[0].focus()", summary)
    ActionChains(opened).send_keys(Keys.ENTER).perform()
    layers = find(opened, "#held .tree[open] > details > summary")
    wait(opened, layers.is_displayed)
    ActionChains(opened).send_keys(Keys.TAB).send_keys(Keys.ENTER).perform()
    assert find(opened, "#held .tree[open] > details").get_attribute("open")
    assert re.search(r"[\d.]+ MiB\s+[\d.]+ %", layers.text)


def test_the_button_turns_light_to_dark_and_the_plot_with_it(opened):
    def grounds() -> tuple[str, str]:
        return tuple(
            opened.execute_script(
                "return [getComputedStyle(document.body).backgroundColor,"
                " document.querySelector('#timeline-plot')._fullLayout.plot_bgcolor]"
            )
        )

    light = grounds()
    in_sight(opened, "#theme").click()
    dark = grounds()
    assert light[0] != dark[0] and light[1] != dark[1]
    assert sum(map(int, re.findall(r"\d+", dark[0]))) < 150
    find(opened, "#theme").click()
    assert grounds() == light
    assert opened.execute_script("return localStorage.length + document.cookie.length") == 0


@pytest.mark.parametrize("width", [320, 360, 768])
def test_no_page_is_wider_than_its_screen(opened, width):
    """Whatever is opened: the tables scroll inside their regions."""
    opened.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    size(opened, width, 780)
    try:
        wait(opened, lambda: opened.execute_script("return innerWidth") == width)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        wide = opened.execute_script(
            "return [...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth).length"
        )
        assert wide > 0 or width > 400
    finally:
        size(opened, 1400, 1000)


def test_the_first_tab_skips_to_the_report(opened, file):
    opened.get(file.as_uri())
    wait(opened, lambda: opened.execute_script("return document.querySelector('#timeline-live').dataset.ready"))
    ActionChains(opened).send_keys(Keys.TAB).perform()
    skip = opened.switch_to.active_element
    assert skip.text == "Skip to the report" and skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert opened.switch_to.active_element.get_attribute("id") == "main"


def test_where_the_library_cannot_be_unpacked_a_sentence_says_so(browser, file, tmp_path):
    """An older browser has no DecompressionStream: the page stands without it, and no error is logged."""
    older = tmp_path / "older.html"
    older.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    source = {"source": "delete window.DecompressionStream"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    try:
        browser.get_log("browser")
        browser.get(older.as_uri())
        assert find(browser, "#timeline-static").is_displayed()
        assert not find(browser, "#timeline-live").is_displayed()
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_no_error_was_logged_in_all_of_this(browser):
    """What scripts do when they are used may fail as well."""
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
