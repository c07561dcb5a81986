"""The flags of ``ilu ask``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ilu.cli.flags import parse
from ilu.cli.help import Positional


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Print what models answer to a prompt, in one table for several models.

    A model that was trained for chats gets the prompt in its chat template. One model's answer is
    printed while it is generated.

    Example: ilu ask smollm2 "What is the capital of France?"

    Example: ilu ask smollm2 runs/first "What is the chemical symbol for gold?"

    Example: ilu ask smollm2 runs/first --file prompts.txt --json > answers.json

    Args:
        words: the models (folders, run directories, GGUF files, hub ids, smollm2, lab), then the
            prompt; with --file, models only.
        file: prompts: a text file with one prompt in each line, or a data file (.jsonl, .json,
            .csv, .parquet) with the column prompt or question.
        chat: use the chat template where there is one.
        max_new_tokens: the most tokens of an answer.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        seed: of the draws.
        batch_size: prompts that are answered at once.
        device: cpu, cuda, mps.
        json: print JSON: for each prompt the answer of each model.
    """

    words: Positional[tuple[str, ...]]
    file: Path | None = None
    chat: bool = True
    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"
    json: bool = False


def read(argv: Sequence[str]) -> Ask:
    """Parse the flags."""
    return parse(Ask, "ilu ask", argv)
