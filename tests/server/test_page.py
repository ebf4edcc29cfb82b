"""The page at "/", used as people use it: in Chromium, with a fake microphone, by mouse and by keyboard."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.server.conftest import serving
from uniaudio2 import UniAudio2
from uniaudio2.audio import read_audio, write_audio
from uniaudio2.server.app import STATIC

webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tested by the package selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
RECORDING = Path(STATIC).parents[1] / "demo_assets" / "keyword_computer.opus"
PATIENCE_S = 90  # for one step; machines that are busy with other things take long


KEEP_RECORDING = """
  const address = URL.createObjectURL
  URL.createObjectURL = (file) => {
    if (file.name === 'recording.wav') window.recording = file
    return address(file)
  }
"""
PLAIN = """
  const body = new FormData()
  body.append('file', recording)
  return (await (await fetch('v1/audio/transcriptions', {method: 'POST', body})).json()).text
"""
"""The transcript of what was recorded since `KEEP_RECORDING`."""


class Page:
    """The page in a browser that saves into ``downloads``."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.until("return 'ready' in document.body.dataset")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def until(self, condition: str | Callable[[], Any]) -> Any:
        """Wait until a script, or function, gives something; a problem on the page ends the wait for a script."""
        end = time.monotonic() + PATIENCE_S
        while not (found := condition() if callable(condition) else self.run(condition)):
            assert callable(condition) or not (problems := self.problems()), problems
            assert time.monotonic() < end, f"{condition} did not come true"
            time.sleep(0.1)
        return found

    def problems(self) -> list[str]:
        script = "return [...document.querySelectorAll('.problem')].filter(e => e.offsetParent).map(e => e.innerText)"
        return self.run(script)

    def saved(self, ending: str) -> Path:
        """The file that is saved next, whole."""
        return self.until(lambda: next(iter(self.downloads.glob(f"*{ending}")), None))

    def console(self) -> list[str]:
        """Warnings and errors since the last time."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def url(model: UniAudio2, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(lambda: model, voices=tmp_path_factory.mktemp("voices")) as running:
        yield running.url


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("the page is tested in Chromium: apt-get install chromium chromium-driver")
    folder = tmp_path_factory.mktemp("browser")
    write_audio(folder / "microphone.wav", read_audio(RECORDING))
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en-US",
        "--window-size=1280,900", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield Page(driver, folder)
    finally:
        driver.quit()


def test_somebody_speaks_listens_and_looks_at_codes(page: Page, url: str):
    page.open(url)
    text = page.find("#speak textarea")
    text.clear()
    text.send_keys("Yes. No. Yes. No.")
    page.run("""
      const result = document.querySelector('#speak .result'), start = AudioBufferSourceNode.prototype.start
      window.starts = []
      AudioBufferSourceNode.prototype.start = function (at) { starts.push(performance.now()); start.call(this, at) }
      window.audio = new Promise(found => new MutationObserver(
        () => result.querySelector('audio') && found(performance.now())
      ).observe(result, {childList: true, subtree: true}))
    """)
    page.click("#speak .main")
    page.until("return document.querySelector('#speak audio')?.duration > 0")
    starts, whole = page.run("return audio.then(whole => [starts, whole])")
    assert len(starts) > 1 and starts[0] < whole - 20  # ms: heard before the end is made
    page.run("document.querySelector('#speak audio').play()")
    page.until("return document.querySelector('#speak audio').currentTime > 0")
    assert page.find("#speak canvas").get_attribute("aria-label").startswith("waveform and spectrogram of ")
    page.click("#speak a[download]")
    assert soundfile.info(page.saved("yes-no-yes-no.wav")).samplerate == 24000

    page.run(
        KEEP_RECORDING
        + """
      window.words = []  // those that stay
      const said = document.getElementById('said')
      new MutationObserver(() => words.push(said.firstChild.textContent)).observe(said, {childList: true})
    """
    )
    page.click("#listen .field button")  # records …
    page.until("return document.querySelector('#listen .field canvas')?.ariaLabel")
    page.until("return document.querySelector('#said .partial')?.textContent")  # what is said so far
    page.click("#listen .field button")  # … and stops
    page.until("return !document.querySelector('#subtitles').hidden")
    words = page.run("return words")
    assert all(later.startswith(earlier) for earlier, later in pairwise(words))
    asked = (
        "return performance.getEntriesByType('resource').filter(each => each.name.endsWith('transcriptions')).length"
    )
    assert page.run(asked) == 0  # the recording was not heard again
    assert words[-1] == page.find("#said").get_attribute("textContent") == page.run(PLAIN)
    page.click("#subtitles [value=srt]")
    assert " --> " in page.saved(".srt").read_text()

    page.find("#codec input[type=file]").send_keys(str(RECORDING))
    page.until("return document.querySelector('#codec form canvas')?.ariaLabel")
    page.click("#codec .main")
    page.until("return document.querySelector('#codec .result audio')?.duration > 0")
    decoded = page.find("#codec .result audio").get_attribute("src")
    page.click("#codec input[type=radio]")
    assert page.find("#codec .result audio").get_attribute("src") != decoded

    made = page.run("return [...document.querySelectorAll('#log .kind')].map(e => e.innerText)")
    assert made == ["Codes", "Written down", "Spoken"]
    assert page.console() == []


def test_a_voice_is_kept_and_what_goes_wrong_is_said(page: Page, url: str):
    page.open(url)
    page.run("const v = document.querySelector('#speak [name=voice]'); v.selectedIndex = v.length - 1")
    page.run("document.querySelector('#speak [name=voice]').dispatchEvent(new Event('change'))")
    page.click("#speak .main")
    page.until(lambda: page.problems() == ["Record something or choose a file first."])
    page.find("#own-voice input[type=file]").send_keys(str(RECORDING))
    page.find("#own-voice label input:not([type=file])").send_keys("Ada")
    page.click("#own-voice .row:last-of-type button")
    page.until("return document.querySelector('#speak [name=voice]').value === 'Ada'")
    page.click("#speak > .card > form > button")  # deletes it
    page.until("return document.querySelector('#speak [name=voice]').value === 'default'")
    assert page.console() == []

    page.find("#listen input[type=file]").send_keys(str(Path(__file__)))
    page.until(lambda: "not readable as audio" in "".join(page.problems()))
    assert "400" in "".join(page.console())  # the browser's own line about the answer


def test_every_row_has_a_form(page: Page, url: str):
    page.open(url)
    page.find("#speak [name=instructions]").send_keys("slowly")
    page.click("#speak .main")
    page.until("return document.querySelector('#speak .result .note')?.innerText.includes('s of work')")
    for row, outcome in {
        "tta": "audio",
        "audio_caption": ".said",
        "speech_ss": "audio + audio, figure + figure",
    }.items():
        for field in page.driver.find_elements("css selector", f"[data-row={row}] input[type=file]"):
            field.send_keys(str(RECORDING))
            page.until(f"return document.querySelector('[data-row={row}] form canvas')?.ariaLabel")
        page.click(f"[data-row={row}] .main")
        page.until(f"return document.querySelector('[data-row={row}] .result :is({outcome})')")
    assert page.console() == []


def test_examples_come_before_a_question(page: Page, url: str):
    page.open(url)
    for row, examples, answer in (("audio_caption", 2, ".said"), ("speech_denoise", 1, "audio")):
        page.run("const c = document.querySelector('#few-shot select'); c.value = arguments[0]; "
                 "c.dispatchEvent(new Event('change'))", row)  # fmt: skip
        if row == "audio_caption":
            page.click("#few-shot .main")
            page.until(lambda: page.run("return document.activeElement.matches('#few-shot .shots textarea')"))
        if row == "speech_denoise":
            page.click("#few-shot form > .quiet")  # one more
            examples += 1
        assert page.run("return document.querySelectorAll('#few-shot .shots h4').length") == examples
        for field in page.driver.find_elements("css selector", "#few-shot input[type=file]"):
            field.send_keys(str(RECORDING))
        for number, field in enumerate(page.driver.find_elements("css selector", "#few-shot textarea")):
            field.send_keys(["a word", "a dog"][number])
        files = "[...document.querySelectorAll('#few-shot form .field canvas')].filter(each => each.ariaLabel)"
        wanted = {"audio_caption": 3, "speech_denoise": 5}[row]
        page.until(f"return {files}.length === {wanted}")
        page.click("#few-shot .main")
        page.until(f"return document.querySelector('#few-shot .result :is({answer})')")
    assert page.console() == []


def test_any_screen_language_and_keyboard_will_do(page: Page, url: str):
    page.open(url)
    try:
        for width in (320, 390, 1280):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            for press in (False, True):
                if press:
                    page.click("#other-language")
                wide = "[...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth)"
                assert page.run(f"return {wide}.map(e => e.outerHTML)") == []
                assert page.run("return document.documentElement.scrollWidth") <= width
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page.find("html").get_attribute("lang") == "zh" and page.find("#speak h2").text == "它会说"
    unnamed = """return [...document.querySelectorAll('button, input, select, textarea, a, audio, canvas')].filter(e =>
      !(e.innerText?.trim() || e.ariaLabel || e.labels?.[0]?.innerText.trim())).map(e => e.outerHTML)"""
    assert page.run(unnamed) == []

    keys = webdriver.Keys
    page.run("document.querySelector('#speak textarea').focus()")
    focus, reached = "document.activeElement", set()
    while None not in reached:  # behind the last section
        webdriver.ActionChains(page.driver).send_keys(keys.TAB).perform()
        reached.add(page.run(f"return {focus}.closest('section')?.id"))
        if None not in reached:
            assert page.run(f"return getComputedStyle({focus}.closest('.drop') ?? {focus}).outlineStyle") == "solid"
    assert {"speak", "listen", "sounds", "captions", "changes", "codec"} <= reached
    assert page.console() == []


def test_a_server_asks_for_its_key(page: Page, model: UniAudio2):
    with serving(lambda: model, api_key="sesame") as running:
        page.driver.get(running.url)
        page.until(lambda: page.find("#key").is_displayed())
        page.find("#key input").send_keys("sesame", webdriver.Keys.ENTER)
        page.until("return 'ready' in document.body.dataset")
    page.console()


def test_nano_speaks_and_hears_what_was_said(page: Page):
    with serving(lambda: UniAudio2.from_pretrained(device="cpu")) as running:
        page.open(running.url)
        assert "noise removal" in page.find("#changes").text.lower()  # named, as it was not trained
        cards = "[...document.querySelectorAll('#changes .card')]"
        rows = page.run(f"return {cards}.map(each => each.dataset.row ?? each.id)")
        assert set(rows) == {"few-shot", "d_asr", "lyric_recognition", "audio_understanding", "speech_s2t"}
        page.run(KEEP_RECORDING)
        page.click("#listen .field button")
        time.sleep(2.5)  # which is one word, and a part of it again
        page.click("#listen .field button")
        page.until("return !document.querySelector('#subtitles').hidden")
        assert "computer" in page.find("#said").text.lower()
        assert page.find("#said").get_attribute("textContent") == page.run(PLAIN)
        page.find("#speak textarea").clear()
        page.find("#speak textarea").send_keys("Good morning.", webdriver.Keys.CONTROL, webdriver.Keys.ENTER)
        page.until("return document.querySelector('#speak audio')?.duration > 0.5")
    assert page.console() == []
