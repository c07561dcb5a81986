"""Verbatim reproduction of known text, such as text under copyright."""

from collections.abc import Mapping
from dataclasses import dataclass

from ilu.data.splits import limited
from ilu.evals.metrics.answer_logprobs import read_answers, words_of
from ilu.evals.metrics.generation import continuations
from ilu.evals.metrics.memorisation import exact_memorisation, extraction_strength
from ilu.evals.metrics.refusal import refuses
from ilu.evals.metrics.rouge import BLEU_UNREAD, ROUGE_UNREAD, bleu, rouge_l
from ilu.evals.score import mean_score, scored
from ilu.system.checks import check_limit
from ilu.system.scores import Score
from ilu.types import LM, Example, Source


@dataclass(frozen=True)
class Verbatim:
    """ROUGE-L recall, sentence BLEU, memorisation and refusals on continuations of known texts.

    The model continues greedily from each prompt, or from the first half of a text without one. The
    continuation has as many tokens as the rest of the text, at most ``max_new_tokens``.
    Memorisation is measured on the same tokens under teacher forcing.
    """

    source: Source
    limit: int | None = None
    max_new_tokens: int = 200
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def __call__(self, lm: LM) -> Mapping[str, Score]:
        examples = [self.halved(e) for e in limited(self.source(lm.tokenizer), self.limit)]
        generated = self.continued(lm, examples)
        true = [lm.tokenizer.decode(e.words, skip_special_tokens=True) for e in examples]
        rouge = [rouge_l(t, s, stem=True) for t, s in zip(true, generated, strict=True)]
        read = read_answers(lm, examples, batch_size=self.batch_size, name="`data`")
        firsts = [words_of(r, e).first for r, e in zip(read, examples, strict=True)]
        recalls = [None if r is None else r.recall for r in rouge]
        bleus = [bleu(t, s) for t, s in zip(true, generated, strict=True)]
        items = {
            "exact_memorisation": [exact_memorisation(first) for first in firsts],
            "extraction_strength": [extraction_strength(first) for first in firsts],
            "refusals": [float(refuses(text)) for text in generated],
        }
        return {
            **scored("verbatim_rouge", recalls, ROUGE_UNREAD),
            **scored("verbatim_bleu", bleus, BLEU_UNREAD),
            **{f"verbatim_{name}": mean_score(values) for name, values in items.items()},
        }

    def halved(self, example: Example) -> Example:
        """The example with a prompt, cut to the tokens that are generated."""
        prompt = example.prompt or max(1, len(example.ids) // 2)
        return example._replace(prompt=prompt).cut(prompt + self.max_new_tokens)

    def continued(self, lm: LM, examples: list[Example]) -> list[str]:
        """The continuation of each prompt, as long as the true one."""
        heads = [e.ids[: e.prompt] for e in examples]
        longest = max((len(e.ids) - e.prompt for e in examples), default=1)
        generated = continuations(lm, heads, max_new_tokens=longest, batch_size=self.batch_size)
        return [shorten(text, e, lm) for text, e in zip(generated, examples, strict=True)]


def shorten(text: str, example: Example, lm: LM) -> str:
    """A text cut to the number of tokens after the example's prompt."""
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids
    kept = ids[: len(example.ids) - example.prompt]
    return text if len(kept) == len(ids) else lm.tokenizer.decode(kept)
