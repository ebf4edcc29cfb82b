"""The pages tell the truth: their code runs as written, their commands and links exist, generated pages are current."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pages import RUN, SHOWN, Block, blocks_of, commands_of, files_of
from uniaudio2.checkpoint import DEFAULT_FOLDER

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(page for page in DOCS.rglob("*.md") if page.name != "intro.md")]
USER_PAGES = [page for page in PAGES if page.parent.name != "lab"]
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]


def to_run(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in RUN and block.reason is None]


RUNNING = [page for page in PAGES if to_run(page)]
shipped = pytest.mark.skipif(not (DEFAULT_FOLDER / "config.yaml").is_file(), reason="no shipped model in this tree yet")


@shipped
@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.pages", str(page), str(tmp_path)],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        place = f"{page.name}:{block.line}"
        assert block.language in (*RUN, *SHOWN), f"{place}: blocks of {block.language!r} are neither run nor shown"
        assert block.reason is None or len(block.reason) > 10, f"{place}: say why it is not run"
        if not block.language:
            assert "uniaudio2 " not in block.code, f"{place}: commands belong into a sh block"
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    indented = re.search(r"^\n    (uniaudio2|pip|python|make|pytest) .*$", text, flags=re.MULTILINE)
    assert indented is None, f"{page.name}: {indented[0].strip()!r} belongs into a sh block"  # type: ignore[index]


@pytest.fixture(scope="module")
def command_tree() -> Any:
    from uniaudio2.cli import app

    return app


def test_there_are_commands() -> None:
    assert sum(len(list(commands_of(block))) for page in PAGES for block in blocks_of(page)) > 60


@pytest.mark.parametrize("page", USER_PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_and_their_options_exist(page: Path, command_tree: Any) -> None:
    for block in blocks_of(page):
        for command in commands_of(block) if block.language == "sh" else ():
            for part in re.split(r"\s[|&;]+\s", command):
                words = [word for word in shlex.split(part) if "=" not in word or word.startswith("-")]
                if words and words[0] == "uniaudio2":
                    check_command(words[1:], part, command_tree)


def check_command(words: list[str], command: str, node: Any) -> None:
    while hasattr(node, "commands"):
        assert words and words[0] in node.commands, f"'{command}': no subcommand {words[:1]}"
        node = node.commands[words.pop(0)]
    options = {name for parameter in node.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert used <= options | {"--help"}, f"'{command}': unknown options {used - options}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    import yaml

    config = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(config)["nav"])))
    assert {str(page.relative_to(DOCS)) for page in PAGES[1:]} == listed


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    api = (tmp_path / "site/reference/api.html").read_text(encoding="utf-8")
    assert "transcribe" in api and "AudioCodes" in api


@pytest.mark.parametrize("page", USER_PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_users_are_not_told_of_experiments(page: Path) -> None:
    found = re.search(r"\bE\d{1,2}\b", page.read_text(encoding="utf-8"))
    assert found is None, f"{page.name}: {found[0]} belongs into docs/lab"  # type: ignore[index]


def test_source_and_recipes_are_free_of_experiment_numbers() -> None:
    files = [file for kind in ("py", "yaml", "md") for file in (REPOSITORY / "uniaudio2").rglob(f"*.{kind}")]
    for file in (*files, *(REPOSITORY / "recipes").rglob("*.*")):
        if file.suffix in (".py", ".yaml", ".md", ".sh"):
            found = re.search(r"\bE\d{1,2}\b|docs/experiments", file.read_text(encoding="utf-8"))
            assert found is None, f"{file.relative_to(REPOSITORY)}: {found[0]} belongs into docs/lab"  # type: ignore[index]


def test_files_that_pages_ask_for_can_be_made() -> None:
    from tests.pages import _MAKERS

    for page in PAGES:
        assert set(files_of(page)) <= set(_MAKERS), page.name


def test_a_page_that_lies_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    good = '```sh\necho one two\n```\n\n```text title="output"\none …\n```\n\n```python\nprint(1 + 1)\n```\n'
    for text, fine in ((good, True), (good.replace("one …", "two …"), False), (good.replace("1 + 1", "1 / 0"), False)):
        page.write_text(text)
        work = tmp_path / str(len(list(tmp_path.iterdir())))
        work.mkdir()
        done = subprocess.run([sys.executable, "-m", "tests.pages", str(page), str(work)], cwd=REPOSITORY,
                              capture_output=True)  # fmt: skip
        assert (done.returncode == 0) is fine
        shutil.rmtree(work)


def test_the_reference_of_config_keys_is_current(run_python: Any) -> None:
    code = "from config_reference import PAGE, page; print(PAGE.read_text(encoding='utf-8') == page())"
    done = run_python(f"import sys; sys.path.insert(0, {str(DOCS)!r}); {code}")
    assert done.stdout.strip() == "True", f"run: python docs/config_reference.py\n{done.stderr}"
