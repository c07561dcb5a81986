"""A model with fewer embeddings than its tokenizer has tokens: an error that names the token."""

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class KnownIds:
    """A hook before the embedding: ValueError for an id that it does not have.

    Without it the CPU raises an ``IndexError``, and a GPU ends the process.
    """

    tokenizer: Any
    rows: int

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not inputs or not inputs[0].numel():
            return
        most = int(inputs[0].max())
        if most >= self.rows:
            token = self.tokenizer.convert_ids_to_tokens(most)
            raise ValueError(
                f"the text has the token {token!r} with id {most}, but the model has embeddings of "
                f"{self.rows} tokens: tokenizer and model do not belong together, or the "
                "embeddings were not extended for added tokens"
            )


def check_ids(model: Any, tokenizer: Any) -> None:
    """Check the ids of every text, where the tokenizer has more tokens than the model.

    Often they are never used, such as a padding token, so the model itself is not refused.
    """
    embedding = model.get_input_embeddings()
    weight = getattr(embedding, "weight", None)  # another module may embed without a table
    if weight is not None and len(tokenizer) > len(weight):
        embedding.register_forward_pre_hook(KnownIds(tokenizer, len(weight)))
