"""The flags of ``ilu mask`` and of its subcommands."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ilu.cli.flags import parse
from ilu.cli.help import Positional
from ilu.methods.masks.choices import Per, Reduction, Rest, Unit
from ilu.recipes.mask_names import SUMMARIES
from ilu.system.errors import unknown

HELP = """\
usage: ilu mask SCORE --model M --forget F --retain R --fraction X --out FILE
       ilu mask show FILE
       ilu mask compare A B
       ilu mask convert OLD.pt --model M --out FILE

A mask says which weights may move. SCORE is one of:

{scores}

  ilu mask wagle --model lab --fraction 0.1 --out mask.safetensors
  ilu mask wagle --model lab --fraction 0.1 --scores scores \\
      --out small.safetensors
  ilu mask wagle --model lab --fraction 0.3 --scores scores \\
      --out large.safetensors
  ilu mask sure --model ./my-model --forget f.jsonl --fraction 0.1 \\
      --out sure.safetensors
  ilu unlearn npo --model lab --mask mask.safetensors --out runs/masked
  ilu unlearn npo --model lab --mask wagle:0.1 --out runs/the-same

Flags of a score: ilu mask SCORE --help
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show:
    """Show how a mask was made and where it is dense.

    Example: ilu mask show mask.safetensors

    Args:
        mask: the file.
    """

    mask: Positional[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Show how far two masks of a model agree, compared with chance.

    Example: ilu mask compare wagle.safetensors random.safetensors

    Args:
        first: one mask.
        second: the other.
    """

    first: Positional[Path]
    second: Positional[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a mask of the original WAGLE code.

    Example: ilu mask convert mask/tofu_0.95.pt --model ./tofu --out tofu-0.95.safetensors

    Args:
        old: the .pt file; nothing but tensors is read from it.
        model: folder or hub id of the model that it was made for.
        out: the mask.
        rest: whether weights that the mask does not name stay still, or are free as they
            were in the original.
    """

    old: Positional[Path]
    model: str
    out: Path
    rest: Rest = "still"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """What a mask is made from.

    Args:
        model: folder, hub id, GGUF file, smollm2, or lab, which has its own data.
        forget: what is to be forgotten: a file or hub dataset ORG/NAME:CONFIG:SPLIT; repeat the
            flag for several topics.
        retain: what is to be kept, for scores that require it.
        forget_columns: names of columns that differ, as wanted=present.
        retain_columns: the same for the retain set.
        truncate: cut longer examples to this many tokens.
        fraction: share of the scored weights that may move; repeat the flag for several masks from
            the same scores, which then have it in their names.
        out: the mask; with several fractions NAME.safetensors becomes NAME-0.1.safetensors and so
            on.
        per: rank the weights of the whole model, or of each layer, tensor or row; or rank whole
            heads, neurons or modules. Left out, as is usual for the score.
        refusal: take the gradient of refusing the forget set, for methods that learn to refuse.
        reduction: mean of all examples, or sum over batches of their token means, as in WAGLE's
            code, whose mu is for that.
        parameters: regular expression: only weights whose name matches are scored.
        batch_size: examples at a time.
        limit: use the first so many examples of each set.
        precision: of the model; sums are float32 in any case.
        scores: put the scores into this folder instead of memory, for large models, and keep them;
            the same command with another --fraction or --per selects from these scores.
        device: cpu, cuda, mps.
    """

    model: str
    out: Path
    forget: tuple[str, ...] = ()
    retain: str | None = None
    forget_columns: tuple[str, ...] = ()
    retain_columns: tuple[str, ...] = ()
    truncate: int | None = None
    fraction: tuple[float, ...] = ()
    per: Per | Unit | None = None
    refusal: bool = False
    reduction: Reduction = "mean"
    parameters: str = ""
    batch_size: int = 4
    limit: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    scores: Path | None = None
    device: str = "cpu"


SUBCOMMANDS = {"show": Show, "compare": Compare, "convert": Convert}


def overview() -> str:
    """The help of the command without a score."""
    scores = "\n".join(f"  {name:13} {summary}" for name, summary in SUMMARIES.items())
    return HELP.format(scores=scores)


def check(argv: Sequence[str]) -> None:
    """Raise ValueError for an unknown score; parse the flags of the subcommands."""
    if not argv:
        raise ValueError(f"ilu mask needs a score first: one of {', '.join(SUMMARIES)}")
    if argv[0] in SUBCOMMANDS:
        parse(SUBCOMMANDS[argv[0]], f"ilu mask {argv[0]}", argv[1:])
    elif argv[0] not in SUMMARIES:
        raise unknown("mask", argv[0], SUMMARIES)
