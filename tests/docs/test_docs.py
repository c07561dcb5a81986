"""What the documents say is true: numbers come from records, examples run."""

import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ilu.cli.main import run
from ilu.cli.methods_page import page
from ilu.runs.report.formats import to_markdown
from ilu.runs.report.gather import gather
from ilu.runs.report.table import make_table
from ilu.system.optional import EXTRAS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
DEMO = ROOT / "results" / "demo"
PACKAGES = sorted(p.parent.name for p in (ROOT / "src" / "ilu").glob("*/__init__.py"))


def test_the_table_is_what_the_records_say():
    names = json.loads((DEMO / "summary.json").read_text())["models"]
    runs, broken = gather([DEMO / name for name in names])
    assert to_markdown(make_table(runs), broken) in RESULTS


def test_the_records_are_of_committed_code():
    for record in DEMO.glob("*/environment.json"):
        assert json.loads(record.read_text())["dirty"] is False


def test_the_methods_page_is_what_the_code_says(tmp_path):
    assert run(["methods", "--out", str(tmp_path / "methods.md")]) == 0
    assert (tmp_path / "methods.md").read_text(encoding="utf-8") == page()
    assert "/docs/methods.md" in (ROOT / ".gitignore").read_text().splitlines()


NOT_OURS = re.compile(r"\bilu\[[a-z]|pip install (-\S+ )*'?ilu\b(?!-unlearn)")
"""What would install another project: the name is taken on the public index."""


def test_nobody_is_told_to_install_the_other_project_of_our_name():
    folders = ("src", "tests", "studies", "benchmarks", "scripts", "docs")
    files = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    told = [p for p in files if p.suffix in (".py", ".md", ".toml", ".txt", ".sh", ".ipynb")]
    texts = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in told}
    assert "src/ilu/system/optional.py" in texts
    assert [name for name, text in texts.items() if NOT_OURS.search(text)] == []


def test_what_is_said_to_be_installed_for_an_extra_is_what_the_project_declares():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {k: tuple(v) for k, v in declared["optional-dependencies"].items() if k != "docs"}
    assert extras == EXTRAS


def test_the_python_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "forget_accuracy" in done.stdout


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


OURS = ("src/ilu", "tests", "benchmarks", "studies", "scripts", "docs", *PACKAGES)
"""Where a path in a page begins if it names a file of the repository."""
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "methods.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_modules_named_in_pages_exist(page):
    missing = [name for name in names_in(page.read_text(encoding="utf-8")) if not exists(name)]
    assert missing == []


def names_in(text):
    """Paths of the repository and dotted names of the package."""
    paths = re.findall(r"(?<![\w./-])((?:[\w-]+/)+[\w-]*(?:\.py)?)(?![\w.]*[\w/=])", text)
    dotted = re.findall(r"(?<![\w/])(?:ilu|studies)(?:\.[A-Za-z_]+)+", text)
    # Folders below runs/ are where the commands of a page write; NAME stands for any name.
    paths = [p for p in paths if not p.startswith("runs/") or p.endswith(".py")]
    paths = [p for p in paths if not re.search(r"\b[A-Z]+\b", p)]
    dotted = [name for name in dotted if not name.endswith(".py")]
    return [p for p in paths if p.startswith(tuple(f"{o}/" for o in OURS))] + dotted


def exists(name):
    """A path from the root or the package, or a name that can be imported."""
    if "/" in name:
        return any((home / name).exists() for home in (ROOT, ROOT / "src" / "ilu"))
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_old_names_are_noticed():
    text = "`losses/tokens.py`, `methods/forget/old.py`, `tests/test_x.py` and ilu.forget.npo"
    named = names_in(text)
    assert named == ["methods/forget/old.py", "tests/test_x.py", "ilu.forget.npo"]
    assert not any(exists(name) for name in named)
    assert exists("methods/forget/npo.py")
    assert exists("ilu.runs.run.run")


def test_files_named_in_the_tree_exist():
    """A line of the tree begins with a place; what else it names lies in that place."""
    lines = README.split("## What is where")[1].split("```")[1].strip().splitlines()
    assert len(lines) > 13
    for line in lines:
        place = ROOT / ("src/ilu" if line.startswith("  ") else "") / line.split()[0]
        inside = re.findall(r"\b([\w]+\.py|[a-z]+/)", line.strip().partition(" ")[2])
        homes = (place, place / "robust", ROOT, ROOT / "docs")
        missing = [name for name in inside if not any((home / name).exists() for home in homes)]
        assert place.exists(), place
        assert missing == [], line


