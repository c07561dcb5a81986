"""``ilu attack``: what comes back when someone works on a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ilu.attacks.convergence import Convergence
from ilu.attacks.registry import attack_kinds
from ilu.cli.catalogue import prose
from ilu.cli.flags import Positional, parse
from ilu.cli.terminal import console, number, table
from ilu.cli.unlearn import Place
from ilu.data.multiple_choice import Form
from ilu.recipes.attacks import Attacker, AttackSettings, attacked
from ilu.recipes.probes import probes
from ilu.recipes.suite import suite_kind, suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.attack_stage import check_failures
from ilu.runs.results.display import FORGOTTEN, complement, displayed
from ilu.runs.results.forget_metric import forget_metric
from ilu.runs.run_dir import PROBES, RunDir
from ilu.training.fit import Optim
from ilu.training.optim.by_name import Kind
from ilu.types import STAGES, Group

LR = 1e-5
"""What someone would fine-tune a model of 7B with, by AdamW."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Attack a model and measure what comes back: by fine-tuning, relearning, compression, ...

    Example: ilu attack runs/first/model --task mood --suite lab --lr 1e-3 --out runs/mood

    Example: ilu attack ./unlearned --task gsm8k --suite likelihood --data forget.jsonl --out runs/g

    Example: ilu attack runs/first/model --suite lab --lr 1e-3 --attack lora:sums
    --attack relearn:20 --attack quantise:4 --attack prune:0.3 --ask fewshot --out runs/attacks

    Args:
        model: folder, hub id, GGUF file, smollm2, lab, or lab-never, which never knew what the lab
            forgets.
        revision: branch, tag or commit of a model on the hub.
        task: gsm8k, ag_news, sst2, winogrande, mnli, qqp, a task of the lab (sums, topics, mood,
            owner, entail, same), relearn (the lab's), or a file or hub dataset. All weights are
            fine-tuned, and kept.
        attack: repeat the flag for several, each from the same weights: a task, or an attack by its
            name with an argument, as listed above.
        ask: repeat the flag for several ways of asking that leave the weights alone: fewshot,
            reworded, prefilled, suffix, lens, probe, latent, sampling, or all. The questions are
            the lab's, or those of --suite choice --data FILE, half of which the attacks learn from;
            a report takes them to be about what was forgotten.
        suite: what is measured before, at a quarter, at half and at the end, beside the task; see
            ilu evaluate --help.
        split: of the suites tofu, muse and wmdp.
        data: file or hub dataset for the suites choice, likelihood and verbatim.
        form: of multiple choice: letters, or cloze, which does not show the options.
        columns: names of columns that differ in the data, as wanted=present.
        limit: measure on at most so many items, chosen as by ilu evaluate.
        known: for the suite facts, a model: use only the facts that it knows; see ilu evaluate.
        steps: optimiser steps of the attacker.
        lr: learning rate of the attacker; 1e-5 if left out, and sgd needs one of its own.
        optimizer: of the attacker: adamw; or sgd, which with --clip None moves a weight as far as
            its gradient is large; or another of ilu unlearn.
        clip: largest gradient norm; None does not clip.
        converge: end a task before that many steps once accuracy on 100 of its examples, which are
            held out, changes by less than 1 % at three measurements; needs --every.
        keep: save the weights after every attack, not only after that on a task.
        cache: folder where results are kept by content: weights, attack, metrics, data, code. What
            is there is not done again. With --task or --keep the attacks are carried out in any
            case, because their weights are saved.
    """

    model: Positional[str]
    revision: str | None = None
    task: str | None = None
    attack: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    settings: AttackSettings = AttackSettings()
    suite: str = "likelihood"
    split: str | None = None
    data: str | None = None
    form: Form = "letters"
    columns: tuple[str, ...] = ()
    limit: int | None = 200
    known: str | None = None
    steps: int = 100
    lr: float | None = None
    optimizer: Kind = "adamw"
    clip: float | None = 1.0
    converge: bool = False
    keep: bool = False
    cache: Path | None = None
    place: Annotated[Place, tyro.conf.arg(name="")]


def attack(argv: Sequence[str]) -> None:
    """Carry out ``ilu attack``."""
    wanted: Attack = parse(Attack, "ilu attack", argv, description())
    names = (*([wanted.task] if wanted.task else []), *wanted.attack)
    if not names and not wanted.ask:
        raise ValueError(
            "ilu attack needs --task, --attack or --ask: a task, or one of the kinds "
            f"{', '.join(attack_kinds())}; see ilu attack --help"
        )
    keep = wanted.keep or wanted.task is not None
    recipe = attacked(
        wanted.model, names, attacker(wanted), suites(wanted), asking(wanted),
        keep=keep, revision=wanted.revision,
    )  # fmt: skip
    out = wanted.place.run(recipe, shared=wanted.cache)
    show_stages(out)
    check_failures(out)


def description() -> str:
    """The text above the flags: what the command does, and every kind of attack."""
    text = prose(Attack)
    kinds = [f"* {n}:{k.example} {prose(k.build)}" for n, k in attack_kinds().items()]
    return "\n\n".join([text, "Attacks by name, with an example of the argument:", *kinds])


def attacker(wanted: Attack) -> Attacker:
    """What all attacks have in common."""
    until = Convergence() if wanted.converge else None
    return Attacker(optim=optim(wanted), settings=wanted.settings, until=until)


def optim(wanted: Attack) -> Optim:
    """How the attacker trains."""
    if wanted.optimizer == "sgd" and wanted.lr is None:
        raise ValueError("--optimizer sgd: 1e-5 would hardly move a weight; give it an --lr")
    lr = LR if wanted.lr is None else wanted.lr
    return Optim(lr=lr, steps=wanted.steps, optimizer=wanted.optimizer, clip=wanted.clip)


def suites(wanted: Attack) -> dict[str, Group]:
    """What is measured, if there is anything to measure it on."""
    if wanted.suite == "likelihood" and not wanted.data:
        return {}
    return {wanted.suite: suite_of(wanted.suite, measured(wanted))}


def measured(wanted: Attack) -> SuiteRequest:
    """The data that is measured on."""
    kind = suite_kind(wanted.suite)
    return SuiteRequest(
        data=wanted.data,
        form=wanted.form,
        columns=wanted.columns,
        truncate=wanted.settings.truncate if kind.truncates else None,
        limit=wanted.limit,
        split=wanted.split,
        forget=wanted.settings.forget if kind.roles else None,
        retain=wanted.settings.retain if kind.roles else None,
        known=wanted.known,
    )


def asking(wanted: Attack) -> dict[str, Group]:
    """The ways of asking."""
    if not wanted.ask:
        return {}
    own, labs = ("choice", "elicit"), ("lab", "elicit", "likelihood")
    if wanted.suite not in (own if wanted.data else labs):
        raise ValueError(
            f"--ask does not know the questions of --suite {wanted.suite}: use --suite choice "
            "--data FILE, or --suite lab, whose questions are the lab's"
        )
    return probes(measured(wanted), wanted.ask, wanted.settings.seed)


def show_stages(out: RunDir) -> None:
    """Every metric at every stage, of several attacks at their ends; then the ways of asking.

    ``after`` is left out where nothing was unlearned.
    """
    recipe = out.read("recipe")
    several = len(recipe["attacks"]) > 1
    left_out = (PROBES,) if recipe["objective"] else ("after", PROBES)
    middle = tuple(f"-{stage}" for stage in STAGES if several and stage != "end")
    stages = [s for s in out.stages() if s not in left_out and not s.endswith(middle or ("\0",))]
    stored = {stage: out.scores(stage) for stage in stages}
    forget = forget_metric(recipe, {m for scores in stored.values() for m in scores})
    cells = {stage: displayed(scores, forget) for stage, scores in stored.items()}
    metrics = list(dict.fromkeys(m for found in cells.values() for m in found))
    shown = [[number(v.value if (v := found.get(m)) else None) for m in metrics]
             for found in cells.values()]  # fmt: skip
    if several:
        rows = [(s.removesuffix("-end"), *each) for s, each in zip(stages, shown, strict=True)]
        table(out.name, ("after", *metrics), rows)
    else:
        rows = [(m, *column) for m, *column in zip(metrics, *shown, strict=True)]
        table(out.name, ("metric", *stages), rows)
    if out.has(f"scores/{PROBES}") and (probed := out.scores(PROBES)):
        rows = [(name, number(complement(s).value)) for name, s in probed.items()]
        table("attacks that leave the weights unchanged", ("attack", FORGOTTEN), rows)
    console.print(f"run: {out.path}", markup=False, soft_wrap=True)
