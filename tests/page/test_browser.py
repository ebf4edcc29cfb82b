"""The page in Chromium: every player plays, on any screen, in both languages, light and dark."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.conftest import Make
from uniaudio2.page import Site

webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tested by the package selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE_S = 60

PLAY_ALL = """
const done = arguments[0];
(async () => {
  const silent = [];
  for (const audio of document.querySelectorAll("audio")) {
    audio.muted = true;
    try {
      await audio.play();
      const end = performance.now() + 20000;
      while (!(audio.currentTime > 0 && audio.readyState >= 2) && performance.now() < end)
        await new Promise((next) => setTimeout(next, 10));
      if (!(audio.currentTime > 0 && audio.duration > 0)) silent.push(audio.ariaLabel);
    } catch (error) { silent.push(`${audio.ariaLabel}: ${error}`); }
  }
  done(silent);
})();
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("the page is tested in Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en-US",
        "--autoplay-policy=no-user-gesture-required", "--window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(300)
    try:
        yield driver
    finally:
        driver.quit()


def opened(driver: Any, site: Site) -> Any:
    driver.get(site.page.resolve().as_uri())
    return driver


@pytest.mark.parametrize("single_file", [False, True])
def test_every_player_plays(driver: Any, make: Make, site: Site, tmp_path: Path, single_file: bool) -> None:
    folder = shutil.copytree(site.plan.folder, tmp_path / "site")  # nothing is made anew
    page = opened(driver, make(folder, single_file=single_file))
    players = page.execute_script("return document.querySelectorAll('audio').length")
    assert players == sum(bool(piece.file) for item in site.items for piece in item.pieces if piece.role != "given") + 3
    assert page.execute_async_script(PLAY_ALL) == []
    playing = "return [...document.querySelectorAll('audio')].filter((each) => !each.paused).length"
    assert page.execute_script(playing) <= 1  # one at a time
    pictures = "return [...document.images].filter((one) => { one.loading = 'eager'; return !one.complete }).length"
    end = time.monotonic() + PATIENCE_S
    while page.execute_script(pictures) and time.monotonic() < end:
        time.sleep(0.05)
    assert page.execute_script("return [...document.images].every((one) => one.naturalHeight === 80)")
    assert page.get_log("browser") == []


def test_a_click_on_a_picture_plays_from_there(driver: Any, site: Site) -> None:
    page = opened(driver, site)
    picture = page.find_element("css selector", "#steps .ours .axes")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    webdriver.ActionChains(page).move_to_element(picture).click().perform()
    end = time.monotonic() + PATIENCE_S
    while not page.execute_script("return document.querySelector('#steps .ours audio').currentTime > .25"):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert page.execute_script("return document.querySelector('#steps .ours i').style.display") == "block"


def test_any_screen_language_and_keyboard_will_do(driver: Any, site: Site) -> None:
    page = opened(driver, site)
    button = page.find_element("css selector", "#language")
    try:
        for width in (320, 390, 1280):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
            page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            for _ in range(2):
                button.click()
                assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    html = page.find_element("css selector", "html")
    assert html.get_attribute("lang") == "en"
    assert page.find_element("css selector", "#codec h2").text == "1 Audio codec"
    button.click()
    assert page.find_element("css selector", "#codec h2").text == "1 音频编解码"
    assert "本模型" in page.find_element("css selector", ".ours audio").get_attribute("aria-label")
    page.refresh()
    assert page.find_element("css selector", "html").get_attribute("lang") == "zh"  # remembered
    page.find_element("css selector", "#language").click()

    unnamed = """return [...document.querySelectorAll('a, button, audio, img, summary')].filter((one) =>
      !(one.innerText?.trim() || one.ariaLabel || one.alt)).map((one) => one.outerHTML)"""
    assert page.execute_script(unnamed) == []
    page.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    reached, seen = set(), 0
    for _ in range(200):
        webdriver.ActionChains(page).send_keys(webdriver.Keys.TAB).perform()
        place = page.execute_script("const on = document.activeElement; return [on.tagName, on.closest('section')?.id]")
        seen += place[0] == "AUDIO"
        if place[0] == "BODY":
            break
        reached.add(place[1])
        assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"codec", "speak", "edit", "shot_sound", "steps", "transcribe"} <= reached
    assert page.get_log("browser") == []


def test_light_and_dark(driver: Any, site: Site) -> None:
    page = opened(driver, site)
    shades = {}
    for scheme in ("light", "dark"):
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        colours = page.execute_script(
            "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
        )
        shades[scheme] = [sum(map(int, colour[4:-1].split(","))) for colour in colours]
    assert shades["light"][0] > 600 > 200 > shades["light"][1]
    assert shades["dark"][0] < 200 < 600 < shades["dark"][1]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
