"""The documentation: all code runs, every link leads somewhere, no page asks a network."""

import os
import re
import shlex
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

import ilu.cli.flags as parsing
from ilu.cli import sweep, sweep_flags, unlearn
from ilu.cli.main import dispatch, run
from ilu.recipes import lab
from ilu.recipes.registry import methods

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ORDER = ("index", "quickstart", "concepts", "recipes", "data", "method", "attacks", "threats",
         "masks", "publishing", "metrics", "migration", "api", "loops", "results")  # fmt: skip
BLOCK = re.compile(r"(<!-- parsed only -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


class Block(NamedTuple):
    page: str
    language: str
    code: str
    runs: bool


def blocks(page: str) -> list[Block]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return [Block(page, lang, code, not mark) for mark, lang, code in BLOCK.findall(text)]


def lines(block: Block) -> list[list[str]]:
    """Commands of a shell block as words."""
    joined = block.code.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """One folder in which all pages are tried in the order of reading, on few questions."""
    before, whole = Path.cwd(), lab.metrics
    os.chdir(tmp_path_factory.mktemp("docs"))
    lab.metrics = lambda questions=None: whole(12)
    yield
    lab.metrics = whole
    os.chdir(before)


@pytest.mark.parametrize("page", ORDER)
def test_blocks_of_code_run(page, workplace, capfd):
    names = {"__name__": "docs"}  # blocks of a page go on from each other
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.code, f"{page}.md", "exec"), names)
        elif block.runs:
            for words in lines(block):
                assert words[0] == "ilu"
                assert run(words[1:]) == 0, (words, capfd.readouterr())


class Parsed(Exception):
    """A command's flags are right."""


@pytest.mark.parametrize("page", [*ORDER, "../README"])
def test_blocks_that_need_more_than_a_laptop_have_right_flags(page, monkeypatch):
    real = parsing.read_words

    def only_parse(*args):
        real(*args)
        raise Parsed

    for block in blocks(page):
        for words in lines(block) if block.language == "bash" and not block.runs else ():
            if words[:2] == ["accelerate", "launch"]:
                words = words[words.index("ilu") :]
            if words[0] != "ilu":
                assert words[:2] == ["pip", "install"]
            elif words[1] == "unlearn":
                assert unlearn.read(words[2], words[3:])[0].name == words[2]
            else:
                monkeypatch.setattr(parsing, "read_words", only_parse)
                with pytest.raises(Parsed):
                    dispatch(words[1], words[2:])
                monkeypatch.setattr(parsing, "read_words", real)


def test_sweeps_on_slurm_have_right_flags():
    text = (ROOT / "scripts" / "slurm.md").read_text(encoding="utf-8")
    found = [Block("slurm", lang, code, False) for _, lang, code in BLOCK.findall(text)]
    every = [words for block in found for words in lines(block) if words[:2] == ["ilu", "sweep"]]
    begun = [words for words in every if words[2] not in sweep.SUBCOMMANDS]
    read = [sweep_flags.read(words[2], words[3:]).flags for words in begun]
    assert [each.where.executor for each in read] == ["slurm", "ray"]
    assert all(each.where.resources.gpus == 1 for each in read)


def test_a_wrong_flag_in_a_block_would_be_found(monkeypatch):
    with pytest.raises(ValueError, match="'--suit'"):
        dispatch("evaluate", ["lab", "--suit", "lab"])


def test_every_page_is_read_and_every_block_has_a_language_that_is_tried():
    pages = {p.stem for p in DOCS.glob("*.md")} - {"methods"}  # perhaps written by a build
    untried = {p for p in pages - {*ORDER} if blocks(p)}
    assert untried <= {"performance", "reliability"}
    assert {b.language for p in ORDER for b in blocks(p)} == {"bash", "python"}


def test_the_example_of_a_method_is_short():
    block, _ = blocks("method")
    assert len(block.code.splitlines()) < 40


def test_the_faq_names_tests_that_exist():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "faq.md").read_text()))
    known = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), flags=re.MULTILINE)
    }
    assert len(named) > 25
    assert named - known == set()


class Page(HTMLParser):
    """Links of a page, what they may point at in it, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.loads = [], {"", "__top"}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[k] for k in ("id", "name") if found.get(k)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("img", "script") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon"):
            self.loads.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; strict, so a warning is an error."""
    pytest.importorskip("mkdocs", reason="the documentation needs requirements-docs.txt")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    done = subprocess.run(
        [*command, str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_no_link_of_the_site_is_dead(site):
    pages = {p: Page(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}
    assert len(pages) > 14
    dead = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in (*page.links, *page.loads):
            if link.startswith(("http:", "https:", "data:", "mailto:")):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.exists() or (target in pages and anchor not in pages[target].ids):
                dead.append((path.name, link))
    assert dead == []


def test_the_home_page_is_that_of_the_docs_and_not_the_readme(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "I want to" in text
    assert "What is where" not in text


def test_the_search_works_in_pages_from_the_disk(site, browser):
    browser.look(width=1280)
    browser.open((site / "index.html").as_uri())
    assert browser.js("return !!document.querySelector('.md-search__input')")
    browser.js("""
        const box = document.querySelector('.md-search__input');
        box.focus(); box.value = 'relearning'; box.dispatchEvent(new Event('keyup'));""")
    found = "return document.querySelectorAll('.md-search-result__item').length"
    deadline = time.monotonic() + 60
    while browser.js(found) == 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert browser.js(found) > 2


def test_the_page_of_methods_is_written_with_the_site(site):
    text = (site / "methods.html").read_text(encoding="utf-8")
    assert [name for name in methods() if f'id="{name}"' not in text] == []


def test_every_entry_of_the_log_is_in_its_index_and_links_to_it(site):
    entries = {
        (page.name, title)
        for page in sorted((DOCS / "log").glob("20*.md"))
        for title in re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    index = (DOCS / "log" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| \[(.+)\]\((\S+)#\S+\) \| .+ \|$", index, re.MULTILINE)
    assert len(rows) > 40
    assert {(page, f"{date} {title}") for date, title, page in rows} == entries


def test_equations_are_mathml_and_nothing_is_loaded_from_elsewhere(site):
    text = (site / "concepts.html").read_text(encoding="utf-8")
    assert text.count("<math") > 8
    assert "arithmatex" not in text
    assert "\\nabla" not in text
    for path in site.rglob("*.html"):
        assert [x for x in Page(path.read_text("utf-8")).loads if x.startswith("http")] == []


def test_pages_ask_no_network_and_do_not_overflow(site, browser):
    browser.open("about:blank")
    browser.requested(), browser.complaints()
    for dark in (False, True):
        for width in (1280, 390):
            browser.look(width=width, dark=dark)
            for name in ("index", "concepts", "faq", "results", "loops", "api"):
                browser.open((site / f"{name}.html").as_uri())
                overflow = "return document.documentElement.scrollWidth - innerWidth"
                assert browser.js(overflow) <= 0, (name, width)
    asked = {url for url in browser.requested() if not url.startswith(("file:", "data:", "blob:"))}
    assert asked <= {"about:blank"}
    colour = "return getComputedStyle(document.body).backgroundColor"
    dark = browser.js(colour)
    browser.look(dark=False)
    browser.open((site / "index.html").as_uri())
    assert browser.js(colour) != dark