def test_what_lasts_is_what_the_record_says():
    lines = (ROOT / "results" / "ilu_vs_baselines.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and "| setting |" not in line]
    record = json.loads((ROOT / "results" / "ilu_vs_baselines.json").read_text())
    known = {shown(line, row) for line, row in zip(rows, record["rows"], strict=True)}
    shown_there = RESULTS.split("## What makes it last")[1].splitlines()
    table = [line for line in shown_there if line.startswith(("| rmu", "| original"))]
    assert len(table) >= 10
    assert set(table) <= known


IN_README = {
    "original": "original",
    "RMU": "rmu 450 steps",
    "RMU + ILU": "rmu-ilu gradient, layerwise",
    "RMU + SAM": "rmu-sam all weights, 450 steps",
    "RMU + TAR": "rmu-tar all weights",
}


def test_the_result_in_the_readme_is_what_the_record_says():
    record = json.loads((ROOT / "results" / "ilu_vs_baselines.json").read_text())
    rows = {row["method"]: row for row in record["rows"] if "group" in row}
    for label, method in IN_README.items():
        means = [
            rows[method][key] for key in ("forgotten_mean", "utility_mean", "still_forgotten_mean")
        ]
        assert f"| {label} | {' | '.join(f'{x:.3f}' for x in means)} |" in README


def test_what_resists_relearning_is_what_the_record_says():
    table = RESULTS.split("## What resists relearning")[1]
    record = json.loads((ROOT / "results" / "relearning.json").read_text())
    keys = ("forgotten", "utility", "still_forgotten")
    known = {
        tuple(f"{x:.3f}" for x in (*map(row.get, keys), *attacked(row), row["cost_share"]))
        for row in (record["ceiling"], *record["rows"])
        if row.get("rtt")
    }
    rows = [line for line in table.splitlines() if line.startswith(("| RMU", "| NPO", "| lab"))]
    assert len(rows) == 8
    assert {tuple(cell.strip() for cell in row.split("|")[2:-1]) for row in rows} <= known


def test_the_table_of_the_real_model_is_that_of_the_record():
    table = RESULTS.split("## A real model")[1].split("## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 5
    for row in rows:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        scores = ROOT / "results" / "demo-real" / name / "scores"

        def mean(stage, metric, scores=scores):
            return json.loads((scores / f"{stage}.json").read_text())[metric]["value"]

        forgotten = [
            1 - mean("after", "forget_accuracy"), 1 - mean("gsm8k-end", "forget_accuracy"),
            1 - mean("sst2-end", "forget_accuracy"),
            1 - mean("relearn-half-end", "others_accuracy"),
        ]  # fmt: skip
        kept = [mean("after", "utility"), mean("after", "utility_generated")]
        assert cells[:6] == [f"{x:.3f}" for x in (*forgotten, *kept)]
        assert cells[6] == f"{mean('after', 'wikitext_perplexity'):.1f}"
        assert cells[7] == f"{16 * mean('after', 'degenerate'):.0f} of 16"


def attacked(row):
    """The means over seeds that have intervals."""
    return [row[key][0] for key in ("relearned", "searched", "rtt", "worst_usable")]


OLD_WORDS = re.compile(
    r"\b(FQ|RA|FA)\b|(?<!TOFU's )(forget quality|robust accuracy)", re.IGNORECASE
)
"""Forget quality is a p-value in TOFU; the others are abbreviations of ILU's paper."""


def test_the_page_on_threats_has_the_numbers_of_the_study():
    """What is forgotten after each attack of the study, with two digits."""
    record = json.loads((ROOT / "results" / "relearning.json").read_text(encoding="utf-8"))
    found = {(r["method"], r["noise"], r["steps"]): r for r in record["rows"]}
    alone = [found[name, None, None] for name in ("rmu", "npo", "rmu-ilu")]
    undone = [found[name, 0.6, 530] for name in ("rmu", "npo")]
    page = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): [c.strip(" *") for c in cells[2:]] for line in page.splitlines()
            if len(cells := line.split("|")) > 8}  # fmt: skip
    for said, key in {
        "ask questions": "forgotten",
        "fine-tune all weights on six unrelated tasks (mean)": "still_forgotten",
        "fine-tune all weights on the task `next`": "after next",
        "train on documents about 20 of 120 agents": "relearned",
        "the same with the strongest of four settings": "searched",
        "train on documents about half of them (RTT)": "rtt",
        "the worst of all these trainings that leaves .9 of the utility": "worst_usable",
        "**utility** (original 1.00)": "utility",
        "**price**, share of pretraining": "cost_share",
    }.items():
        cells = rows[said]
        assert cells[:3] == [two_digits(row[key]) for row in alone], said
        assert cells[4] == ", ".join(two_digits(row[key]) for row in undone), said
        if key != "cost_share":
            assert cells[5] == two_digits(record["ceiling"][key]), said


def two_digits(value) -> str:
    """A share, or the mean of one with its interval."""
    share = f"{value[0] if isinstance(value, list) else value:.2f}"
    return share.removeprefix("0")


def test_tables_and_pages_name_measures_as_the_glossary_does():
    """Some pages explain the older words; forget quality is TOFU's p-value."""
    tables = [*(ROOT / "results").rglob("*.md"), *(ROOT / "studies").glob("*/README.md")]
    explain = ("glossary.md", "faq.md", "migration.md", "metrics.md")
    pages = [page for page in PAGES if page.name not in explain]
    lines = [(p.name, line) for p in (*tables, *pages) for line in p.read_text().splitlines()]
    assert [found for found in lines if OLD_WORDS.search(found[1])] == []


def test_the_readme_is_short():
    assert len(README.split()) <= 900


def shown(line, row):
    """A row of the README from the same row of the study's table and of its record."""
    way, setting = (cell.strip() for cell in line.split("|")[1:3])
    assert way == row["method"]
    means = [
        f"{row[key]:.3f}" for key in ("forgotten_mean", "utility_mean", "still_forgotten_mean")
    ]
    gain = row.get("gain_over", {}).get("rmu 450 steps", {})
    keys = (("mean", "ci_low"), ("other_tasks_mean", "other_tasks_ci_low"))
    over = [f"{gain[m]:+.3f} ({gain[c]:+.3f})" if gain.get(m) is not None else "" for m, c in keys]
    ends = f"{row['task_accuracy_mean']:.3f}", f"{row['unlearn_seconds']:.0f}"
    cells = [way, setting, *means, *over, *ends]
    return f"| {' | '.join(cells)} |"
