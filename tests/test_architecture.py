"""The rules of the architecture, as tests."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "ilu"
FILES = sorted(SRC.rglob("*.py"))
MODULES = [f for f in FILES if f.name != "__init__.py"]

# A package imports only from itself and from those before it.
ORDER = ("system", "types", "data", "models", "training", "methods", "evals", "attacks", "lab",
         "runs", "recipes", "cli")  # fmt: skip


def imports(path: Path) -> set[str]:
    """What a file imports from this package, inside functions as well."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    whole = {f"ilu.{a.name}" for n in nodes if n.module == "ilu" for a in n.names}
    return {n.module for n in nodes if n.module and n.module.startswith("ilu.")} | whole


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SRC)))
def test_packages_are_imported_in_one_order(path: Path):
    own = path.relative_to(SRC).with_suffix("").parts[0]
    for module in imports(path) - {"ilu.__version__"}:
        assert ORDER.index(module.split(".")[1]) <= ORDER.index(own), f"{path} imports {module}"


def test_the_top_level_has_the_packages_and_the_nouns():
    found = {p.name.removesuffix(".py") for p in SRC.iterdir() if p.name != "__pycache__"}
    assert found == {"__init__", "py.typed", *ORDER}


def test_no_circle_of_imports():
    """Not even inside a package or through a function."""
    known = {".".join(("ilu", *p.relative_to(SRC).with_suffix("").parts)): p for p in MODULES}
    edges: dict[str, set[str]] = {}
    for name, path in known.items():
        nodes = ast.walk(ast.parse(path.read_text()))
        pairs = {
            (n.module, a.name) for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names
        }
        edges[name] = {m for a, b in pairs for m in (a, f"{a}.{b}") if m in known}
    order = graphlib.TopologicalSorter(edges)
    order.prepare()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_no_inheritance_but_protocols(path: Path):
    allowed = {"Protocol", "NamedTuple", "Exception", "torch.autograd.Function"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert {ast.unparse(b) for b in node.bases} <= allowed, node.name


def test_ignore_is_read_in_one_place():
    readers = {p.name for p in MODULES if "IGNORE" in p.read_text()}
    assert readers == {"types.py", "token_math.py", "stream.py"}  # defined, read, written


def test_only_the_command_line_prints_and_only_known_places_seed():
    text = {str(p.relative_to(SRC)): p.read_text() for p in MODULES}
    assert {
        n for n, t in text.items() if re.search(r"\bprint\(", t) and not n.startswith("cli/")
    } == set()
    seeding = {n for n, t in text.items() if "torch.manual_seed(" in t}
    assert seeding == {"runs/run.py", "lab/build.py"}


def test_nothing_unsafe_is_loaded():
    for path in MODULES:
        text = path.read_text()
        assert len(re.findall(r"torch\.load\(", text)) == text.count("weights_only=True")
        assert "pickle" not in text.replace("pickled", "") or path.name == "wagle_pt.py", path.name
        for word in ("trust_remote_code=True", "shell=True", "exec("):
            assert word not in text, f"{path.name}: {word}"


def test_importing_everything_has_no_side_effects():
    code = """
import importlib, logging, os, pkgutil, random, sys, torch
import rich.console  # draws from the global generator when imported; only what we do counts here
def world():
    rng = random.getstate(), torch.random.get_rng_state().tolist(), torch.get_default_dtype()
    return dict(os.environ), logging.getLogger().handlers[:], rng
before = world()
import ilu
for m in pkgutil.walk_packages(ilu.__path__, "ilu."):
    importlib.import_module(m.name)
assert before == world()
assert not torch.cuda.is_initialized()
heavy = {"transformers", "datasets", "lm_eval", "matplotlib", "wandb", "jinja2", "peft", "torchao"}
heavy |= {"accelerate", "trackio", "triton"}
heavy |= {"scipy", "sklearn", "rouge_score", "sacrebleu", "nltk"}
heavy &= set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_library_that_is_imported_is_declared():
    """So that it runs where it was installed alone; Triton, of torch for CUDA, goes by name."""
    project = tomllib.loads((SRC.parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    declared = {re.split(r"[=>]", name)[0].replace("-", "_") for name in wanted}
    known = {"scikit_learn": "sklearn", "pyyaml": "yaml"}
    allowed = {known.get(name, name) for name in declared} | sys.stdlib_module_names
    nodes = [node for path in FILES for node in ast.walk(ast.parse(path.read_text()))]
    used = {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    used |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    assert {name.partition(".")[0] for name in used} - allowed == {"ilu"}


def test_the_library_names_settings_and_no_flags():
    """The command line makes ``--micro-batch`` of `micro_batch`; whole commands are listed."""
    commands = {"recipes/wagle_configs.py", "runs/report/records.py", "runs/report/card.py",
                "runs/report/evaluate_files.py"}  # fmt: skip
    for path in MODULES:
        name = str(path.relative_to(SRC))
        if name.startswith("cli/") or name in commands:
            continue
        lines = [n for n in path.read_text().splitlines() if not COMMAND.search(n)]
        flags = [line for line in lines if re.search(r"(?<![\w-])--[a-z{]", line)]
        assert flags == [], name


COMMAND = re.compile(r"\bilu [a-z]+\b|\bpip install\b|torchrun|ray start|\"--porcelain\"")
"""A line with a whole command, of ours or of another program."""
