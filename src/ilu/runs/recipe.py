"""A recipe: the settings that determine the numbers of a run, and no others."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ilu.data.stream import Feed
from ilu.methods.masks.make import Masking
from ilu.methods.robust.l1 import L1
from ilu.methods.robust.undo import DISTIL, Undo
from ilu.models.lora import Lora
from ilu.models.save_dtype import SaveDtype
from ilu.runs.validation import Validation
from ilu.system.errors import first_line
from ilu.system.record import restore
from ilu.training.fit import Optim
from ilu.training.objective import Objective
from ilu.types import Attack, Edit, Group, Metric


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Unlearn ``model`` with ``objective``, measure, then attack and measure again.

    ``slow_metrics``, such as those that generate text, are measured before and after unlearning,
    and not during attacks. An empty objective leaves the model as it is. ``edit`` is weight
    arithmetic after the training. ``mask`` is a file, or how to make one when the run begins.
    ``probes`` are prompting attacks, which do not change the weights: accuracy on what was
    forgotten, by name. ``keep_attacked`` saves the weights after each attack, which task vectors
    need. With ``lora``, adapters are trained and then merged into the weights: the merged model is
    measured, attacked and saved. At least ``passes`` over the forget data are made: the run raises
    ``optim.steps`` to them. ``validation`` is measured during training. ``save_dtype`` is the
    precision of the saved model, to which its weights are rounded before they are measured;
    attacked models are saved as they were measured, in float32. With ``undo`` the unlearned model
    is distilled on the data called distil: all its weights, whatever ``mask``, ``lora`` and
    ``optim.parameters`` restrict in the unlearning.
    """

    name: str
    model: str
    data: Mapping[str, Feed]
    objective: Objective
    optim: Optim
    metrics: Mapping[str, Metric | Group]
    slow_metrics: Mapping[str, Metric | Group] = field(default_factory=dict)
    attacks: Mapping[str, Attack] = field(default_factory=dict)
    probes: Mapping[str, Group] = field(default_factory=dict)
    revision: str | None = None
    mask: str | Masking | None = None
    edit: Edit | None = None
    lora: Lora | None = None
    passes: float | None = None
    validation: Validation | None = None
    undo: Undo | None = None
    keep_attacked: bool = False
    save_dtype: SaveDtype = "own"
    seed: int = 0

    def __post_init__(self) -> None:
        self.check_names()
        for name, term in self.objective.items():
            if term.on not in self.data:
                known = ", ".join(sorted(self.data))
                raise ValueError(f"term {name!r} reads stream {term.on!r}; the data has: {known}")
        self.check_adapters()
        self.check_undo()
        keep = self.validation.keep if self.validation else "last"
        if keep != "last" and self.optim.average_from is not None:
            raise ValueError(
                "averaging weights over steps and keeping those of one step exclude each other: "
                "leave out `average_from` or `keep`"
            )
        if self.edit and self.optim.optimizer == "adamw-bf16":
            raise ValueError(
                "weight arithmetic cannot follow adamw-bf16: it would multiply what bfloat16 has "
                "rounded, also in weights that were not trained. Use adamw or adamw8bit"
            )

    def check_adapters(self) -> None:
        """ValueError for settings that cannot be combined with adapters."""
        if self.lora is None:
            return
        if any(isinstance(term.rule, L1) for term in self.objective.values()):
            raise ValueError("l1 acts on weights that LoRA does not train: leave out `lora_rank`")
        if self.mask:
            raise ValueError(
                "a mask cannot be combined with LoRA: it names weights of the model, and the "
                "adapters' update changes all of them. Leave out `mask` or `lora_rank`"
            )
        if self.lora.base_bits:
            check_rounded(self.optim)
        if self.optim.average_from is not None:
            raise ValueError(
                "averaging cannot be combined with LoRA: the mean of the adapters' factors is not "
                "that of the weights. Leave out `average_from` or `lora_rank`"
            )

    def check_undo(self) -> None:
        """Refuse what cannot be distilled afterwards."""
        if self.undo is None:
            return
        if DISTIL not in self.data:
            raise ValueError("undo needs text to distil on: give `distil`")
        source = self.data[DISTIL].source
        if any(feed.role == "forget" and feed.source == source for feed in self.data.values()):
            raise ValueError(
                "`distil` is the data to forget, and distillation on it would bring it back: give "
                "general text, or leave it out for the retain data"
            )
        if self.optim.optimizer == "adamw-bf16":
            raise ValueError(
                "undo cannot follow adamw-bf16: noise and distillation need the weights in "
                "float32. Use `optimizer` adamw or adamw8bit"
            )

    @property
    def all_metrics(self) -> Mapping[str, Metric | Group]:
        """What is measured before and after the unlearning."""
        return {**self.metrics, **self.slow_metrics}

    @property
    def leaves_the_model(self) -> bool:
        """Whether what is measured and attacked is the model as it was loaded."""
        return not (self.objective or self.edit or self.undo) and self.save_dtype == "own"

    def distillation(self) -> "Recipe | None":
        """The stage after the unlearning as a recipe of its own, or None."""
        if self.undo is None:
            return None
        return replace(
            self,
            objective=self.undo.objective,
            optim=self.undo.optim(self.optim),
            undo=None,
            edit=None,
            lora=None,
            mask=None,
            passes=None,
            validation=None,
        )

    def check_names(self) -> None:
        """ValueError for names that cannot be file names, and for one name used twice."""
        for name in (*self.attacks, *self.probes, *self.all_metrics, *self.data):
            if not re.fullmatch(r"[\w][\w.:+ -]*", name):
                raise ValueError(
                    f"{name!r} cannot name an attack, a metric or data: it becomes the name of a "
                    "file. Use letters, digits, and . : + - _ or spaces between"
                )
        if both := set(self.attacks) & set(self.probes):
            raise ValueError(f"{min(both)!r} is an attack and a probe: give one another name")


def check_rounded(optim: Optim) -> None:
    """ValueError for settings that change the weights of a base model quantised to 4 bits."""
    if optim.perturbed is not None:
        raise ValueError(
            "weights of 4 bits cannot be perturbed, which `perturbed` and -lookahead "
            "recipes do: leave out `quantise_base`, or `perturbed`"
        )
    if optim.optimizer == "adamw-bf16":
        raise ValueError(
            "adamw-bf16 would make a base model of 4 bits bfloat16 again: use `optimizer` adamw or "
            "adamw8bit, perhaps with `precision` bfloat16, or leave out `quantise_base`"
        )


def read_recipe(path: Path) -> Recipe:
    """The recipe that a run recorded in the file ``path``."""
    try:
        found = restore(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is damaged, or of another version of ilu: {first_line(error)}"
        ) from None
    if not isinstance(found, Recipe):
        raise ValueError(f"{path} is not a recipe: give the folder of a run")
    return found
