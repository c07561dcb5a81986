"""The flags of ``ilu attack``."""

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from inspect import cleandoc
from pathlib import Path

from ilu.cli.arguments.unlearn import Place
from ilu.cli.flags import parse, subset
from ilu.cli.help import Positional, flags_of
from ilu.recipes.settings import AttackSettings
from ilu.recipes.suite_request import SuiteRequest
from ilu.system.declared import declared
from ilu.training.optim.settings import Kind

MEASURED = ("data", "split", "form", "data_columns", "limit", "known")
"""Settings of a suite that are flags here; ``AttackSettings`` has ``truncate`` and the like."""

BASIC = (
    "model", "attack", "probe", "suite", "data", "limit", "forget", "retain", "original", "steps",
    "lr", "batch_size", "seed", "keep_models", "out", "device", "resume",
)  # fmt: skip
"""The settings that --help shows; --help-all shows all."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Attack a model and measure what comes back: by fine-tuning, relearning, compression, ...

    Example: ilu attack runs/first/model --attack mood --suite lab --lr 1e-3 --out runs/mood

    Example: ilu attack ./unlearned --attack gsm8k --suite likelihood --data f.jsonl --out runs/g

    Example: ilu attack runs/first/model --suite lab --lr 1e-3 --attack lora:sums
    --attack relearn:20 --attack quantise:4 --attack prune:0.3 --probe fewshot --out runs/attacks

    Example: ilu attack runs/first/model --suite lab --attack relearn:20 --search lr=1e-4:1e-2:log
    --search steps=20:200 --trials 12 --out runs/searched

    Args:
        model: folder, hub id, GGUF file, smollm2, lab, or lab-never, which never knew what the lab
            forgets.
        revision: branch, tag or commit of a model on the hub.
        attack: a task, on which all weights are fine-tuned (gsm8k, ag_news, sst2, winogrande, mnli,
            qqp, the lab's sums, topics, mood, owner, entail, same and relearn, a file or hub
            dataset), or an attack by its name with an argument, as listed above; repeat the flag
            for several, each from the same weights.
        probe: one of the prompting attacks listed above, which leave the weights unchanged, or all;
            repeat the flag for several. The questions are the lab's, or those of --suite
            choice --data FILE, half of which the attacks learn from; a report takes them to be
            about what was forgotten.
        suite: what is measured before, at a quarter, at half and at the end, besides the task; see
            ilu evaluate --help.
        steps: optimiser steps of the attacker.
        lr: learning rate of the attacker; 1e-5 if left out, and sgd needs one of its own.
        optimizer: of the attacker: adamw; or sgd, which with --clip None moves a weight as far as
            its gradient is large; or another of ilu unlearn.
        clip: largest gradient norm; None does not clip.
        converge: end a task before that many steps once accuracy on 100 of its examples, which are
            held out, changes by less than 1 % at three measurements; needs --eval-every.
        keep_models: save the weights after every attack, in OUT/attacks/NAME/model.
        search: KEY=LOW:HIGH or KEY=LOW:HIGH:log of lr, steps, batch_size or lora_rank; repeat the
            flag for several. Finds the values at which each attack brings back most while the model
            stays usable, with Optuna (needs optuna); every trial is a run in OUT/runs.
        trials: trials of the search for each attack, the same number for all.
        usable: share of the utility of MODEL that an attacked model must keep in the search.
        cache: folder where results are kept by content: weights, attack, metrics, data, code. What
            is there is not done again. With --keep-models the attacks are carried out in any case,
            because their weights are saved.
    """

    model: Positional[str]
    revision: str | None = None
    attack: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    settings: AttackSettings = AttackSettings()
    suite: str = "likelihood"
    steps: int = 100
    lr: float | None = None
    optimizer: Kind = "adamw"
    clip: float | None = 1.0
    converge: bool = False
    keep_models: bool = False
    search: tuple[str, ...] = ()
    trials: int = 12
    usable: float = 0.9
    cache: Path | None = None
    place: Place


def read(argv: Sequence[str]) -> tuple[Attack, SuiteRequest]:
    """Parse the flags: those of the attacks, and those of what is measured."""
    found = parse(flag_type(), "ilu attack", argv, description(), basic=BASIC, head={})
    return found.attack, SuiteRequest(**vars(found.measured))


def flag_type() -> type:
    """All flags: those of ``Attack``, and the settings ``MEASURED`` of a suite."""
    measured = subset(SuiteRequest, MEASURED, limit=200)
    fields = [("attack", Attack), ("measured", measured)]
    return make_dataclass("Flags", fields, frozen=True, kw_only=True)


def settings(lead: Sequence[str]) -> set[str]:
    """What the file of --config may set."""
    kind = flag_type()
    return {flag.name for flag in flags_of(kind, kind, "")}


def description() -> str:
    """The text above the flags: what the command does, and every kind of attack."""
    text = (Attack.__doc__ or "").split("Args:")[0]
    kinds = declared("ilu.attacks", "ATTACKS").values()
    lines = [f"* {k.name}:{k.keywords['example']} {k.doc}" for k in kinds]
    probes = declared("ilu.attacks.prompting", "PROBES").values()
    return "\n\n".join(
        [cleandoc(text), "Attacks by name, with an example of the argument:", *lines,
         "Prompting attacks, which leave the weights unchanged:",
         *(f"* {each.name}: {each.doc}" for each in probes)]
    )  # fmt: skip
