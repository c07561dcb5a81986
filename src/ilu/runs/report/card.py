"""The model card of an unlearned model: names, hashes and scores of the run, never its texts."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ilu.evals.score import written
from ilu.runs.report import escape
from ilu.runs.report.formats import models_markdown
from ilu.runs.report.gather import gather
from ilu.runs.report.table import make_table
from ilu.runs.results.run_metrics import Measured
from ilu.runs.run_dir import RunDir
from ilu.system.atomic import json_hash, write_text
from ilu.types import Score

LIMITS = """\
* The scores say what these questions ask. What other questions, other languages, other prompts or
  the weights themselves still give away was not measured.
* Unlearning has no guarantee. Fine-tuning, relearning from a few examples, quantisation and
  pruning may bring knowledge back; the tables above have every attack that was tried.
* This is no proof that the model could have been made without the data (exact unlearning), and no
  protection by itself of anybody's privacy.
"""
UNTRIED = """\
**No attack was tried on this model: how long the forgetting lasts is unknown.** `ilu attack` tries
one, `ilu card RUN ATTACK` adds its scores here.
"""
ATTACK_RUN = re.compile(r"^\* attack run (.+), SHA-256 of its record `(\w+)`$", re.MULTILINE)


def write_card(run: Path, attacked: Sequence[Path] = (), license: str | None = None) -> Path:
    """Write RUN/model/README.md from finished runs; ``attacked`` are runs of ``ilu attack``."""
    write_text(card_file(run), card(attacked_run(run, attacked), license))
    return card_file(run)


def lost(run: Path, attacked: Sequence[Path] = (), license: str | None = None) -> list[str]:
    """Attack runs and license of the card that lies there which a new one would not tell."""
    if not card_file(run).is_file():
        return []
    old = card_file(run).read_text(encoding="utf-8")
    gone = attack_digests(old) - attack_digests(card(attacked_run(run, attacked), license))
    attacks = [name for name, digest in ATTACK_RUN.findall(old) if digest in gone]
    unlicensed = [] if license else re.findall(r"^license: .+", old, re.MULTILINE)
    return [f"attack run {name}".replace("\\", "") for name in attacks] + unlicensed


def attack_digests(told: str) -> Counter[str]:
    """Of the attack runs that a card tells of."""
    return Counter(digest for _, digest in ATTACK_RUN.findall(told))


def card_file(run: Path) -> Path:
    """Where the card of a run lies."""
    return run / "model" / "README.md"


def attacked_run(run: Path, attacked: Sequence[Path]) -> Measured:
    """A finished run with the attacks that other runs carried out on its model."""
    RunDir.finished(run)
    if not (run / "model").is_dir():
        raise ValueError(f"{run} holds no model to write a card for")
    found, broken = gather([run, *attacked])
    if broken:
        raise ValueError(f"{broken[0].place} cannot be used: {broken[0].state}")
    strangers = [m.run.path for m in found if m.run.path != run]
    if strangers:
        raise ValueError(f"{strangers[0]} did not attack the model of {run}, or asked otherwise")
    return found[0]


def card(m: Measured, license: str | None = None) -> str:
    """The whole card, with its head for the hub."""
    from huggingface_hub import ModelCardData

    base = m.recipe["model"]
    head = ModelCardData(
        base_model=base if on_hub(base) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["unlearning", "ilu"],
        license=license,
    )
    return f"---\n{head.to_yaml()}\n---\n\n{body(m)}"


def body(m: Measured) -> str:
    """What a reader is told."""
    version = m.records["environment"]["versions"]["ilu"]
    parts = [
        f"# {escape.markdown(public(m.recipe['model']))}, unlearned with {m.run.name}\n",
        f"Made by [ilu](https://arxiv.org/abs/2506.01339) {version}; seed {m.recipe['seed']}.\n",
        "## What was forgotten\n",
        "\n".join(data(m)) + "\n",
        "## Scores\n",
        "\n".join(scores(m)) + "\n",
        *([] if m.attacks else [UNTRIED]),
        models_markdown(make_table([m])) + "\n",
        *(["\n".join(attack_runs(m)) + "\n"] if m.attackers else []),
        "## How it was made\n",
        "\n".join(settings(m)) + "\n",
        "## Limits\n",
        LIMITS,
        "## Again\n",
        "`ilu rerun RUN --out AGAIN` repeats the run from its `recipe.json`; on the same machine "
        "the weights are the same bytes:\n",
        "\n".join(f"* `{name}` SHA-256 `{digest}`" for name, digest in hashes(m)) + "\n",
    ]
    return "\n".join(parts)


def on_hub(name: str) -> bool:
    """Whether a model's name is one on the hub."""
    return name.count("/") == 1 and not name.startswith(("/", "."))


