"""What a model says to a few questions: the option that it picks, and how it goes on by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from ilu.data.multiple_choice import spread
from ilu.evals.metrics.generation import generate
from ilu.evals.metrics.multiple_choice import Choice, ChoiceReport, option_logps, picked
from ilu.evals.suite import Suite
from ilu.models.blocks import context_length
from ilu.types import LM, Group, Metric, Question

COUNT, TOKENS = 12, 24
"""Questions of a sample, and the most new tokens of an answer."""


def samples(lm: LM, questions: Sequence[Question], count: int = COUNT) -> list[dict[str, Any]]:
    """One record for each of ``count`` questions, spread over all.

    ``value`` is 1 if the right option was picked, ``generated`` the greedy continuation.
    """
    chosen = spread(questions, count)
    picks = picked(option_logps(lm, chosen, batch_size=COUNT))
    texts = continued(lm, [q.prompt for q in chosen])
    return [
        {
            "prompt": q.prompt,
            "options": list(q.options),
            "answer": q.answer,
            "picked": pick,
            "generated": text,
            "value": None if None in (pick, q.answer) else int(pick == q.answer),
        }
        for q, pick, text in zip(chosen, picks, texts, strict=True)
    ]


def continued(lm: LM, prompts: Sequence[str]) -> list[str]:
    """How the model goes on; an empty text where its context leaves no room."""
    limit = context_length(lm.model)
    lengths = [len(ids) for ids in lm.tokenizer(list(prompts)).input_ids]
    fits = [limit is None or length + TOKENS <= limit for length in lengths]
    kept = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
    texts = iter(generate(lm, kept, max_new_tokens=TOKENS) if kept else [])
    return [next(texts) if fit else "" for fit in fits]


def questions_of(metrics: Mapping[str, Metric | Group], name: str) -> list[Question]:
    """The questions of the metric that is stored as ``name``; empty if it has none."""
    parts = {**metrics}
    for each in metrics.values():
        parts |= each.parts if isinstance(each, Suite) else {}
    found = parts.get(name) or parts.get(name.removesuffix("_acc"))
    return found.questions() if isinstance(found, Choice | ChoiceReport) else []
