"""What comes from outside: code, names, secrets, hostile files."""

import ast
import json
import re
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from ilu.cli import main as cli
from ilu.data import readers
from ilu.data.readers import read_rows
from ilu.evals.metrics import verbatim
from ilu.runs.run import run
from ilu.runs.run_dir import RunDir
from ilu.runs.sweep.worker import Conditions, carry_out
from ilu.system.atomic import inside
from ilu.system.provenance import code_diff, environment
from ilu.system.record import describe
from ilu.system.scores import Score
from ilu.system.secrets import HIDDEN, hidden_arguments, without_secrets
from tests.conftest import ROOT
from tests.data.test_text import write
from tests.evals.test_tasks import mirror  # noqa: F401, a fixture
from tests.runs.test_run import recipe
from tests.test_architecture import MODULES, SRC

# --- Code ------------------------------------------------------------------------------------

FORBIDDEN = {"eval", "exec", "compile", "__import__"}
SHELLS = {"system", "popen", "getoutput", "getstatusoutput"}
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(path):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SRC)))
def test_no_code_is_made_from_text_and_no_shell_is_started(path):
    for call in calls(path):
        name, settings = call.func, {k.arg: k.value for k in call.keywords}
        if isinstance(name, ast.Name):
            assert name.id not in FORBIDDEN, name.id
        if isinstance(name, ast.Attribute) and ast.unparse(name.value) in ("os", "subprocess"):
            assert name.attr not in SHELLS, name.attr
        for unsafe in ("trust_remote_code", "shell"):
            value = settings.get(unsafe, ast.Constant(False))
            assert isinstance(value, ast.Constant), ast.unparse(call)
            assert value.value is False, ast.unparse(call)
        if ast.unparse(name) == "torch.load":
            assert ast.unparse(settings["weights_only"]) == "True"
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {n.partition(".")[0] for n in names} & UNPICKLING


def test_only_a_file_that_is_named_is_run():
    running = {p.name for p in MODULES if "exec_module" in p.read_text()}
    assert running == {"sweep_flags.py"}
    assert "FILE.py is code" in subprocess.run(
        [sys.executable, "-c", "from ilu.cli.main import run; run(['sweep', '--help'])"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


# --- Names -----------------------------------------------------------------------------------

OUTSIDE = ("../x", "/etc/x", "a/../../x", "x\0y", "link/x")


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_lead_nowhere_outside_of_a_run(name, tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    run_dir = RunDir(root)
    with pytest.raises(ValueError, match="leads out of"):
        inside(root, name)
    with pytest.raises(ValueError, match="leads out of"):
        run_dir.write(name, {})
    with pytest.raises(ValueError, match="leads out of"):
        run_dir.read(name)
    with pytest.raises(ValueError, match="leads out of"):
        run_dir.write_scores("after", {"../../../x": Score(0, 0, 1, (0.0,))})
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "x\0", "", ".hidden", "-rf"])
def test_a_record_cannot_name_attacks_metrics_or_data_that_are_paths(name, folder, tmp_path):
    record = describe(recipe(folder, "npo"))
    record["metrics"] = {name: record["metrics"]["forget_nll"]}
    assert "cannot name" in (carry_out(record, tmp_path / "run", Conditions()) or "")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"failed.json"}


# --- Secrets ---------------------------------------------------------------------------------

TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7"
WANDB = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", WANDB)
    words = ["ilu", "unlearn", "--api-key", "by-hand-1", f"--x={WANDB}", "https://me:pw12@host/a",
             "--token=by-hand-2", TOKEN]  # fmt: skip
    monkeypatch.setattr("sys.argv", words)
    diff = f'+login("{TOKEN}")\n+url = https://me:pw12@host/repository.git\n+key = "{WANDB}"\n'
    git = {"diff": diff, "rev-parse": "abc", "status": ""}
    monkeypatch.setattr("ilu.system.provenance.git", lambda *words: git[words[0]])
    return (TOKEN, WANDB, "pw12", "by-hand-1", "by-hand-2")


def test_planted_secrets_are_in_no_file_of_a_run(planted, folder, tmp_path):
    out = run(recipe(folder, "npo"), tmp_path / "run").path
    written = "".join(p.read_text(errors="replace") for p in out.rglob("*") if p.is_file())
    assert HIDDEN in (out / "environment.json").read_text()
    assert HIDDEN in (out / "code.diff").read_text()
    for secret in planted:
        assert secret not in written


def test_a_recipe_that_holds_a_secret_is_refused(planted, folder, tmp_path):
    wanted = recipe(folder, "npo")
    bad = describe(wanted) | {"name": f"npo-{TOKEN}"}
    said = carry_out(bad, tmp_path / "run", Conditions()) or ""
    assert "would contain a password" in said
    assert TOKEN not in said
    assert TOKEN not in "".join(p.read_text() for p in tmp_path.rglob("*.json"))


