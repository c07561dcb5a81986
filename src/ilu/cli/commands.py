"""The commands by name. They are named here as text, so that none is imported before it is used."""

from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """A command: its group and line in the help, and functions as ``module:function``.

    ``runs`` carries it out. ``check`` parses its flags without torch, before ``runs`` is imported.
    ``help`` returns the text of --help for commands whose first argument decides their flags.
    ``settings``, for commands that take --config, returns what a file may set from the words before
    the flags, which the file has under the key ``first``.
    """

    group: str
    usage: str
    summary: str
    runs: str
    check: str = ""
    help: str = ""
    first: str = ""
    settings: str = ""


COMMANDS: Mapping[str, Command] = {
    "demo": Command(
        "Run", "--out DIR", "unlearn and attack the lab model",
        "demo:main", "arguments.demo:read",
    ),
    "unlearn": Command(
        "Run", "RECIPE --model M", "unlearn your data from your model",
        "unlearn:main", "arguments.unlearn:check", "arguments.unlearn:overview",
        "recipe", "arguments.unlearn:settings",
    ),
    "sweep": Command(
        "Run", "RECIPE --grid K=V,...", "run every combination of settings",
        "sweep:main", "arguments.sweep:check", "arguments.sweep:overview",
        "recipe", "arguments.sweep:settings",
    ),
    "mask": Command(
        "Run", "SCORE --model M", "choose the weights that may change",
        "mask:main", "arguments.mask:check", "arguments.mask:overview",
    ),
    "oracle": Command(
        "Run", "MODEL --retain D", "train a model without the forget set",
        "oracle:main", "arguments.oracle:read",
    ),
    "rerun": Command(
        "Run", "RUN --out DIR", "repeat a run from its recipe.json",
        "report:rerun", "arguments.report:read_rerun",
    ),
    "evaluate": Command(
        "Measure", "MODEL... --suite S", "measure what models know",
        "evaluate:main", "arguments.evaluate:read",
        first="model", settings="arguments.evaluate:settings",
    ),
    "ask": Command(
        "Measure", "MODEL... PROMPT", "print the answers of models in one table",
        "ask:main", "arguments.ask:read",
    ),
    "attack": Command(
        "Measure", "MODEL --attack A", "attack a model, measure what comes back",
        "attack:attack", "arguments.attack:read",
        first="model", settings="arguments.attack:settings",
    ),
    "vectors": Command(
        "Measure", "ORIGINAL UNLEARNED", "compute angles between task vectors",
        "vectors:vectors", "arguments.vectors:read",
    ),
    "landscape": Command(
        "Measure", "ORIGINAL UNLEARNED", "measure scores between models",
        "landscape:main", "arguments.landscape:read",
    ),
    "bench": Command(
        "Measure", "methods --out DIR", "compare all methods on the lab model",
        "bench:main", "arguments.bench:read",
    ),
    "report": Command(
        "Look", "RUN... --out FILE", "write one page about runs",
        "report:report", "arguments.report:read_report",
    ),
    "view": Command(
        "Look", "RUNS_DIR", "show that page while runs go on", "view:view",
    ),
    "methods": Command("Look", "", "list what can be used by name", "methods:methods"),
    "card": Command("Publish", "RUN [ATTACK...]", "write a model card", "publish:card"),
    "push": Command(
        "Publish", "RUN --repo ORG/NAME", "upload model, card and report",
        "publish:push",
    ),
    "plan": Command(
        "Tools", "RECIPE --model M", "predict memory, find settings that fit",
        "plan:main", "arguments.plan:check", "arguments.plan:overview",
        "recipe", "arguments.plan:settings",
    ),
    "import-config": Command(
        "Tools", "FILE.json", "translate a WAGLE configuration",
        "import_config:main",
    ),
    "lab": Command(
        "Tools", "build --out DIR", "rebuild the model of the lab",
        "lab:main", "arguments.lab:read",
    ),
    "doctor": Command(
        "Tools", "", "show versions, hardware and network",
        "report:doctor", "arguments.report:read_doctor",
    ),
}  # fmt: skip
"""In the order of the help."""


def usage() -> str:
    """The text of ``ilu --help``."""
    width = max(len(f"ilu {name} {c.usage}") for name, c in COMMANDS.items())
    lines = [
        "Usage: ilu COMMAND ...",
        "",
        "Make a language model forget, and measure whether it does.",
    ]
    group = ""
    for name, command in COMMANDS.items():
        if command.group != group:
            group = command.group
            lines += ["", f"{group}:"]
        lines.append(f"  {f'ilu {name} {command.usage}':{width}}  {command.summary}")
    lines += [
        "",
        "ilu COMMAND --help shows the flags of a command, ilu --version the version.",
        "--debug with any command prints the traceback of an error.",
        "First steps: ilu demo --out demo",
    ]
    return "\n".join(lines) + "\n"
