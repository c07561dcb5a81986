"""The model card of an unlearned model: names, hashes and scores, never texts of the data."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.data.facts.selection import is_facts
from ilu.evals.score import written
from ilu.models.gguf import ENDING
from ilu.models.named import NAMED
from ilu.runs.report import escape
from ilu.runs.report.formats import models_markdown
from ilu.runs.report.gather import gather
from ilu.runs.report.table import make_table
from ilu.runs.results.outcome import outcome
from ilu.runs.results.run_metrics import Measured
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import json_hash, write_text
from ilu.system.scores import Score

LIMITS = """\
* The scores cover these questions only. Other questions, languages and prompts, or the weights
  themselves, may still reveal the knowledge; this was not measured.
* Unlearning has no guarantee. Fine-tuning, relearning from a few examples, quantisation and
  pruning may recover knowledge; the tables above list every attack that was tried.
* This is not exact unlearning: the model is not proven to equal one trained without the data. It
  does not protect privacy by itself.
"""
UNTRIED = """\
**No attack was tried on this model: whether the knowledge can be recovered is unknown.**
`ilu attack` runs an attack, `ilu card RUN ATTACK` adds its scores to this card.
"""
SOFTWARE = "`ilu-unlearn` (Python package and command `ilu`)"
PENALTY = (
    "The penalty ILU is from [arXiv 2506.01339](https://arxiv.org/abs/2506.01339), whose authors "
    "did not make this model.\n"
)
ATTACK_RUN = re.compile(r"^\* attack run (.+), SHA-256 of its record `(\w+)`$", re.MULTILINE)


def write_card(run: Path, attacked: Sequence[Path] = (), license: str | None = None) -> Path:
    """Write RUN/model/README.md; ``attacked`` are finished runs of ``ilu attack`` on its model."""
    write_text(card_file(run), card(run_with_attacks(run, attacked), license))
    return card_file(run)


def missing_from_new_card(
    run: Path, attacked: Sequence[Path] = (), license: str | None = None
) -> list[str]:
    """Attack runs and license of the existing card that a new card would not have."""
    if not card_file(run).is_file():
        return []
    old = card_file(run).read_text(encoding="utf-8")
    gone = attack_digests(old) - attack_digests(card(run_with_attacks(run, attacked), license))
    attacks = [name for name, digest in ATTACK_RUN.findall(old) if digest in gone]
    unlicensed = [] if license else re.findall(r"^license: .+", old, re.MULTILINE)
    return [f"attack run {name}".replace("\\", "") for name in attacks] + unlicensed


def attack_digests(text: str) -> Counter[str]:
    """Hashes of the attack runs that a card lists."""
    return Counter(digest for _, digest in ATTACK_RUN.findall(text))


def card_file(run: Path) -> Path:
    """Path of the card of a run."""
    return run / "model" / "README.md"


def run_with_attacks(run: Path, attacked: Sequence[Path]) -> Measured:
    """A finished run joined with attack runs on its model."""
    RunDir.finished(run)
    if not (run / "model").is_dir():
        raise ValueError(f"{run} has no model folder: a card describes a model")
    found, broken = gather([run, *attacked])
    if broken:
        raise ValueError(f"{broken[0].place} cannot be used: {broken[0].state}")
    unrelated = [m.run.path for m in found if m.run.path != run]
    if unrelated:
        raise ValueError(
            f"{unrelated[0]} is not an attack on the model of {run}, or uses other questions: give "
            "runs of ilu attack on that model"
        )
    return found[0]


def card(m: Measured, license: str | None = None) -> str:
    """The card with its metadata for the hub."""
    from huggingface_hub import ModelCardData

    head = ModelCardData(
        base_model=hub_id(m.recipe["model"]),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["unlearning", "ilu"],
        license=license,
    )
    return f"---\n{head.to_yaml()}\n---\n\n{body(m)}"


def has_penalty(recipe: Mapping[str, Any]) -> bool:
    """Whether a recorded recipe was trained with the penalty of ILU."""
    return any(term["rule"].get("type") == "Penalty" for term in recipe["objective"].values())


def body(m: Measured) -> str:
    """The text of the card."""
    version = m.records["environment"]["versions"]["ilu"]
    parts = [
        f"# {escape.markdown(without_folder(m.recipe['model']))}, unlearned with {m.run.name}\n",
        f"Made by the software {SOFTWARE}, version {version}; seed {m.recipe['seed']}.\n",
        *([PENALTY] if has_penalty(m.recipe) else []),
        *original_lines(m),
        "## What was forgotten\n",
        "\n".join(data_rows(m)) + "\n",
        "## Scores\n",
        *nothing_forgotten(m),
        "\n".join(score_rows(m)) + "\n",
        *([] if m.attacks else [UNTRIED]),
        models_markdown(make_table([m])) + "\n",
        *(["\n".join(attack_run_lines(m)) + "\n"] if m.attackers else []),
        "## How it was made\n",
        "\n".join(setting_lines(m)) + "\n",
        "## Limits\n",
        LIMITS,
        "## How to repeat it\n",
        "`ilu rerun RUN --out AGAIN` repeats the run from its `recipe.json`; on the same machine "
        "the weights are the same bytes:\n",
        "\n".join(f"* `{name}` SHA-256 `{digest}`" for name, digest in hashes(m)) + "\n",
    ]
    return "\n".join(parts)


def hub_id(name: str) -> str | None:
    """The hub id of the original model, if it has one."""
    if name in NAMED:
        return NAMED[name].hub
    return name if on_hub(name) else None


def original_lines(m: Measured) -> Iterator[str]:
    """What the original was, where its name does not say it: a GGUF file, or a name of ours."""
    name = m.recipe["model"]
    hub = NAMED[name].hub if name in NAMED else None
    known: Mapping[str, str] = m.records["data"].get("model") or {}
    files = [(file, digest) for file, digest in known.items() if file.endswith(ENDING)]
    if hub or files:
        is_hub = f"`{hub}`" if hub else f"{escape.markdown(without_folder(name))}"
        origin = "".join(
            f", from the GGUF file {escape.markdown(file)} (SHA-256 `{digest}`), converted to "
            "float32"
            for file, digest in files
        )
        yield f"The original model is {is_hub}{origin}.\n"


def on_hub(name: str) -> bool:
    """Whether a model name has the form of a hub id."""
    return name.count("/") == 1 and not name.startswith(("/", "."))


def without_folder(name: str) -> str:
    """A path reduced to its last part: folders may reveal private names."""
    return Path(name).name if Path(name).is_absolute() else name


def data_rows(m: Measured) -> Iterator[str]:
    """Table of the training data: source, size, hash of the tokens."""
    yield "| set | source | examples | tokens | SHA-256 of the tokens |"
    yield "|---|---|---|---|---|"
    for name, feed in m.recipe["data"].items():
        found = m.records["data"][name]
        source = escape.markdown(source_name(feed["source"]))
        sizes = f"{found['examples']} | {found['tokens']} | `{found['sha256']}`"
        yield f"| {name} | {source} | {sizes} |"


def source_name(source: Mapping[str, Any]) -> str:
    """Name and revision of a data set; a wrapped source gives the name of the inner one."""
    if isinstance(source.get("source"), Mapping):
        return source_name(source["source"])
    if is_facts(str(source.get("name"))):
        return str(source["name"])  # its slashes are no folders
    if "name" in source:
        revision = source.get("revision")
        return without_folder(source["name"]) + (f" at {revision[:12]}" if revision else "")
    kept = [str(v) for k, v in source.items() if k != "type" and v is not None]
    return f"ilu.lab: {source['type']} {' '.join(kept)}"


def nothing_forgotten(m: Measured) -> Iterator[str]:
    """The warning of a card of a model that forgot nothing."""
    found = outcome(m.recipe, m.stages.get("before", {}), m.stages.get("after", {}))
    if found and found.nothing:
        yield f"**Warning: nothing was forgotten.** In numbers: {found.sentence}.\n"


def score_rows(m: Measured) -> Iterator[str]:
    """Table of every metric before and after unlearning, and after each attack."""
    stages = ["before", "after", *(f"{a}-end" for a in m.attacks)]
    shown = {stage: m.displayed(stage) for stage in stages}
    metrics = dict.fromkeys(name for found in shown.values() for name in found)
    titles = ["before", "after", *(f"after {a}" for a in m.attacks)]
    yield f"| metric | {' | '.join(map(escape.markdown, titles))} |"
    yield f"|{'---|' * (len(stages) + 1)}"
    for metric in metrics:
        cells = [value(shown[stage].get(metric)) for stage in stages]
        yield f"| {escape.markdown(metric)} | {' | '.join(cells)} |"


def value(score: Score | None) -> str:
    """A score with its standard error; a dash for None."""
    return "-" if score is None else written(score.value, score.stderr, score.n)


def attack_run_lines(m: Measured) -> Iterator[str]:
    """One line per attack run, in the form that ``ATTACK_RUN`` matches."""
    for each in m.attackers:
        name = escape.markdown(each.run.path.name)
        digest = json_hash([each.recipe, each.stages])
        yield f"* attack run {name}, SHA-256 of its record `{digest}`"


def setting_lines(m: Measured) -> Iterator[str]:
    """One line per term of the objective, one for the optimiser, one for the saved precision."""
    for name, term in m.recipe["objective"].items():
        loss = term["loss"]["type"]
        rule = term["rule"].get("type", term["rule"].get("function", ""))
        how = "" if rule == "Plain" else f", by {rule}"
        yield f"* {name}: {loss} on {term['on']}{how}, weight {term['weight']}"
    optim = m.recipe["optim"]
    yield f"* {optim['steps']} steps, lr {optim['lr']:g}, {optim.get('optimizer', 'adamw')}"
    if undo := m.recipe.get("undo"):
        yield (
            f"* then distilled into a noised copy of itself (UNDO, arXiv 2506.06278): noise share "
            f"{undo['noise_share']:g}, scale {undo['noise_scale']:g}, at most "
            f"{undo['distil_steps']} steps, lr {undo['distil_lr']:g}"
        )
    if saving := m.records.get("saving"):
        rounded = (
            f": the trained weights were rounded to {saving['dtype']}, a relative change of "
            f"{saving['rounding']:.2g}, before the scores after unlearning were measured"
            if saving["rounding"]
            else ""
        )
        yield f"* saved in {saving['dtype']}{rounded}"


def hashes(m: Measured) -> list[tuple[str, str]]:
    """Weight files with their hashes."""
    return list(m.records.get("model", {}).items())
