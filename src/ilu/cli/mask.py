"""``ilu mask``: make masks, look at them, compare them, convert old ones."""

from collections.abc import Sequence

from ilu.cli.arguments.mask import Compare, Convert, Show, check
from ilu.cli.flags import parse
from ilu.cli.mask_make import make_mask
from ilu.cli.mask_show import show_comparison, show_mask
from ilu.cli.terminal import console
from ilu.methods.masks.storage import MaskFile, save_mask
from ilu.methods.masks.wagle_pt import convert, read_legacy
from ilu.models.load import load_model, weights_hash


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    check(argv)
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
