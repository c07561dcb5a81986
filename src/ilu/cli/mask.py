"""``ilu mask``: make masks, look at them, compare them, convert old ones."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ilu.cli.flags import Positional, parse
from ilu.cli.mask_make import make_mask
from ilu.cli.mask_show import show_comparison, show_mask
from ilu.cli.terminal import console
from ilu.methods.masks.storage import MaskFile, save_mask
from ilu.methods.masks.wagle_pt import Rest, convert, read_legacy
from ilu.models.load import load_model, weights_hash
from ilu.recipes.masks import MASKS

HELP = """\
usage: ilu mask SCORE --model M --forget F --retain R --fraction X [--fraction Y ...] --out FILE
       ilu mask show FILE
       ilu mask compare A B
       ilu mask convert OLD.pt --model M --out FILE

A mask says which weights may move. SCORE is one of:

{scores}

  ilu mask wagle --model lab --fraction 0.1 --out mask.safetensors
  ilu mask wagle --model lab --fraction 0.1 --scores scores --out small.safetensors
  ilu mask wagle --model lab --fraction 0.3 --scores scores --out large.safetensors
  ilu mask sure --model ./my-model --forget f.jsonl --fraction 0.1 --out sure.safetensors
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
    """Show how far two masks of a model agree, beside what chance would give.

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


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    if not argv or argv[0] in ("-h", "--help"):
        scores = "\n".join(f"  {name:13} {kind.summary}" for name, kind in MASKS.items())
        console.print(HELP.format(scores=scores), markup=False, end="", soft_wrap=True)
        return
    others = {"show": show, "compare": compare, "convert": convert_old}
    if argv[0] in others:
        others[argv[0]](argv[1:])
    else:
        make_mask(argv[0], argv[1:])


def show(argv: Sequence[str]) -> None:
    """Carry out ``ilu mask show``."""
    show_mask(MaskFile(parse(Show, "ilu mask show", argv).mask))


def compare(argv: Sequence[str]) -> None:
    """Carry out ``ilu mask compare``."""
    wanted: Compare = parse(Compare, "ilu mask compare", argv)
    show_comparison(MaskFile(wanted.first), MaskFile(wanted.second))


def convert_old(argv: Sequence[str]) -> None:
    """Carry out ``ilu mask convert``."""
    wanted: Convert = parse(Convert, "ilu mask convert", argv)
    if wanted.out.exists():
        raise ValueError(f"{wanted.out} exists already: choose another name, or delete it")
    old = read_legacy(wanted.old)
    model = load_model(wanted.model).model
    found = convert(old, model, wanted.rest)
    record = {"model": weights_hash(model), "converted": wanted.old.name}
    save_mask(wanted.out, found.mask.items(), record)
    for note in found.notes:
        console.print(note, markup=False)
    show_mask(MaskFile(wanted.out))
