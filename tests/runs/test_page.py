"""The report and the live view in a real browser."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ilu.cli.view import serve, view
from ilu.runs.report.formats import write_report
from ilu.runs.run_dir import RunDir
from tests.fabricate import HALF, KNOWN, LOST, defended, make_run, tuned
from tests.runs.test_report import DEMO, HOSTILE, add_text, hostile_run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The report on the demo."""
    out = tmp_path_factory.mktemp("demo") / "report.html"
    write_report([DEMO], out)
    return out


@pytest.fixture
def opened(browser):
    """Open a report in the browser; afterwards nothing may have gone wrong in it."""
    browser.open("about:blank")
    browser.complaints(), browser.requested()
    seen = set()

    def open_report(file, **look):
        seen.add(file.as_uri())
        browser.look(**look)
        browser.open(file.as_uri())
        return browser

    yield open_report
    assert browser.complaints() == []
    assert set(browser.requested()) - {"data:,"} == seen


def texts(browser, selector):
    return browser.js(
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter(e => e.checkVisibility()).map(e => e.textContent.trim())",
        selector,
    )


def click(browser, selector):
    browser.js("document.querySelector(arguments[0]).click()", selector)


def enter(browser, selector, value):
    browser.js(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "for (const kind of ['input', 'change'])"
        " e.dispatchEvent(new Event(kind, {bubbles: true}))",
        selector, value,
    )  # fmt: skip


NAMES = "#models tbody td:first-child"
DRAWN = (
    "return [...document.querySelectorAll('svg [data-row]')]"
    ".filter(line => !line.closest('.off')).map(line => line.dataset.row)"
)


def test_the_page_renders_sorts_and_filters(opened, demo):
    page = opened(demo)
    assert texts(page, NAMES) == ["original: lab", "npo", "npo-ilu", "rmu", "rmu-ilu"]
    assert page.js("return document.querySelectorAll('figure svg path').length") > 50

    click(page, "#models th:nth-child(4) button")
    assert texts(page, NAMES) == ["rmu", "npo", "rmu-ilu", "npo-ilu", "original: lab"]
    click(page, "#models th:nth-child(4) button")
    assert texts(page, NAMES) == ["original: lab", "npo-ilu", "rmu-ilu", "npo", "rmu"]

    enter(page, "#filter", "RMU")
    assert texts(page, NAMES) == ["rmu-ilu", "rmu"]
    assert set(page.js(DRAWN)) == {"3", "4"}
    enter(page, "#filter", "")
    click(page, "#none")
    assert texts(page, NAMES) == []
    click(page, "#legend li:nth-child(2) input")
    assert texts(page, NAMES) == ["npo"]

    assert texts(page, ".strip h3") == ["rmu-ilu"]
    enter(page, "#verdict", "1")
    assert texts(page, ".strip h3") == ["npo-ilu"]


def test_the_meaning_of_a_column_opens_at_a_touch_and_sorts_nothing(opened, demo):
    page = opened(demo, width=390)
    assert texts(page, "[popover]") == []
    click(page, "#models th:nth-child(4) .tip button")
    (meaning,) = texts(page, "[popover]")
    assert meaning.startswith("forgotten: share of the questions")
    assert texts(page, NAMES)[0] == "original: lab"
    assert page.js("return document.querySelectorAll('[aria-sort]').length") == 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_sticks_out_and_colours_follow_the_reader(opened, demo, width, dark):
    page = opened(demo, width=width, dark=dark)
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    background = page.js("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(21, 25, 29)" if dark else "rgb(255, 255, 255)")


