"""``ilu attack``: what comes back when someone works on a model."""

from collections.abc import Sequence
from dataclasses import replace

from ilu.attacks.convergence import Convergence
from ilu.attacks.registry import attack_kinds
from ilu.cli.arguments.attack import Attack, read
from ilu.cli.attack_search import search_attacks
from ilu.cli.carry_out import carry_out
from ilu.cli.terminal import console, number, table
from ilu.recipes.attacks import Attacker, attacked
from ilu.recipes.probes import probes
from ilu.recipes.suite import suite_kind, suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.runs.attack_stage import check_failures
from ilu.runs.recipe import Recipe
from ilu.runs.results.display import FORGOTTEN, complement, displayed
from ilu.runs.results.forget_metric import forget_metric
from ilu.runs.run_dir import PROBES, RunDir
from ilu.system.scores import STAGES
from ilu.training.fit import Optim
from ilu.types import Group

LR = 1e-5
"""What someone would fine-tune a model of 7B with, by AdamW."""


def attack(argv: Sequence[str]) -> None:
    """Carry out ``ilu attack``."""
    wanted, request = read(argv)
    if not wanted.attack and not wanted.probe:
        raise ValueError(
            "ilu attack needs --attack or --probe: a task, or one of the kinds "
            f"{', '.join(attack_kinds())}; see ilu attack --help"
        )
    if wanted.search:
        search_attacks(wanted, lambda flags, name: trial(flags, request, name))
        return
    recipe = attacked(
        wanted.model, wanted.attack, attacker(wanted), suites(wanted, request),
        asking(wanted, request), keep=wanted.keep_models, revision=wanted.revision,
    )  # fmt: skip
    out = carry_out(recipe, wanted.place, shared=wanted.cache)
    show_stages(out)
    check_failures(out)


def trial(wanted: Attack, request: SuiteRequest, name: str) -> Recipe:
    """One attack with the settings of a trial."""
    measured_by = suites(wanted, request)
    return attacked(
        wanted.model, [name], attacker(wanted), measured_by, {}, keep=False,
        revision=wanted.revision,
    )  # fmt: skip


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


def suites(wanted: Attack, request: SuiteRequest) -> dict[str, Group]:
    """What is measured, if there is anything to measure it on."""
    if wanted.suite == "likelihood" and not request.data:
        return {}
    return {wanted.suite: suite_of(wanted.suite, measured(wanted, request))}


def measured(wanted: Attack, request: SuiteRequest) -> SuiteRequest:
    """The request with those settings of the attacks that the suite has too."""
    kind, shared = suite_kind(wanted.suite), wanted.settings
    truncated = {"truncate": shared.truncate} if kind.truncates else {}
    roles = {"forget": shared.forget, "retain": shared.retain} if kind.roles else {}
    original = {"original": shared.original} if kind.original else {}
    return replace(request, **truncated, **roles, **original)


def asking(wanted: Attack, request: SuiteRequest) -> dict[str, Group]:
    """The prompting attacks."""
    if not wanted.probe:
        return {}
    own, labs = ("choice", "elicit"), ("lab", "elicit", "likelihood")
    if wanted.suite not in (own if request.data else labs):
        raise ValueError(
            f"--probe does not know the questions of --suite {wanted.suite}: use --suite choice "
            "--data FILE, or --suite lab, whose questions are the lab's"
        )
    return probes(measured(wanted, request), wanted.probe, wanted.settings.seed)


def show_stages(out: RunDir) -> None:
    """Every metric at every stage, of several attacks at their ends; then the prompting attacks.

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
    titles = [stage.removesuffix("-end") if several else stage for stage in stages]
    if len(titles) > len(metrics):
        table(out.name, ("after", *metrics), [(t, *c) for t, c in zip(titles, shown, strict=True)])
    else:
        rows = [(m, *column) for m, *column in zip(metrics, *shown, strict=True)]
        table(out.name, ("metric", *titles), rows)
    if out.has(f"scores/{PROBES}") and (probed := out.scores(PROBES)):
        rows = [(name, number(complement(s).value)) for name, s in probed.items()]
        table("attacks that leave the weights unchanged", ("attack", FORGOTTEN), rows)
    console.print(f"run: {out.path}", markup=False, soft_wrap=True)
