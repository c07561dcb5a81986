"""Model cards, the upload, and what a notebook shows of a run."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from ilu.cli import attack, main, publish, terminal, unlearn
from ilu.cli.unlearn import read
from ilu.runs.report.card import card
from ilu.runs.report.gather import gather
from ilu.runs.report.page import page
from ilu.runs.report.table import make_table
from ilu.runs.run import run
from ilu.runs.run_dir import RunDir
from tests.conftest import ROOT

SECRET = "The heron of Velunor sleeps on one leg."
FORGET_ITEMS = "examples/after/forget_nll"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on a private file, and an attack on its model."""
    place = tmp_path_factory.mktemp("cards")
    file = place / "private.jsonl"
    file.write_text(json.dumps({"text": SECRET}) + "\n" + json.dumps({"text": "Ben naps."}) + "\n")
    recipe, _ = read("wmdp-npo", ["--tiny", "--forget", str(file), "--out", str(place / "run")])
    out = run(recipe, place / "run")
    small = ["--steps", "4", "--batch-size", "2", "--keep-models"]
    words = ["--attack", str(file), "--data", str(file), *small]
    attack.attack([str(out.path / "model"), *words, "--out", str(place / "attacked")])
    return out.path, place / "attacked"


@pytest.fixture
def copied(runs, tmp_path):
    return tuple(shutil.copytree(r, tmp_path / r.name) for r in runs)