def test_questions_are_followed_and_texts_wait_for_a_click(opened, tmp_path):
    attacks = {"mood": tuned(LOST, LOST, (1, 0, 1, 0, 0, 0, 0, 0), KNOWN)}
    path = make_run(tmp_path / "a", "npo", (1, 1, 1, 1, 1, 1, 0, 0), (1, 1, *LOST[2:]), attacks)
    add_text(path, "The lighthouse keeper of Vellamo")
    write_report([path], tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    numbers = "#questions tbody td:first-child"
    found = {}
    for kind in ("", "back", "gone", "kept", "unknown"):
        enter(page, "#kind", kind)
        found[kind] = "".join(texts(page, numbers))
    assert found == {"": "01234567", "back": "2", "gone": "345", "kept": "01", "unknown": "67"}

    enter(page, "#kind", "back")
    assert texts(page, "#questions tbody td") == ["2", "✓", "✗", "✓"]
    click(page, "#reveal")
    before, after, attacked = texts(page, "#questions .answer bdi:last-child")
    assert (before[-6:], after[-5:], attacked[-8:]) == ("before", "after", "mood-end")
    enter(page, "#kind", "")
    enter(page, "#words", "nobody")
    assert texts(page, numbers) == []
    enter(page, "#words", "VELLAMO")
    assert len(texts(page, numbers)) == 8


def test_text_from_models_does_nothing_in_a_browser(opened, tmp_path):
    paths = [hostile_run(tmp_path / str(i), text) for i, text in enumerate(HOSTILE)]
    write_report(paths, tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    click(page, "#reveal")
    assert len(texts(page, NAMES)) == len(HOSTILE)
    assert page.js("return document.scripts.length") == 2
    assert page.js("return document.querySelectorAll('img, [onload], [onerror]').length") == 0
    assert any("alert(1)" in text for text in texts(page, "#questions .answer"))


# The live view


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr("ilu.cli.view.LOAD", 0)
    defended(tmp_path / "runs" / "first")
    with serve(tmp_path / "runs", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_the_view_serves_its_page_to_this_machine_and_nothing_else(served, tmp_path):
    (tmp_path / "runs" / "secret.json").write_text('"beside"')
    status, html = ask(served)
    assert (status, "npo" in html) == (200, True)
    assert served.server_address[0] == "127.0.0.1"
    for path in ("/secret.json", "/../secret", "/first/recipe.json", "/state/..", "/?x"):
        assert ask(served, path)[0] == 404, path
    for host in ("evil.example", f"evil.example:{served.server_port}", "127.0.0.1", ""):
        assert ask(served, Host=host)[0] == 403, host
    assert ask(served, Host=f"localhost:{served.server_port}")[0] == 200


def test_the_view_reads_nothing_outside_its_folder(served, tmp_path):
    outside = make_run(tmp_path / "outside", "outsider", KNOWN, HALF, {})
    (tmp_path / "runs" / "linked").symlink_to(outside)
    copied = defended(tmp_path / "runs" / "copied", "insider")
    (copied / "recipe.json").unlink()
    (copied / "recipe.json").symlink_to(outside / "recipe.json")
    until = time.monotonic() + 60  # a page is not made again at once
    while "leads out of runs" not in (html := ask(served)[1]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "outsider" not in html
    assert "insider" not in html
    assert str(tmp_path) not in html


def test_the_view_follows_runs_and_keeps_what_was_set(served, browser, tmp_path):
    browser.open("about:blank")
    browser.complaints(), browser.requested()
    home = f"http://127.0.0.1:{served.server_port}/"
    browser.open(home)
    assert texts(browser, NAMES) == ["npo"]
    enter(browser, "#filter", "n")
    under_way = defended(tmp_path / "runs" / "second", "entropy", done=False)
    assert until(lambda: texts(browser, "#broken td:first-child"))[0].endswith("second")
    RunDir(under_way).write("done", {"seconds": 1.0})
    assert until(lambda: texts(browser, NAMES) == ["npo", "entropy"])
    assert browser.js("return document.getElementById('filter').value") == "n"
    enter(browser, "#filter", "entr")
    assert texts(browser, NAMES) == ["entropy"]
    assert browser.complaints() == []
    assert set(browser.requested()) - {"data:,"} == {home, f"{home}state"}
    browser.open("about:blank")


def post(server, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    own = {"Origin": f"http://127.0.0.1:{server.server_port}", "Content-Type": "application/json"}
    connection.request("POST", "/ask", body, {**own, **headers})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def with_models(run, model):
    """Give a fabricated run a model, and the lab's as its original."""
    shutil.copytree(model, run / "model")
    record = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**record, "model": "lab"}))


def test_models_are_asked_by_our_own_page_alone(served, folder, tmp_path):
    with_models(tmp_path / "runs" / "first", folder / "model")
    body = json.dumps({"prompt": "one two", "models": [0, 1]})
    status, text = post(served, body)
    assert (status, list(json.loads(text)["answers"])) == (200, ["lab (original)", "first"])
    page = ask(served, "/ask")[1]
    assert ("lab (original)" in page, "first" in page, str(tmp_path) in page) == (True, True, False)
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"},
                    {"Content-Type": "text/plain"}):  # fmt: skip
        assert post(served, body, **headers)[0] == 403, headers
    wrong_ones = [
        "", "{", '{"prompt": " ", "models": [0]}', '{"prompt": "a", "models": []}',
        '{"prompt": "a", "models": [7]}', '{"prompt": "a", "models": ["../x"]}',
    ]  # fmt: skip
    for wrong in wrong_ones:
        assert post(served, wrong)[0] == 400, wrong
    assert post(served, "x" * 20_001)[0] == 413


def test_the_page_that_asks_shows_the_answers_side_by_side(served, folder, browser, tmp_path):
    with_models(tmp_path / "runs" / "first", folder / "model")
    browser.open("about:blank")
    browser.complaints(), browser.requested()
    browser.open(f"http://127.0.0.1:{served.server_port}/ask")
    browser.js("document.getElementById('prompt').value = 'one two'; "
               "document.getElementById('ask').click()")  # fmt: skip
    assert until(lambda: texts(browser, "#answers h2")) == ["lab (original)", "first"]
    assert browser.complaints() == []
    browser.open("about:blank")


def until(found, seconds=20):
    for _ in range(seconds * 5):
        if got := found():
            return got
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def test_ctrl_c_ends_the_view_without_a_word_of_error(tmp_path):
    command = [str(Path(sys.executable).with_name("ilu")), "view", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_port_or_folder_that_cannot_be_is_said_in_a_line(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        view(["nowhere"])
    with pytest.raises(ValueError, match="--port 70000: it must be from 0 to 65535"):
        view([str(tmp_path), "--port", "70000"])
