"""One name for one thing in all commands: flags of older versions, and the ways to give a model.

Data given with ``--x`` have their columns in ``--x-columns``. ``--attack`` and ``--seed`` are
repeated for several, ``--limit`` is the number of examples that are measured. A model is a word or
``--model``.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ilu.cli.flags import flags, without
from ilu.recipes.names import parse_name, parts_of, renewed_name

MODEL = "--model"
FIRST_WORDS = ("attack", "evaluate", "ask", "oracle")
"""Commands whose models are their first words."""
SECOND_WORD = ("unlearn", "sweep", "plan", "mask")
"""Commands whose model is a flag behind the name of a recipe or score."""
SUBCOMMANDS = ("status", "resume", "cancel", "show", "compare", "convert")
"""First words of these that are no such name."""
DATA_COLUMNS = {"--columns": "--data-columns"}
LIMIT = {"--measured": "--limit"}
EVERYWHERE = {"--reach": "--perturbed", "--ahead": "--lookahead-step"}
OLD_FLAGS: Mapping[str, Mapping[str, str]] = {
    "unlearn": LIMIT,
    "plan": LIMIT,
    "sweep": {**LIMIT, "--attacks": "--attack"},
    "attack": {
        **DATA_COLUMNS,
        "--task": "--attack",
        "--task-columns": "--attack-columns",
        "--keep": "--keep-models",
        "--every": "--eval-every",
        "--ask": "--probe",
    },
    "evaluate": DATA_COLUMNS,
    "landscape": DATA_COLUMNS,
    "vectors": {"--columns": "--cka-columns"},
    "oracle": {"--columns": "--retain-columns"},
    "bench": {"--seeds": "--seed"},
}
"""Command -> its flags in an older version, and their names today."""


class Names(NamedTuple):
    """The names of one command."""

    command: str

    def today(self, flag: str) -> str:
        """The name of a flag today; dashes may be underscores."""
        dashed = flag.replace("_", "-")
        names = {**EVERYWHERE, **OLD_FLAGS.get(self.command, {})}
        if dashed.startswith("--no-") and (new := names.get(f"--{dashed[5:]}")):
            return f"--no-{new[2:]}"
        return names.get(dashed, flag)

    def renewed(self, words: Sequence[str]) -> list[str]:
        """The words with today's names of recipe and flags; an older name gives a notice."""
        found = [new for pair in self.flags_and_words(self.with_recipe(words)) for new in pair]
        kept = self.keeps(words) and "--keep-models" not in found
        return [*found, "--keep-models"] if kept else found

    def with_recipe(self, words: Sequence[str]) -> Sequence[str]:
        """The words with today's name of the recipe, so that its notice is given once."""
        if self.command not in SECOND_WORD or not words or words[0].startswith("-"):
            return words
        if not parts_of(words[0]) and parts_of(renewed_name(words[0])):
            return [str(parse_name(words[0])), *words[1:]]
        return self.with_retain_limit(words)

    def with_retain_limit(self, words: Sequence[str]) -> Sequence[str]:
        """The words of pdu, whose ``--limit`` was a loss: what no number of examples can be."""
        if not (words and words[0].startswith("pdu") and flags(words, "--limit")):
            return words
        warnings.warn(
            "the loss that pdu allows is --retain-limit now; --limit is the number of measured "
            "examples",
            stacklevel=2,
        )
        if all(value.isdecimal() for value in flags(words, "--limit")):
            return words
        return [word.replace("--limit", "--retain-limit", 1) for word in words]

    def flags_and_words(self, words: Sequence[str]) -> Iterator[Sequence[str]]:
        """Each word under its name of today, as one or several."""
        rest = iter(words)
        for word in rest:
            flag, equals, value = word.partition("=")
            new = self.today(flag) if flag.startswith("--") else flag
            if new == flag:
                yield (word,)
                continue
            warnings.warn(f"the flag {flag} is called {new} now{self.hint(flag)}", stacklevel=2)
            if (self.command, flag) == ("bench", "--seeds"):
                yield seeds(value if equals else next(rest, ""))
            else:
                yield (f"{new}{equals}{value}",)

    def keeps(self, words: Sequence[str]) -> bool:
        """Whether an older flag saved the weights of its attack."""
        return self.command == "attack" and any(w.partition("=")[0] == "--task" for w in words)

    def hint(self, flag: str) -> str:
        """What else has changed with a flag."""
        if (self.command, flag) == ("attack", "--task"):
            return ", and --keep-models saves the attacked weights"
        return ", and takes a seed" if (self.command, flag) == ("bench", "--seeds") else ""

    def with_model(self, words: Sequence[str]) -> list[str]:
        """The words with the model in the one place where the command reads it."""
        if self.command in FIRST_WORDS:
            return [*flags(words, MODEL), *without(words, [MODEL])]
        second = self.command in SECOND_WORD and words[:1] and words[0] not in SUBCOMMANDS
        if second and len(words) > 1 and not any(w.startswith("-") for w in words[:2]):
            return [words[0], MODEL, *words[1:]]
        return list(words)


def seeds(count: str) -> tuple[str, ...]:
    """The seeds 0, 1, ... as flags, from their number; other words stay for the error."""
    if not count.isdecimal() or count == "0":
        return ("--seed", count)
    return tuple(word for seed in range(int(count)) for word in ("--seed", str(seed)))