def test_errors_and_what_is_recorded_hide_secrets(planted, capsys):
    assert cli.run(["evaluate", f"https://me:pw12@host/{TOKEN}", "--suite", "lab"]) == 2
    said = capsys.readouterr()
    assert HIDDEN in said.err
    for secret in planted:
        assert secret not in said.err + said.out + json.dumps(environment()) + code_diff()


def test_ordinary_words_are_left_alone(monkeypatch):
    monkeypatch.setenv("SHORT_TOKEN", "lab")
    for text in ("--model lab", "a@b", "https://host/x?y=1", "deadbeef" * 5, "hf_model", "sk-ip"):
        assert without_secrets(text) == text
    assert hidden_arguments(["--retain", "x", "--seed", "1"]) == ["--retain", "x", "--seed", "1"]


# --- Hostile data ----------------------------------------------------------------------------


def test_a_giant_row_and_a_deep_one_meet_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LARGEST_ROW", 1000)
    file = tmp_path / "d.jsonl"
    file.write_text('{"text": "short"}\n{"text": "' + "x" * 2000 + '"}\n')
    with pytest.raises(ValueError, match="line 2 is longer than 1000"):
        read_rows(file)
    monkeypatch.undo()
    file.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="line 1 cannot be read"):
        read_rows(file)
    file.write_text('{"text": ' + "9" * 5000 + "}")
    with pytest.raises(ValueError, match="line 1 cannot be read"):
        read_rows(file)
    giant = tmp_path / "d.csv"
    giant.write_text('text\n"' + "x" * 200_000)
    assert len(read_rows(giant)[0]["text"]) == 200_000
    monkeypatch.setattr(readers, "LARGEST_ROW", 100_000)
    with pytest.raises(ValueError, match=r"CSV|longer"):
        read_rows(giant)


def test_a_parquet_file_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "bomb.parquet"
    text = pyarrow.array(["x" * 10_000] * 4000).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), file, compression="zstd")
    assert file.stat().st_size < 40_000_000 / 1000
    monkeypatch.setattr(readers, "LARGEST_FILE", 10_000_000)
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_rows(file)


def test_an_ordinary_parquet_file_keeps_all_its_rows(tmp_path):
    rows = [{"text": f"row {i}"} for i in range(1000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    assert read_rows(tmp_path / "d.parquet") == rows


# --- Hazardous text --------------------------------------------------------------------------


def test_no_question_and_no_generation_is_printed_or_kept(mirror, tmp_path, monkeypatch, capfd):  # noqa: F811
    """Invented rows in the columns of WMDP; nothing else has their words, not even code.diff."""
    words = [
        f"{begin}wick" for begin in ("Grumble", "Snorfle", "Tazzle", "Quibber", "Plonk", "Wib")
    ]
    rows = [{"question": f"Who baked {words[0]} {i}?", "choices": list(words[1:5]), "answer": i % 4}
            for i in range(4)]  # fmt: skip
    out = tmp_path / "out"
    for domain in ("bio", "cyber", "chem"):
        mirror("cais/wmdp", f"wmdp-{domain}", "test", rows)
    texts = write(tmp_path / "texts.jsonl", [{"prompt": f"{words[0]} had", "text": words[1]}] * 4)
    generated: list[str] = []
    monkeypatch.setattr(verbatim, "continuations", lambda lm, prompts, *rest, **more: (
        generated.append(words[5]) or [words[5]] * len(prompts)))  # fmt: skip
    for line in (
        f"evaluate lab --suite wmdp --out {out}/wmdp.json",
        f"evaluate lab --suite verbatim --data {texts} --out {out}/texts.json",
        f"attack lab --keep --attack {texts} --suite wmdp --steps 1 --batch-size 2 --out {out}/run "
        f"--cache {out}/cache",
        f"attack lab --keep --attack {texts} --suite verbatim --data {texts} --steps 1 "
        f"--batch-size 2 --out {out}/own",
        f"report {out}/run {out}/own --out {out}/report.html",
    ):
        assert cli.run(line.split()) == 0, capfd.readouterr().err
    assert generated
    said = capfd.readouterr()
    written = [p for p in out.rglob("*") if p.is_file()]
    assert len(written) > 40
    kept = {str(p.relative_to(out)): p.read_text(errors="replace") for p in written}
    for place, text in {"out": said.out, "err": said.err, **kept}.items():
        assert not [word for word in words if word in text], place


# --- What is installed -----------------------------------------------------------------------


def test_every_pinned_version_has_hashes_in_the_lock():
    """``make lock``: as pip install --require-hashes reads it, from whatever index it asks."""
    text = (ROOT / "requirements.lock").read_text()
    locked = re.findall(r"^([\w.-]+)==(\S+)(?: ;[^\n]*)? \\\n(?: +--hash=sha256:[0-9a-f]{64}\b)+",
                        text, re.MULTILINE)  # fmt: skip
    assert len(locked) == len(re.findall(r"^\w", text, re.MULTILINE))
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pins += re.findall(r"^TORCH \?= (torch)==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(pins) > 100
    assert {(normal(n), v) for n, v in pins} <= {(normal(n), v) for n, v in locked}
    assert "://" not in text


def normal(name):
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