def public(name: str) -> str:
    """A name that tells nothing of somebody's folders."""
    return Path(name).name if Path(name).is_absolute() else name


def data(m: Measured) -> Iterator[str]:
    """Every data set of the training with its size and the hash of its tokens."""
    yield "| set | source | examples | tokens | SHA-256 of the tokens |"
    yield "|---|---|---|---|---|"
    for name, feed in m.recipe["data"].items():
        found = m.records["data"][name]
        source = escape.markdown(source_name(feed["source"]))
        sizes = f"{found['examples']} | {found['tokens']} | `{found['sha256']}`"
        yield f"| {name} | {source} | {sizes} |"


def source_name(source: Mapping[str, Any]) -> str:
    """Name of a data set, perhaps inside of what was put beside it, with its revision."""
    if isinstance(source.get("source"), Mapping):
        return source_name(source["source"])
    if "name" in source:
        revision = source.get("revision")
        return public(source["name"]) + (f" at {revision[:12]}" if revision else "")
    kept = [str(v) for k, v in source.items() if k != "type" and v is not None]
    return f"ilu.lab: {source['type']} {' '.join(kept)}"


def scores(m: Measured) -> Iterator[str]:
    """Every metric before, after, and at the end of each attack."""
    stages = ["before", "after", *(f"{a}-end" for a in m.attacks)]
    metrics = dict.fromkeys(name for stage in stages for name in m.stages.get(stage, {}))
    titles = ["before", "after", *(f"after {a}" for a in m.attacks)]
    yield f"| metric | {' | '.join(map(escape.markdown, titles))} |"
    yield f"|{'---|' * (len(stages) + 1)}"
    for metric in metrics:
        cells = [value(m.stages.get(stage, {}).get(metric)) for stage in stages]
        yield f"| {escape.markdown(metric)} | {' | '.join(cells)} |"


def value(score: Score | None) -> str:
    """A score with its standard error."""
    return "-" if score is None else written(score.value, score.stderr, score.n)


def attack_runs(m: Measured) -> Iterator[str]:
    """Every run that attacked the model; ``ATTACK_RUN`` reads it."""
    for each in m.attackers:
        name = escape.markdown(each.run.path.name)
        digest = json_hash([each.recipe, each.stages])
        yield f"* attack run {name}, SHA-256 of its record `{digest}`"


def settings(m: Measured) -> Iterator[str]:
    """The objective term by term, and the training."""
    for name, term in m.recipe["objective"].items():
        loss = term["loss"]["type"]
        rule = term["rule"].get("type", term["rule"].get("function", ""))
        how = "" if rule == "Plain" else f", by {rule}"
        yield f"* {name}: {loss} on {term['on']}{how}, weight {term['weight']}"
    optim = m.recipe["optim"]
    yield f"* {optim['steps']} steps, lr {optim['lr']:g}, {optim.get('optimizer', 'adamw')}"


def hashes(m: Measured) -> list[tuple[str, str]]:
    """Files of weights with their hashes."""
    return list(m.records.get("model", {}).items())
