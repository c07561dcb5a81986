"""The flags of ``ilu unlearn`` that do not depend on the recipe."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from ilu.cli.flags import HELP as HELP_FLAGS
from ilu.cli.flags import key_of
from ilu.cli.help import flags_of
from ilu.cli.reading import check_complete, no_flag
from ilu.recipes.names import (
    declared_endings,
    declared_methods,
    declared_stages,
    explained_endings,
    parse_name,
)
from ilu.recipes.settings import Common, Distilled, Invariance
from ilu.system.optional import Tracker
from ilu.training.optim.settings import Optim

HELP = """\
usage: ilu unlearn RECIPE --model M --forget F --retain R [--environment E]
                   --out DIR [flags]

Unlearn F from the model M, keep R, and with -ilu stay robust to fine-tuning on E.
OUT/model is an ordinary Hugging Face folder.

  ilu unlearn npo-ilu --model lab --out runs/first
  ilu unlearn npo --model ./my-model --forget secrets.jsonl \\
      --retain other.jsonl --out runs/mine
  ilu unlearn rmu-ilu --model org/model --forget f.csv --retain r.csv \\
      --environment openai/gsm8k:main --layer 7 --out runs/rmu

  ilu unlearn npo-ilu --model lab --out runs/first --print-config > run.yaml
  ilu unlearn --config run.yaml --steps 50 --out runs/second

Recipes: {recipes}{endings}.

Flags of a recipe: ilu unlearn RECIPE --help; with --model lab the lab has its own defaults
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run goes and how it is kept; nothing here changes a number.

    Args:
        out: folder of the run; in it are OUT/model and, of attacks, OUT/attacks/NAME/model.
        device: cpu, cuda, cuda:1, mps.
        save_every: steps between checkpoints of the unlearning and of every attack that trains; a
            signal saves one in any case.
        resume: continue an interrupted run.
        track: follow the run live in this tracker (needs the tracker itself);
            trackio works without a network.
        sample_texts: keep the texts of a few forget questions and of the model's answers in the
            run, for the report; cards and uploads never have them.
        require_forgotten: end with exit code 3 if a smaller share than this was forgotten: of the
            accuracy above guessing on the forget questions, or the relative rise of the loss.
        shard: keep weights, gradients and optimiser state in parts on several processes (FSDP2).
    """

    out: Path
    device: str = "cpu"
    save_every: int | None = None
    resume: bool = False
    track: Tracker | None = None
    sample_texts: bool = True
    require_forgotten: float | None = None
    shard: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """To see whether a command works.

    Args:
        tiny: try it in miniature, without a network: a random model of two blocks of the same
            architecture, invented data with the same columns where no file is given, at most three
            steps. Model and data are kept in OUT-tiny.
    """

    tiny: bool = False


def overview() -> str:
    """The help of the command without a recipe."""
    return HELP.format(recipes=", ".join(declared_methods()), endings=explained_endings())


def check(argv: Sequence[str]) -> None:
    """Raise ValueError for an unknown recipe or flag."""
    check_recipe("ilu unlearn", argv, [*field_names(Place, Trial), *FILES], (Common, Place))


FILES = ("config", "print_config")
"""Flags of the commands that read their settings from a file, and write them as one."""


def settings(lead: Sequence[str]) -> set[str]:
    """What the file of --config may set."""
    return recipe_settings("ilu unlearn", lead, field_names(Place, Trial))


def check_recipe(
    command: str, argv: Sequence[str], own: Iterable[str], needed: Sequence[type] = ()
) -> None:
    """Raise ValueError for an unknown recipe, for a flag that it does not have, or a missing one.

    ``own``: the settings of the command besides those of the recipe. ``needed``: dataclasses whose
    settings without a default must be given.
    """
    settings = recipe_settings(command, argv, own)
    prog = f"{command} {parse_name(argv[0])}"
    check_flags(prog, argv[1:], settings)
    if not HELP_FLAGS & {*argv}:
        own_model = declared_methods()[parse_name(argv[0]).method].presets
        required = [f for kind in needed for f in flags_of(kind, kind, "") if f.required]
        required = [f for f in required if f.name != "model" or not own_model]
        given = {key_of(word) for word in argv if word.startswith("--")}
        check_complete([flag for flag in required if flag.name not in given], prog)


def recipe_settings(command: str, argv: Sequence[str], own: Iterable[str]) -> set[str]:
    """The settings of the recipe that is the first word, and ``own``; ValueError if it is none."""
    if not argv or argv[0].startswith("-"):
        raise ValueError(
            f"{command} needs a recipe first, such as {command} npo --model lab; "
            "ilu methods lists them"
        )
    name = parse_name(argv[0])
    settings = {*own, *field_names(Common, Optim, Invariance)}
    settings |= {*declared_methods()[name.method].settings}
    if name.robust:
        settings |= {*declared_endings()[name.robust].settings}
    if name.stage:
        settings |= {*declared_stages()[name.stage].settings, *field_names(Distilled)}
    return settings


def check_flags(command: str, argv: Sequence[str], settings: Iterable[str]) -> None:
    """Raise ValueError for a word that begins with -- and is the flag of no setting."""
    known = {f"--{name.replace('_', '-')}" for name in settings} | {
        "--help",
        "--help-all",
    }
    for word in argv:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag.replace("--no-", "--", 1) not in known:
            raise no_flag(command, flag, sorted(known))


def field_names(*kinds: type) -> list[str]:
    """The settings of dataclasses."""
    return [field.name for kind in kinds for field in dataclasses.fields(kind)]


GROUPS = {
    "Data": (
        "model", "revision", "forget", "retain", "environment", "forget_columns", "retain_columns",
        "environment_columns", "truncate", "held_out", "limit",
    ),
    "Training": (
        "steps", "passes", "lr", "batch_size", "environment_batch_size", "warmup", "schedule",
        "seed", "eval_every", "keep",
        "published", "weight_decay", "betas", "clip", "optimizer", "precision", "average_from",
        "average_every",
    ),
    "Penalty": tuple(field_names(Invariance)),
    "Method": (),
    "Memory": ("micro_batch", "recompute", "pack", "offload_reference", "shard"),
    "Adapters and choice of weights": (
        "lora_rank", "lora_alpha", "quantise_base", "mask", "parameters", "perturbed",
    ),
    "Output": (
        "out", "device", "resume", "save_every", "track", "sample_texts", "require_forgotten",
        "tiny", "save_dtype",
    ),
}  # fmt: skip
"""Title -> the settings of ``ilu unlearn`` in the help; those of the method are not named here."""
BASIC = (
    "model", "forget", "retain", "steps", "lr", "batch_size", "seed", "lora_rank", "mask", "out",
    "device", "resume",
)  # fmt: skip
"""The settings that --help shows; --help-all shows all."""
