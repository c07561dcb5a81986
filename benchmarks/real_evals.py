"""Multiple choice and generation on a real model, here and in lm-evaluation-harness.

Both sides read the same questions; answers must agree item by item. Choice comes in two forms:
beginnings of sentences that each option completes, which have several tokens, and letters after a
question with its options. The harness generates in its own default, one prompt at a time, and in
the same batches as ours.
"""

import gc
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ilu.data.facts.sources import FactItems, FactQuestions
from ilu.data.lm_eval import task_manager
from ilu.evals.metrics.generation import generate
from ilu.evals.metrics.lm_eval import as_harness_model
from ilu.evals.metrics.multiple_choice import option_logps, picked
from ilu.types import LM, Question

FACTS = "facts:capitals,elements,professions"
LETTERS = "ABCD"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    questions: int = 60
    letters: int = 24
    prompts: int = 16
    new_tokens: int = 32
    batch: int = 16
    turns: int = 2


def by_letter(q: Question) -> Question:
    """The same question with its options listed, and letters to choose from."""
    listed = "".join(f"\n{a}.{o}" for a, o in zip(LETTERS, q.options, strict=True))
    prompt = f"Complete the sentence.\n{q.prompt} ...{listed}\nAnswer:"
    return Question(prompt, tuple(f" {a}" for a in LETTERS), q.answer)


def choice_task(name: str, file: Path) -> dict[str, Any]:
    """A task of the harness about the questions in a file."""
    return {
        **task(name, file, "multiple_choice"),
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def generation_task(file: Path, size: Size) -> dict[str, Any]:
    """Greedy generation of a number of tokens."""
    return {
        **task("generation", file, "generate_until"),
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\u0000"], "max_gen_toks": size.new_tokens,
                              "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean",
                         "higher_is_better": True}],
    }  # fmt: skip


def task(name: str, file: Path, kind: str) -> dict[str, Any]:
    """What both kinds share."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": kind,
        "num_fewshot": 0,
        "doc_to_text": "{{question}}",
    }


def written(questions: Sequence[Question], file: Path) -> Path:
    """A file that the harness reads; it puts the space before an option itself."""
    rows = (
        {"question": q.prompt, "choices": [o.strip() for o in q.options], "answer": q.answer}
        for q in questions
    )
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def harness(lm: LM, given: dict[str, Any], batch: int) -> Callable[[], list[Any]]:
    """``simple_evaluate`` on a task; returns what it chose or wrote, by question."""
    import lm_eval

    whole, manager = cast(Any, lm_eval.simple_evaluate), task_manager([given], None)
    name, chooses = given["task"], given["output_type"] == "multiple_choice"

    def run() -> list[Any]:
        found = whole(
            model=as_harness_model(lm, batch), tasks=[given], task_manager=manager,
            bootstrap_iters=0,
        )  # fmt: skip
        items = sorted(found["samples"][name], key=lambda item: item["doc_id"])
        if not chooses:
            return [item["filtered_resps"][0].strip() for item in items]
        rows = [[float(r[0]) for r in item["filtered_resps"]] for item in items]
        return [row.index(max(row)) for row in rows]

    return run


def seconds(sides: Mapping[str, Callable[[], list[Any]]], turns: int) -> dict[str, float]:
    """Least processor seconds of each side; they take turns and must agree on every item."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    expected: list[Any] | None = None
    for _ in range(turns):
        for name, side in sides.items():
            gc.collect()
            began = time.process_time()
            found = side()
            took[name].append(time.process_time() - began)
            expected = found if expected is None else expected
            if found != expected:
                differ = sum(a != b for a, b in zip(found, expected, strict=True))
                raise RuntimeError(f"{name} disagrees on {differ} of {len(found)} items")
    least = {name: min(each) for name, each in took.items()}
    print(*(f"{name} {value:.2f} s" for name, value in least.items()), flush=True)
    return least


def prompts_of(lm: LM, questions: Sequence[Question]) -> list[str]:
    """Beginnings of sentences; every other one as a turn of a chat, which ends by itself."""
    if not lm.tokenizer.chat_template:
        return [q.prompt for q in questions]

    def turn(text: str) -> str:
        said = [{"role": "user", "content": f"Complete: {text} ..."}]
        return lm.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)

    return [turn(q.prompt) if i % 2 else q.prompt for i, q in enumerate(questions)]


def measure(lm: LM, size: Size, folder: Path) -> dict[str, Any]:
    """Seconds of every side for choice in two forms and for generation."""
    os.environ["HF_DATASETS_CACHE"] = str(folder)
    asked = FactQuestions(FactItems(FACTS, size.questions))()
    found: dict[str, Any] = {}
    forms = {"choice": asked, "letters": [by_letter(q) for q in asked[: size.letters]]}
    for name, questions in forms.items():

        def ours(questions: Sequence[Question] = questions) -> list[Any]:
            return [*picked(option_logps(lm, questions, batch_size=size.batch))]

        given = choice_task(name, written(questions, folder / f"{name}.jsonl"))
        theirs = harness(lm, given, size.batch)
        found[name] = seconds({"ours": ours, "lm_eval": theirs}, size.turns)
    prompts = prompts_of(lm, asked[: size.prompts])
    file = written([Question(p, (" yes",), 0) for p in prompts], folder / "generation.jsonl")
    given = generation_task(file, size)

    def continued() -> list[Any]:
        made = generate(lm, prompts, max_new_tokens=size.new_tokens, batch_size=size.batch)
        return [text.strip() for text in made]

    sides = {
        "ours": continued,
        "lm_eval": harness(lm, given, 1),
        "lm_eval, same batches": harness(lm, given, size.batch),
    }
    found["generation"] = seconds(sides, size.turns)
    return found


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """How many times as long the harness takes."""
    made = {
        f"{'choice_letters' if name == 'letters' else name}_speedup": row["lm_eval"] / row["ours"]
        for name, row in found.items()
    }
    row = found["generation"]
    made["generation_speedup_same_batches"] = row["lm_eval, same batches"] / row["ours"]
    return made
