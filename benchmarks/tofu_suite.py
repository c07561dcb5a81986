"""TOFU's metrics from one reading of each answer, against one pass per metric.

    ILU_HUB=../shared/hub python benchmarks/tofu_suite.py ../shared/models/stories260k

A few minutes on one core; writes benchmarks/results/tofu_suite.json. Both sides use the same
functions, batch size, data and number of generated tokens, take turns in one process, and must give
the same scores. One pass per metric reads for each metric the answers that this metric needs, as
evaluations do that keep nothing between metrics; it generates for ROUGE and again for refusals.
The smallest time of several rounds counts.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ilu.evals.metrics.answer_logprobs import AnswerTokens, read_answers, words_of
from ilu.evals.metrics.generation import continuations
from ilu.evals.metrics.memorisation import exact_memorisation, extraction_strength, probability
from ilu.evals.metrics.refusal import refuses
from ilu.evals.metrics.rouge import rouge_l
from ilu.evals.metrics.tofu import (
    Answers,
    Replies,
    closeness,
    truth_ratio_arithmetic,
    truth_ratio_geometric,
)
from ilu.evals.score import mean_score
from ilu.models.load import load_model
from ilu.recipes.suite import suite_of
from ilu.recipes.suite_request import SuiteRequest
from ilu.system.atomic import write_json
from ilu.system.provenance import environment
from ilu.types import LM, Example

RESULTS = Path(__file__).parent / "results" / "tofu_suite.json"
QUESTIONS, NEW_TOKENS, ROUNDS = 50, 50, 5


def one_reading(part: Answers, replies: Replies, lm: LM) -> dict[str, float]:
    """The suite as it is."""
    return {name: score.value for each in (part, replies) for name, score in each(lm).items()}


def pass_per_metric(part: Answers, replies: Replies, lm: LM) -> dict[str, float]:
    """The same scores, each from its own passes over the data."""
    examples = part.source(lm.tokenizer)
    plain: dict[str, Callable[[], list[float | None]]] = {
        "probability": lambda: [probability(r.logp) for r in read(part, lm, examples)],
        "truth_ratio": lambda: [*ratios(part, lm, examples, truth_ratio_geometric)],
        "truth_ratio_arithmetic": lambda: [*ratios(part, lm, examples, truth_ratio_arithmetic)],
        "truth": lambda: [
            closeness(ratio) for ratio in ratios(part, lm, examples, truth_ratio_geometric)
        ],
        "exact_memorisation": lambda: [
            exact_memorisation(words_of(r, e).first)
            for r, e in zip(read(part, lm, examples), examples, strict=True)
        ],
        "extraction_strength": lambda: [
            extraction_strength(words_of(r, e).first)
            for r, e in zip(read(part, lm, examples), examples, strict=True)
        ],
        "rouge": lambda: rouge(replies, lm, examples),
        "refusals": lambda: [float(refuses(text)) for text in said(replies, lm, examples)],
    }
    return {f"{part.name}_{name}": mean_score(items()).value for name, items in plain.items()}


def read(part: Answers, lm: LM, examples: Sequence[Example]) -> list[AnswerTokens]:
    """A pass over some answers."""
    return read_answers(lm, examples, batch_size=part.batch_size, name="tofu")


def ratios(
    part: Answers, lm: LM, examples: Sequence[Example], ratio: Callable[[float, list[float]], float]
) -> list[float]:
    """A pass over the paraphrases, and one over the wrong answers."""
    right = read(part, lm, [e.others[0] for e in examples])
    wrong = iter(read(part, lm, [o for e in examples for o in e.others[1:]]))
    means = [[mean(next(wrong)) for _ in e.others[1:]] for e in examples]
    return [ratio(mean(r), w) for r, w in zip(right, means, strict=True)]


def mean(read: AnswerTokens) -> float:
    """Mean log-probability per token."""
    return read.logp.double().mean().item()


def said(part: Replies, lm: LM, examples: Sequence[Example]) -> list[str]:
    """A generation."""
    heads = [e.ids[: e.prompt] for e in examples]
    new, size = part.max_new_tokens, part.batch_size
    return continuations(lm, heads, max_new_tokens=new, batch_size=size)


def rouge(part: Replies, lm: LM, examples: Sequence[Example]) -> list[float | None]:
    """ROUGE-L recall of a generation of its own."""
    decode = lm.tokenizer.decode
    true = [decode(e.ids[e.prompt :], skip_special_tokens=True) for e in examples]
    pairs = zip(true, said(part, lm, examples), strict=True)
    found = [rouge_l(t, s, stem=True) for t, s in pairs]
    return [None if r is None else r.recall for r in found]


def seconds(work: Callable[[], Mapping[str, float]]) -> tuple[float, Mapping[str, float]]:
    """CPU time of one round, which other processes disturb less than the clock on the wall."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main(model: str) -> None:
    """Measure in turns, compare, write."""
    torch.set_num_threads(1)
    lm = load_model(model)
    parts: Any = suite_of("tofu", SuiteRequest(limit=QUESTIONS)).parts
    part = parts["forget"]
    replies = replace(parts["forget_replies"], max_new_tokens=NEW_TOKENS)
    ours: list[float] = []
    theirs: list[float] = []
    scores = one_reading(part, replies, lm)
    for _ in range(ROUNDS):
        took, mine = seconds(lambda: one_reading(part, replies, lm))
        ours.append(took)
        took, other = seconds(lambda: pass_per_metric(part, replies, lm))
        theirs.append(took)
        for found in (mine, other):
            assert all(abs(found[n] - v) < 1e-4 * max(1, abs(v)) for n, v in scores.items())
    ratio = min(theirs) / min(ours)
    print(
        f"one reading {min(ours):.2f} s, a pass per metric {min(theirs):.2f} s: {ratio:.2f} times"
    )
    record = {
        "command": "python benchmarks/tofu_suite.py ../shared/models/stories260k",
        "data": f"TOFU forget10_perturbed, {QUESTIONS} questions, {NEW_TOKENS} new tokens",
        "cpu_seconds": {"one_reading": ours, "pass_per_metric": theirs},
        "ratio_of_minima": ratio,
        "scores": scores,
        "environment": {**environment(), "argv": None},
    }
    write_json(RESULTS, record)


if __name__ == "__main__":
    main(sys.argv[1])
