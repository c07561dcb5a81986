"""The flags of ``ilu evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

from ilu.cli.flags import as_flags, parse
from ilu.cli.help import Positional, flags_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.system.declared import declared


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure what models know; several models are columns of one table.

    Example: ilu evaluate lab runs/first/model --suite lab

    Example: ilu evaluate ./my-model --suite likelihood --data held-out.jsonl --out scores.json

    Example: ilu evaluate full npo/model --suite tofu --reference oracle/model --out tofu.json

    Example: ilu evaluate target fold1/model fold2/model --suite muse --split news-sust

    Args:
        model: folders, hub ids, GGUF files, smollm2 or lab.
        suite: one of the suites that are listed above.
        reference: a model that never saw the forget set, such as one of ilu oracle: adds forget
            quality to tofu, PrivLeak to muse, the attack with a reference model to membership, and
            to multiple choice the paired difference.
        out: JSON file for the scores. A folder with the same name gets the value of every item, and
            a results.json of each model in the format of lm-evaluation-harness. The same command
            reuses what this folder has, so it continues after an interruption.
        device: cpu, cuda, mps.
    """

    model: Positional[tuple[str, ...]]
    suite: str = "likelihood"
    request: SuiteRequest = SuiteRequest()
    reference: str | None = None
    out: Path | None = None
    device: str = "cpu"


def read(argv: Sequence[str]) -> Evaluate:
    """Parse the flags."""
    return parse(Evaluate, "ilu evaluate", argv, description(), head={})


def settings(lead: Sequence[str]) -> set[str]:
    """What the file of --config may set."""
    return {flag.name for flag in flags_of(Evaluate, Evaluate, "")}


def description() -> str:
    """The text above the flags: what the command does, and every suite."""
    text = (Evaluate.__doc__ or "").split("Args:")[0]
    suites = declared("ilu.recipes.suites", "SUITES").values()
    lines = [f"* {each.name}: {as_flags(each.doc)}" for each in suites]
    return "\n\n".join([cleandoc(text), "Suites by name:", *lines])
