"""What is true of the page's files without a browser."""

from __future__ import annotations

import re
from urllib.request import urlopen

from tests.server.conftest import Running
from uniaudio2.server.app import STATIC

FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(STATIC.iterdir())}


def test_page_is_small_and_needs_nothing_from_elsewhere():
    assert sum(len(text.encode()) for text in FILES.values()) < 64 * 1024
    for name, text in FILES.items():
        assert text.count("\n") <= 450, name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
    page = FILES["index.html"]
    assert "default-src 'none'" in page  # which forbids the following as well
    assert not re.search(r"\s(on\w+|style)=|<style|<script(?! type=\"module\" src=)", page)
    for name in re.findall(r'(?:src|href|from|URL)[=( ]+"(?:\./)?([\w-]+\.\w+)"', "".join(FILES.values())):
        assert name in FILES


def test_every_word_is_there_in_both_languages():
    keys = dict(re.findall(r'^  (\w+): \["(.+)"\],$', FILES["words.js"], re.M))
    for key, both in keys.items():
        english, chinese = both.split('", "')
        assert re.search(r"[\u4e00-\u9fff]", chinese) and not re.search(r"[\u4e00-\u9fff]", english), key
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), key
    used = set(re.findall(r'data-(?:t|label)="(\w+)"', FILES["index.html"]))
    for name, text in FILES.items():
        if name.endswith(".js"):
            used |= set(re.findall(r'\b(?:say\([\w.]+, |span\(|note\(|button\(|Clip\(|words: )"(\w+)"', text))
    assert len(used) > 30 and used <= keys.keys(), used - keys.keys()


def test_files_are_served_as_what_they_are(running: Running):
    for name, kind in {"": "html", "app.js": "javascript", "style.css": "text/css", "icon.svg": "image/svg"}.items():
        with urlopen(f"{running.url}/{name}") as answer:
            assert kind in answer.headers["content-type"]
            assert answer.read().decode() == FILES[name or "index.html"]
