"""The flags of ``ilu plan``: those of ``ilu unlearn`` and a few of its own."""

from collections.abc import Sequence

from ilu.cli.arguments.unlearn import (
    Place,
    Trial,
    check_recipe,
    field_names,
    recipe_settings,
)
from ilu.recipes.settings import Common

HELP = """\
usage: ilu plan RECIPE --model M --device-memory 24GiB [--length 512] [--shard N]
                [flags of ilu unlearn]

Predict the peak memory of a training step from the model's configuration, and propose settings.
No weights are loaded and no data is read: --length is the number of tokens of an example. With
--shard N it is what each of N processes needs, each on a device of its own.

  ilu plan npo-ilu --model ./my-model --device-memory 24GiB --length 512
  ilu plan --config run.yaml --device-memory 24GiB
  ilu plan rmu --model org/model --device-memory 80GB --precision bfloat16 --json

Left aside: about {reserve} GiB for the runtime. What fits has room for the float32 model as well,
which is measured before and after training. The model must be a folder or in the local cache.
"""
RESERVE = 1.0
"""GiB of a device that are not to be planned with: the runtime, its kernels, fragments."""
OWN = ("device_memory", "length", "json")
"""The settings that ``ilu unlearn`` does not have."""


def overview() -> str:
    """The help of the command."""
    return HELP.format(reserve=RESERVE)


def settings(lead: Sequence[str]) -> set[str]:
    """What the file of --config may set: what that of ``ilu unlearn`` may, and more."""
    return recipe_settings("ilu plan", lead, [*OWN, *field_names(Place, Trial)])


def check(argv: Sequence[str]) -> None:
    """Raise ValueError for an unknown recipe or flag."""
    check_recipe("ilu plan", argv, [*OWN, *field_names(Place, Trial)], (Common,))
