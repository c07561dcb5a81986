"""``ilu ask``: the answers of several models in one table."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ilu.cli.arguments.ask import Ask, read
from ilu.cli.evaluate import labels
from ilu.cli.terminal import console, print_json, progress
from ilu.data.cells import is_missing, text_in
from ilu.data.readers import is_data_file, read_rows
from ilu.evals.answers import Answering
from ilu.models.load import load_model
from ilu.models.named import NAMED, check_name
from ilu.runs.run_dir import RunDir

NARROWEST = 24
"""Characters of a column below which the answers stand below each other."""
COLUMNS = ("prompt", "question")
"""Columns of a file that may have the prompts."""


def main(argv: Sequence[str]) -> None:
    """Carry out the command."""
    wanted = read(argv)
    check_numbers(wanted)
    names, prompts = models_and_prompts(wanted)
    paths = {name: model_of(name) for name in dict.fromkeys(names)}
    for path in paths.values():
        check_name(path)
    how = Answering(
        wanted.chat, wanted.max_new_tokens, wanted.temperature, wanted.seed, wanted.batch_size
    )
    if len(paths) == 1 and not wanted.json:
        stream(next(iter(paths.values())), prompts, how, wanted.device)
        return
    answers = answered(paths, prompts, how, wanted.device, quiet=wanted.json)
    if wanted.json:
        pairs = [{name: found[i] for name, found in answers.items()} for i in range(len(prompts))]
        print_json([{"prompt": p, "answers": a} for p, a in zip(prompts, pairs, strict=True)])
        return
    for i, prompt in enumerate(prompts):
        show(prompt, {name: found[i] for name, found in answers.items()})


def check_numbers(wanted: Ask) -> None:
    """Refuse impossible numbers before a model is loaded."""
    for name, value in {"max-new-tokens": wanted.max_new_tokens, "batch-size": wanted.batch_size,
                        }.items():  # fmt: skip
        if value < 1:
            raise ValueError(f"--{name} {value}: give at least 1")
    if wanted.temperature < 0:
        raise ValueError(f"--temperature {wanted.temperature}: give 0 or more")


def models_and_prompts(wanted: Ask) -> tuple[list[str], list[str]]:
    """Take the words of the command line apart."""
    if wanted.file is not None:
        names, prompts = list(wanted.words), prompts_of(wanted.file)
        if names and " " in names[-1].strip() and not is_folder(names[-1]):
            raise ValueError(f"{names[-1]!r} is no model: give a prompt or --file, not both")
    else:
        names, prompts = list(wanted.words[:-1]), list(wanted.words[-1:])
    if not names:
        raise ValueError('ilu ask needs models and a prompt: ilu ask MODEL "the prompt"')
    prompts = [text_in(prompt, "the prompt") for prompt in prompts]
    if not all(prompt.strip() for prompt in prompts):
        raise ValueError("a prompt is empty: give some text")
    if wanted.file is None and (prompts[0] in NAMED or is_folder(prompts[0])):
        raise ValueError(f"{prompts[0]!r} is a model: give the prompt after the models")
    return names, prompts


def is_folder(text: str) -> bool:
    """Whether a text is the name of a folder; one that is too long for a name is none."""
    try:
        return Path(text).is_dir()
    except OSError:
        return False


def prompts_of(file: Path) -> list[str]:
    """The prompts of a file."""
    if is_data_file(file):
        rows = read_rows(file)
        column = next((name for name in COLUMNS if name in rows[0]), None)
        if column is None:
            raise ValueError(f"{file} needs a column {' or '.join(COLUMNS)}; it has: "
                             f"{', '.join(rows[0])}")  # fmt: skip
        cells = ((row.get(column), f"{file}: row {i}: {column}") for i, row in enumerate(rows, 1))
        return ["" if is_missing(value) else text_in(value, where) for value, where in cells]
    if not file.is_file():
        raise ValueError(f"{file} does not exist or is not a file")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text: give a text file of prompts") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{file} has no prompt: write one in each line")
    return prompts


def model_of(name: str) -> str:
    """The model of a run directory, or the name as it is."""
    run = Path(name)
    if name in NAMED or not (run / "recipe.json").is_file():
        return name
    model = RunDir(run).model
    if Path(model) == run / "model" and not (run / "model").is_dir():
        raise ValueError(f"the run {name} has no model folder: it is unfinished")
    return model


def stream(path: str, prompts: Sequence[str], how: Answering, device: str) -> None:
    """Print each answer of one model while it is generated."""
    lm = load_model(path, device=device)
    for prompt in prompts:
        if len(prompts) > 1:
            console.print(Text(printable(prompt), style="bold"))
        how.stream(lm, prompt, lambda piece: console.out(printable(piece), end="", highlight=False))
        console.print("\n" if len(prompts) > 1 else "")


def answered(
    paths: Mapping[str, str], prompts: Sequence[str], how: Answering, device: str, *, quiet: bool
) -> dict[str, list[str]]:
    """Every model's answers; one model is in memory at a time."""
    found: dict[str, list[str]] = {}
    with progress() as shown:
        for done, (name, path) in enumerate(paths.items(), start=1):
            found[name] = [text.strip() for text in how(load_model(path, device=device), prompts)]
            if not quiet and console.is_terminal:
                shown("models", done, len(paths))
    return found


def show(prompt: str, answers: Mapping[str, str]) -> None:
    """One prompt: columns of answers, or answers below each other where columns are too narrow."""
    short = labels(list(answers))
    texts = [Text(printable(text) or "(nothing)") for text in answers.values()]
    console.print(Text(printable(prompt), style="bold"))
    if console.width // len(texts) < NARROWEST:
        for name, text in zip(short, texts, strict=True):
            console.print(Group(Text(name, style="underline"), text, Text()))
        return
    shown = Table(header_style="bold")
    for name in short:
        shown.add_column(Text(name), overflow="fold", ratio=1)
    shown.add_row(*texts)
    console.print(shown)


def printable(text: str) -> str:
    """Without control characters, which could rewrite the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
