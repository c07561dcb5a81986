"""``ilu ask``: answers in the terminal, as JSON, and what is refused before a model is loaded."""

import json

import pytest
import torch

from ilu.cli import ask
from ilu.cli.main import run as command
from ilu.cli.terminal import console
from ilu.evals.answers import Answering, Pieces
from ilu.evals.metrics.generation import generate
from ilu.models.load import load_model
from ilu.models.save import save_model

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
PROMPT = "The cure for the"


@pytest.fixture(scope="module")
def lab():
    return load_model("lab")


def test_answers_are_greedy_in_the_order_of_the_prompts(lab):
    prompts = [PROMPT, "Who", "A long prompt about nothing in particular:"]
    assert Answering(max_new_tokens=6)(lab, prompts) == generate(lab, prompts, max_new_tokens=6)


def test_the_prompt_stands_in_the_chat_template_where_there_is_one(lab, monkeypatch):
    plain = Answering().head(lab.tokenizer, "Hi")
    monkeypatch.setattr(lab.tokenizer, "chat_template", TEMPLATE)
    wrapped = Answering().head(lab.tokenizer, "Hi")
    assert lab.tokenizer.decode(wrapped) == "[user] Hi[assistant]"  # a reply begins with its space
    assert Answering(chat=False).head(lab.tokenizer, "Hi") == plain


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_streamed_answer_is_the_whole_answer_in_pieces(lab, temperature):
    how, pieces = Answering(max_new_tokens=12, temperature=temperature, seed=3), list[str]()
    how.stream(lab, PROMPT, pieces.append)
    assert len(pieces) > 3
    assert "".join(pieces) == how(lab, [PROMPT])[0]
    assert how(lab, [PROMPT]) == how(lab, [PROMPT])


def test_a_character_of_several_tokens_is_shown_when_it_is_complete(lab):
    ids, shown = lab.tokenizer("Ω!", add_special_tokens=False).input_ids, list[str]()
    pieces = Pieces(lab.tokenizer, shown.append)
    pieces.put(torch.tensor([[5, 6]]))  # the prompt
    for token in ids:
        pieces.put(torch.tensor([token]))
    pieces.end()
    assert len(ids) == 3
    assert shown == ["Ω", "!"]


@pytest.fixture
def said(capsys, monkeypatch):
    """Standard output of a command that ends well, in a terminal of 80 columns."""
    monkeypatch.setattr(console, "width", 80)

    def run(*words):
        assert command(["ask", *words, "--max-new-tokens", "6"]) == 0
        out = capsys.readouterr()
        assert out.err == ""
        return out.out

    return run


def test_one_model_is_streamed(said, lab):
    assert said("lab", PROMPT) == generate(lab, [PROMPT], max_new_tokens=6)[0] + "\n"


def test_two_models_stand_side_by_side_and_four_below_each_other(said, lab, tmp_path):
    shown = said("lab", "lab-never", PROMPT)
    lines = shown.splitlines()
    assert lines[0] == PROMPT
    assert lines[2].split() == ["┃", "lab", "┃", "lab-never", "┃"]
    assert max(map(len, lines)) <= 80
    assert " ".join(generate(lab, [PROMPT], max_new_tokens=6)[0].split()[:2]) in shown
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        save_model(lab, folder)
    below = said("lab", "lab-never", *map(str, folders), PROMPT).splitlines()
    assert [n for n in below if n.strip() in ("lab", "lab-never", "one", "two")] == [
        "lab", "lab-never", "one", "two",
    ]  # fmt: skip


def test_a_file_of_prompts_as_json(said, lab, tmp_path):
    text, rows = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    text.write_text(f"{PROMPT}\n\nWho\n")
    rows.write_text(f'{{"question": "{PROMPT}"}}\n{{"question": "Who"}}\n')
    found = json.loads(said("lab", "lab-never", "--file", str(text), "--json"))
    assert [each["prompt"] for each in found] == [PROMPT, "Who"]
    expected = [a.strip() for a in generate(lab, [PROMPT, "Who"], max_new_tokens=6)]
    assert [each["answers"]["lab"] for each in found] == expected
    assert set(found[0]["answers"]) == {"lab", "lab-never"}
    assert json.loads(said("lab", "lab-never", "--file", str(rows), "--json")) == found
    assert said("lab", "--file", str(rows)).splitlines()[0] == PROMPT


def test_a_run_is_its_model(said, lab, tmp_path):
    save_model(lab, tmp_path / "run/model")
    (tmp_path / "run/recipe.json").write_text("{}")
    assert said(str(tmp_path / "run"), PROMPT) == said("lab", PROMPT)


def test_an_attack_without_a_model_of_its_own_is_the_model_that_it_began_with(said, tmp_path):
    (tmp_path / "attacked").mkdir()
    (tmp_path / "attacked/recipe.json").write_text('{"model": "lab", "objective": {}}')
    assert said(str(tmp_path / "attacked"), PROMPT) == said("lab", PROMPT)


def test_what_a_model_writes_cannot_control_the_terminal():
    assert ask.printable("a\x1b[2J\x07b\tc\nd\x9be") == "a[2Jb\tc\nde"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], 'ilu ask needs models and a prompt: ilu ask MODEL "the prompt"'),
        (["lab"], 'ilu ask needs models and a prompt: ilu ask MODEL "the prompt"'),
        (["lab", "smollm2"], "'smollm2' is a model: give the prompt after the models"),
        (["lab", " "], "a prompt is empty"),
        (["lab", "nowhere", "Hi there"], "model 'nowhere' is no folder"),
        (["lab", "gone.gguf", "Hi there"], "there is no file gone.gguf"),
        (["lab", "Hi", "--max-new-tokens", "0"], "--max-new-tokens 0: give at least 1"),
        (["lab", "Hi", "--batch-size", "0"], "--batch-size 0: give at least 1"),
        (["lab", "Hi", "--temperature", "-1"], "--temperature -1.0: give 0 or more"),
        (["lab", "--file", "gone.txt"], "gone.txt does not exist or is not a file"),
        (["lab", "--file", "empty.txt"], "empty.txt has no prompt: write one in each line"),
        (["lab", "--file", "rows.jsonl"], "rows.jsonl needs a column prompt or question"),
        (["lab", "Hi there", "--file", "rows.jsonl"], "give a prompt or --file, not both"),
        (["begun", "Hi"], "the run begun has no model folder: it is unfinished"),
    ],
)
def test_errors_come_before_a_model_is_loaded(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ask, "load_model", lambda *_, **more: pytest.fail("a model was loaded"))
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "prompt2": "b"}\n')
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/recipe.json").write_text('{"model": "lab", "objective": {"forget": {}}}')
    if words[-1:] == ["rows.jsonl"] and "Hi there" in words:
        (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    assert command(["ask", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