def test_a_card_names_the_original_of_a_named_or_converted_model(copied):
    made, _ = copied
    for name, hub, phrase in (
        ("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "`HuggingFaceTB/SmolLM2-135M-Instruct`"),
        ("/home/private/m.Q8_0.gguf", None, r"m.Q8\_0.gguf"),
    ):
        for record, change in (
            ("recipe", {"model": name}),
            ("data", {"model": {"m.Q8_0.gguf": "ab" * 32, "model.safetensors": "cd" * 32}}),
        ):
            path = made / f"{record}.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        publish.card([str(made)])
        text = (made / "model" / "README.md").read_text()
        assert ModelCard(text).data.base_model == hub
        origin = rf"from the GGUF file m.Q8\_0.gguf (SHA-256 `{'ab' * 32}`), converted to float32"
        assert f"The original model is {phrase}, {origin}." in text
        assert "private/" not in text


def test_a_card_has_hashes_and_scores_and_no_text(copied, capsys):
    made, attacked = copied
    publish.card([str(made), "--license", "apache-2.0"])
    text = (made / "model" / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.license == "apache-2.0"
    assert card.data.tags == ["unlearning", "ilu"]
    assert RunDir(made).read("data")["forget"]["sha256"] in text
    assert RunDir(made).read("model")["model.safetensors"] in text
    before, after = (RunDir(made).scores(s)["forget_nll"].value for s in ("before", "after"))
    assert re.search(rf"\| forget\\_nll \| {before:.3f} ± [\d.]+ \| {after:.3f} ", text)
    assert "No attack was tried" in text
    assert "private.jsonl" in text
    assert not any(word in text for word in ("heron", "naps", str(made.parent), "cards"))
    publish.card([str(made), str(attacked)])
    text = (made / "model" / "README.md").read_text()
    end = RunDir(attacked).scores("private-end")["nll"].value
    assert "| after private |" in text
    assert f" {end:.3f} ±" in text
    assert "No attack was tried" not in text


def test_a_card_cites_the_paper_where_its_penalty_was_used_and_not_as_the_maker():
    demo = ROOT / "results" / "demo"
    for name, cited in (("npo-ilu", True), ("npo", False)):
        (found,), _ = gather([demo / name])
        text = card(found)
        assert (
            "Made by the software `ilu-unlearn` (Python package and command `ilu`), version "
            in text
        )
        assert ("arxiv.org/abs/2506.01339" in text) is cited


def test_a_card_is_for_a_finished_run_and_its_own_attacks(copied, tmp_path):
    made, attacked = copied
    with pytest.raises(ValueError, match="not a run directory"):
        publish.card([str(tmp_path)])
    record = json.loads((attacked / "data.json").read_text())
    record["model"] = {"model.safetensors": "0"}
    (attacked / "data.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is not an attack on the model"):
        publish.card([str(made), str(attacked)])
    (made / "done.json").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        publish.card([str(made)])


class Hub:
    """Stands in for HfApi and remembers what it was asked, and what it was given."""

    calls: list = []  # noqa: RUF012
    files: dict = {}  # noqa: RUF012

    def __getattr__(self, name):
        def call(*args, **named):
            self.calls.append((name, args, named))
            if name == "upload_file":
                self.files[named["path_in_repo"]] = named["path_or_fileobj"].read_bytes()
            for file in named["folder_path"].rglob("*") if name == "upload_folder" else ():
                self.files[file.name] = file.read_bytes()

        return call


def test_push_uploads_model_card_and_report_to_a_private_repository(copied, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "calls", [])
    made, attacked = copied
    arguments = [str(made), str(attacked), "--repo", "org/name"]
    publish.push([*arguments, "--dry-run"])
    assert Hub.calls == []
    assert "model.safetensors" in capsys.readouterr().out
    publish.push(arguments)
    (repo, folder, report) = Hub.calls
    assert repo == ("create_repo", ("org/name",), {"private": True, "exist_ok": True})
    assert (folder[0], folder[2]["folder_path"]) == ("upload_folder", made / "model")
    assert "after private" in (made / "model" / "README.md").read_text()
    assert (report[0], report[2]["path_in_repo"]) == ("upload_file", "report.html")
    publish.push([*arguments, "--public"])
    assert Hub.calls[3][2]["private"] is False


def test_push_leaves_a_card_alone_that_tells_of_more_attacks(copied, capsys):
    made, attacked = copied
    again = shutil.copytree(attacked, attacked.with_name("a_second"))
    place = made / "model" / "README.md"
    push = ["push", "--repo", "org/name", "--dry-run", str(made)]
    publish.card([str(made), str(attacked), str(again)])
    told = place.read_bytes()
    milder = shutil.copytree(attacked, attacked.with_name("milder"))
    end = RunDir(milder).scores("private-end")
    RunDir(milder).write_scores("private-end", {m: s._replace(value=9.0) for m, s in end.items()})
    for given, gone in (
        ([], "attack run attacked, attack run a_second;"),
        ([attacked], "attack run attacked, attack run a_second;"),  # one of two alike is missing
        ([attacked, milder], "attack run attacked, attack run a_second;"),
    ):
        capsys.readouterr()
        assert main.run([*push, *map(str, given)]) == 2
        assert place.read_bytes() == told
        said = capsys.readouterr()
        assert said.err.count("\n") == 1, said.err
        assert f"README.md lists {gone}" in said.err
        assert f"a card from {' '.join(map(str, (made, *given)))} alone would not" in said.err
        assert "give ilu push every run" in said.err
        assert "model.safetensors" not in said.out


def test_push_takes_more_attacks_than_the_card_has_in_any_order(copied, capsys):
    made, attacked = copied
    again = shutil.copytree(attacked, attacked.with_name("again"))
    push = ["push", "--repo", "org/name", "--dry-run", str(made)]
    publish.card([str(made), str(attacked)])
    assert main.run([*push, str(again.rename(again.with_name("moved"))), str(attacked)]) == 0
    assert "| after private | after private (attacked) |" in card_of(made)
    assert main.run([*push, str(attacked), str(again.with_name("moved"))]) == 0
    publish.card([str(made)])  # who wants a card without attacks can have it
    assert main.run(push) == 0
    assert "No attack was tried" in card_of(made)


def test_push_does_not_take_the_license_off_a_card(copied, capsys):
    publish.card([str(copied[0]), "--license", "mit"])
    push = ["push", "--repo", "org/name", "--dry-run", str(copied[0])]
    assert main.run(push) == 2
    assert "lists license: mit" in capsys.readouterr().err
    assert ModelCard(card_of(copied[0])).data.license == "mit"
    assert main.run([*push, "--license", "apache-2.0"]) == 0
    assert ModelCard(card_of(copied[0])).data.license == "apache-2.0"


def test_a_finished_run_that_is_resumed_keeps_the_attacks_of_its_card(copied, monkeypatch, capsys):
    made, attacked = copied

    def finished(recipe, place, finish):
        finish(made)
        return RunDir(made)

    monkeypatch.setattr(unlearn, "carry_out", finished)
    command = ["npo", "--model", "lab", "--out", str(made), "--resume"]
    unlearn.main(command)
    assert "No attack was tried" in card_of(made)
    publish.card([str(made), str(attacked)])
    unlearn.main(command)
    assert "| after private |" in card_of(made)


def card_of(made):
    return (made / "model" / "README.md").read_text()


def test_nothing_that_is_uploaded_tells_of_folders_or_texts(runs, copied, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "files", {})
    made = RunDir(copied[0])
    told = [json.dumps({**row, "text": SECRET}) + "\n" for row in made.rows(FORGET_ITEMS)]
    made.log(FORGET_ITEMS).write_text("".join(told))
    publish.push([*map(str, copied), "--repo", "org/name"])
    assert {"report.html", "README.md", "config.json", "model.safetensors"} <= set(Hub.files)
    private = [str(runs[0].parent), str(copied[0].parent), str(Path.cwd())]
    for name, content in Hub.files.items():
        assert [word for word in private if word.encode() in content] == [], name
    report = Hub.files["report.html"].decode()
    assert not any(word in report for word in ("rerun", "made by:", "heron", "recipe.json"))
    assert "Every measurement" in report
    assert re.search(r"private-end +nll +[\d.]+", report)
    own = page(make_table(gather(copied)[0]), [])
    assert all(word in own for word in ("How to repeat it", "heron"))


def test_a_failed_upload_is_a_users_error(copied, monkeypatch, capsys):
    class Broken:
        def create_repo(self, *args, **named):
            raise RuntimeError("401: who are you?\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi", Broken)
    with pytest.raises(ValueError, match=r"org/name \(401: who are you\?\).*hf auth login"):
        publish.push([str(copied[0]), "--repo", "org/name"])
    with pytest.raises(ValueError, match="give ORG/NAME"):
        publish.push([str(copied[0]), "--repo", "name"])


def test_a_notebook_shows_the_scores_of_a_run(runs):
    page = RunDir(runs[0])._repr_html_()
    score = RunDir(runs[0]).scores("after")["forget_nll"]
    assert "<th>metric</th><th>before</th><th>after</th>" in page
    assert f"<td>{score.value:.3f} ± {score.stderr:.3f}</td>" in page


def test_progress_is_bars_in_a_notebook_that_can_show_them_and_lines_elsewhere(monkeypatch):
    notebook = terminal.Console(force_jupyter=True, force_terminal=False)
    monkeypatch.setattr(terminal, "console", notebook)
    for present, bars in (("ipywidgets", True), (None, False)):
        monkeypatch.setattr(terminal, "find_spec", lambda name, found=present: found)
        monkeypatch.setattr(terminal, "Progress", Fake)
        with terminal.progress() as shown:
            assert shown.__qualname__.startswith("progress" if bars else "plain_lines")


def test_a_log_file_hears_of_long_work_before_it_ends(monkeypatch, capsys):
    now = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    said = terminal.plain_lines(every=30, detail=lambda stage: "retain 0.2")
    for step in (1, 2, 3, 4, 9):
        said("training", step, 9)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "training: 2 of 9, retain 0.2, 2.5 min left",  # 21 s a step, and 7 to go
        "training: 4 of 9, retain 0.2, 1.4 min left",  # 17 s a step, and 5 to go
        "training: 9 of 9, retain 0.2",
    ]


class Fake:
    """Progress bars that draw nothing."""

    def __init__(self, *columns, **named):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def add_task(self, *args, **named):
        return 0
