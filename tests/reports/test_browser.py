"""The page in a real Chromium. A machine without one, or without selenium, says so and skips."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from experiments.claim_entry import ClaimEntry
from reports.build import build

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="the page was NOT looked at in a browser: install chromium and chromium-driver (Debian: apt-get install)",
)
LABEL = '遮罩 <b>75</b> & "größer"'


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver", reason="the page was NOT looked at: pip install selenium")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield found
    found.quit()


@pytest.fixture
def page(tmp_path: Path, make_ablation: Any, make_frame: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tables: one of a paper with decided claims, curves and wide pictures, one of no paper without runs."""
    monkeypatch.setattr("reports.build.ablation_names", lambda: [])
    claims = ("ft[a] > ft[b]", ClaimEntry(f"ft[{LABEL}] > ft[a]", ours=True, why="to see <i>both</i>"))
    first = make_ablation(
        rows={"a": {"ft": 84.0, "lin": 70.0}, "b": {"ft": 83.0}, LABEL: {"ft": 85.0, "lin": 71.0}}, claims=claims
    )
    values = {("a", "finetune/top1"): [50.0, 50.5, 50.1], ("b", "finetune/top1"): [40.0, 40.2, 40.1]}
    values |= {
        (LABEL, "finetune/top1"): [9.5],
        ("a", "finetune/wall_seconds"): [90.0],
        ("b", "finetune/wall_seconds"): [60.0],
    }
    second = make_ablation("labels", title="Labels", paper={}, claims=())
    kept = tmp_path / "trainings"
    kept.mkdir()
    (kept / "f00d.json").write_text('{"facts": {"commit": "c0ffee"}, "curve": [[1, 2.0], [9, 1.0]]}')
    frames = [Image.new("RGB", (640, 82), shade) for shade in ("red", "blue")]
    frames[0].save(kept / "f00d.png")
    frames[0].save(kept / "f00d.webp", save_all=True, append_images=frames[1:])
    frame = make_frame(values).assign(fingerprint="f00d")
    build([first, second], pd.concat([frame, make_frame({}, ablation="labels")]), tmp_path)
    return tmp_path / "index.html"


def show(driver: Any, page: Path, width: int = 1280, scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(page.as_uri())


def rows(driver: Any) -> list[str]:
    script = "return [...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[0].textContent)"
    return list(driver.execute_script(script))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_asks_nothing_of_the_network_and_says_nothing_to_the_console(
    driver: Any, page: Path, width: int, scheme: str
) -> None:
    show(driver, page, width, scheme)
    driver.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert driver.execute_script("return document.querySelectorAll('.strip').length") > 0
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    verdict = "return document.querySelector('.claims tbody td').getBoundingClientRect().right"
    assert driver.execute_script(verdict) < width  # the verdict is in sight
    shade = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (shade == "rgb(255, 255, 255)") == (scheme == "light")
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert {url for url in asked if url.startswith("file")} <= {page.as_uri()}
    assert driver.execute_script("return document.querySelectorAll('td b, th b, i').length") == 0  # escaped
    assert LABEL in driver.find_element("tag name", "main").get_attribute("textContent")


def test_a_heading_sorts_by_number_and_a_third_press_restores_the_order_of_the_paper(driver: Any, page: Path) -> None:
    show(driver, page)
    before = rows(driver)
    heads = driver.find_elements("css selector", "table.sortable thead tr:last-child th")
    measured = next(head for head in heads if head.text.endswith("measured") or "measured" in head.text)
    button = measured.find_element("tag name", "button")
    button.send_keys("\ue007")  # the keyboard will do
    assert measured.get_attribute("aria-sort") == "ascending"
    assert rows(driver) == [LABEL, "b", "a (default)"]  # 9.5 before 40.1: by number, not by letter
    button.click()
    assert rows(driver) == ["a (default)", "b", LABEL]
    button.click()
    assert rows(driver) == before
    assert measured.get_attribute("aria-sort") is None


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [("paper", "MAE", ["Mask sampling"]), ("verdict", "holds", ["Mask sampling"]), ("words", "labels", ["Labels"]),
     ("scale", "desk", ["Mask sampling", "Labels"]), ("verdict", "contradicted", [])],
)  # fmt: skip
def test_a_filter_leaves_the_tables_that_fit(driver: Any, page: Path, field: str, value: str, left: list[str]) -> None:
    show(driver, page)
    driver.find_element("name", field).send_keys(value)
    shown = [h.text for h in driver.find_elements("css selector", ".card h3") if h.is_displayed()]
    assert shown == left
    assert [h.text for h in driver.find_elements("css selector", ".part > h2") if h.is_displayed()] == left
    assert driver.find_element("id", "shown").text == f"{len(left)} of 2 tables shown"


def test_printed_everything_is_open_and_the_filter_is_not_there(driver: Any, page: Path) -> None:
    show(driver, page)
    printed = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
    assert driver.execute_script("return [...document.querySelectorAll('details')].every(one => one.open)")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not driver.find_element("id", "filter").is_displayed()
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(driver: Any, page: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="the page was NOT checked by axe: pip install axe-core-python")
    show(driver, page, scheme=scheme)
    driver.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    driver.execute_script((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script("axe.run().then(arguments[0])")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
