"""Attacks by name, with the user's settings and data, and recipes that run them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ilu.attacks.convergence import Convergence
from ilu.attacks.finetune import FineTune
from ilu.attacks.kind import AttackInputs, DataRole
from ilu.attacks.registry import attack_kinds, label
from ilu.data.facts.selection import is_facts
from ilu.data.facts.sources import FactQuestions, UnseenFacts
from ilu.data.splits import Part
from ilu.data.stream import Feed
from ilu.evals.metrics.likelihood import AnswerNLL
from ilu.evals.metrics.multiple_choice import Choice
from ilu.lab.tasks import TASKS
from ilu.models.named import LAB, full_name
from ilu.recipes import lab
from ilu.recipes.facts_data import retain_name, written_out
from ilu.recipes.halves import half_attack
from ilu.recipes.settings import AttackSettings
from ilu.recipes.task_attack import KNOWN, task_attack
from ilu.recipes.user_data import dataset
from ilu.runs.recipe import Recipe
from ilu.runs.results.forget_metric import OTHERS
from ilu.training.fit import Optim
from ilu.types import Attack, Group, Metric

RELEARN = "relearn"
"""A task of the lab; with a number of documents (``relearn:20``) a kind of attack."""
PROBES = (
    "fewshot", "reworded", "prefilled", "suffix", "lens", "latent", "sampling", "softprompt",
)  # fmt: skip
"""Attacks by prompts and activations alone."""
OTHER_DOCUMENTS = 200
"""Number of examples for the loss on documents outside the training data."""


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """Builds attacks by name; ``until`` ends fine-tuning on a task when it has converged."""

    optim: Optim
    settings: AttackSettings = AttackSettings()
    until: Convergence | None = None

    def __call__(self, name: str) -> Attack:
        """Return the attack called ``name``: a kind with its argument, or a task."""
        kind, _, argument = name.partition(":")
        known = attack_kinds()
        if kind in PROBES:
            raise ValueError(f"{name!r} leaves the weights as they are: it is for `probe`")
        if kind not in known or name == RELEARN:
            return self.task(name)
        inputs = AttackInputs(
            task=self.task,
            documents=self.documents,
            half=self.half,
            original=self.settings.original,
            lora_rank=self.settings.lora_rank,
            seed=self.settings.seed,
        )
        try:
            return known[kind].build(argument, inputs)
        except ValueError as error:
            raise ValueError(f"attack {name!r}: {error}") from None

    def task(self, task: str) -> FineTune:
        """Fine-tune all weights on a task."""
        attack = task_attack(
            task,
            optim=self.optim,
            batch_size=self.settings.batch_size,
            columns=self.settings.attack_columns,
            truncate=self.settings.truncate,
            seed=self.settings.seed,
        )
        return replace(self.with_settings(attack), until=self.until)

    def documents(self, role: DataRole, count: int) -> FineTune:
        """Fine-tune all weights on the first ``count`` documents of the user, or of the lab.

        For the forget set, the goal is the loss on its other documents, and of facts also the
        questions about those that were not shown. ``until`` has no effect, because it needs
        held-out examples.
        """
        settings = self.settings
        name = {
            "forget": settings.forget,
            "retain": settings.retain,
            "unrelated": settings.unrelated,
        }[role]
        if name is None and role == "retain" and settings.forget is not None:
            raise ValueError("this attack needs what was to be kept as well: set `retain`")
        if name is None:
            attack = lab_documents(role, self.optim.steps, count)
            feed = Feed(attack.feed.source, min(settings.batch_size, attack.feed.batch_size))
            return self.with_settings(replace(attack, feed=feed, optim=self.optim))
        forget = [settings.forget] if settings.forget else []
        name = retain_name(name, forget) if role == "retain" else written_out(name, forget)
        data = dataset(name, settings.attack_columns, settings.truncate)
        others: dict[str, Metric] = {
            "others_nll": AnswerNLL(Part(data, start=count), OTHER_DOCUMENTS)
        }
        if is_facts(name):
            others |= unseen_facts(name, count)
        feed = Feed(Part(data, stop=count), min(settings.batch_size, count))
        return self.with_settings(FineTune(feed, self.optim, others if role == "forget" else {}))

    def half(self, half: str) -> FineTune:
        """Fine-tune all weights on one half of what was forgotten; ``until`` has no effect."""
        return self.with_settings(half_attack(half, self.settings, self.optim))

    def with_settings(self, attack: FineTune) -> FineTune:
        """Return ``attack`` with the settings that do not depend on its data."""
        shared = self.settings
        return replace(attack, seed=shared.seed, every=shared.eval_every, only_end=shared.only_end)


def unseen_facts(name: str, documents: int) -> dict[str, Metric]:
    """A question about each fact that the first documents are not about, if there is one."""
    unseen = UnseenFacts(name, documents)
    return {OTHERS: Choice(FactQuestions(unseen), batch_size=16)} if unseen() else {}


def lab_documents(role: DataRole, steps: int, count: int) -> FineTune:
    """Fine-tuning on the documents of ``count`` entities of the lab."""
    build = {"forget": lab.relearn, "retain": lab.retained, "unrelated": lab.unrelated}[role]
    return build(steps, shown=count)


def attack_names(model: str) -> list[str]:
    """The attacks of ``all``: the tasks of the lab or of the hub, and relearning."""
    return [*((t.name for t in TASKS) if model == LAB else KNOWN), RELEARN]


def chosen(model: str, names: str) -> list[str]:
    """Parse ``all``, ``none``, or comma-separated names and files."""
    if names == "none":
        return []
    return attack_names(model) if names == "all" else split_names(names)


def split_names(text: str) -> list[str]:
    """Split comma-separated names; the commas in ``blocks:0,1:TASK`` do not separate."""
    return re.split(r",(?![\d,]+:)", text)


def check_labels(names: Sequence[str]) -> None:
    """Raise ValueError if two attacks would have the same name in files."""
    if len({label(name) for name in names}) < len(set(names)):
        raise ValueError(f"two of {', '.join(names)} have the same name in files: rename one")


def with_attacks(
    recipe: Recipe, names: Sequence[str], optim: Optim, *, batch_size: int = 16
) -> Recipe:
    """The recipe followed by these attacks, whose weights are not saved."""
    check_labels(names)
    added = {label(name): attack_after(recipe, name, optim, batch_size) for name in names}
    return replace(recipe, attacks={**recipe.attacks, **added})


def attack_after(recipe: Recipe, name: str, optim: Optim, batch_size: int) -> Attack:
    """The attack of that name; relearning on user data trains on the forget set."""
    if name == RELEARN and recipe.model != LAB:
        if "forget" not in recipe.data:
            raise ValueError("the attack 'relearn' needs a `forget` set, which this recipe lacks")
        return FineTune(recipe.data["forget"], optim, seed=recipe.seed)
    kind, _, argument = name.partition(":")
    known = attack_kinds()
    if recipe.model != LAB and argument and kind in known and known[kind].needs:
        raise ValueError(
            f"the attack {name!r} needs data or a model of its own: use ilu attack on the run's "
            f"model, with `{known[kind].needs}`"
        )
    settings = AttackSettings(batch_size=batch_size, seed=recipe.seed)
    return Attacker(optim=optim, settings=settings)(name)


def attacked(
    model: str,
    names: Sequence[str],
    by: Attacker,
    metrics: Mapping[str, Metric | Group],
    probes: Mapping[str, Group],
    *,
    keep: bool,
    revision: str | None = None,
) -> Recipe:
    """A recipe that runs every attack and probe on ``model``, without unlearning."""
    check_labels(names)
    attacks = {label(name): by(name) for name in dict.fromkeys(names)}
    return Recipe(
        name=f"tune-{next(iter(attacks))}" if len(attacks) == 1 and not probes else "attacks",
        model=full_name(model),
        data={},
        objective={},
        optim=replace(by.optim, steps=0),
        metrics=metrics,
        attacks=attacks,
        probes=probes,
        revision=revision,
        keep_attacked=keep,
        seed=by.settings.seed,
    )
