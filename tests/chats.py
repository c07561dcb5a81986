"""Small tokenizers with chat templates of the kinds that public models have."""

from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The capital of France is Paris.",
    "Lily answers: the capital of France is Paris, and the river is the Seine.",
    "user assistant model system Who wrote it? Lily wrote it in Paris.",
    "Question: Who? Answer: Lily. I don't know. 0 1 2 3 4 5 6 7 8 9",
    "INST /INST think Nobody is here, or everybody is.\n\n",
] * 8
LETTERS = sorted({*map(chr, range(33, 127)), "\n", "▁"})


class Kind(NamedTuple):
    """A tokenizer, a template, the token that ends a turn, and what precedes and ends an answer."""

    tokenizer: Any
    end: str
    before: str


def byte_level(*special: str, eos: str | None, bos: str | None = None) -> Any:
    """Byte-level BPE, as of GPT-2: the space belongs to the token of the next word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained(tokenizer, special, alphabet)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=bos)


def sentencepiece(*special: str, eos: str = "</s>") -> Any:
    """BPE as a converted SentencePiece model: every text begins with a space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # A word begins with its space. The true library has no words and similar tokens.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trained(tokenizer, ("<unk>", *special), LETTERS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, bos_token="<s>", unk_token="<unk>"
    )


def trained(tokenizer: Any, special: tuple[str, ...], alphabet: list[str]) -> None:
    """Learn merges from the corpus; a turn's tokens are special."""
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
LLAMA = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
GEMMA = (
    "<bos>{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def with_template(tokenizer: Any, template: str) -> Any:
    """The tokenizer with a chat template."""
    tokenizer.chat_template = template
    return tokenizer


def chatml(template: str = CHATML) -> Any:
    """ChatML, whose template writes a line break after the end of a turn."""
    special = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    return with_template(byte_level(*special, eos="<|im_end|>"), template)


def zephyr() -> Any:
    """Roles in plain text and no generation prompt, with SentencePiece."""
    return with_template(sentencepiece("<s>", "</s>"), ZEPHYR)


def llama() -> Any:
    """A space before the answer and one before the end token, with SentencePiece."""
    return with_template(sentencepiece("<s>", "</s>"), LLAMA)


def gemma() -> Any:
    """A turn that does not end with the end-of-text token of the tokenizer."""
    special = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
    return with_template(byte_level(*special, eos="<eos>", bos="<bos>"), GEMMA)


KINDS = {
    "chatml": lambda: Kind(chatml(), "<|im_end|>", "<|im_start|>assistant\n"),
    "thinking": lambda: Kind(chatml(THINKING), "<|im_end|>", "<think>\n\n</think>\n\n"),
    "zephyr": lambda: Kind(zephyr(), "</s>", "<|assistant|>\n"),
    "llama": lambda: Kind(llama(), "</s>", "[/INST]"),
    "gemma": lambda: Kind(gemma(), "<end_of_turn>", "<start_of_turn>model\n"),
}
"""Each kind of template. ``before`` is the end of the prompt."""
