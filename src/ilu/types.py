"""The nouns of the package. Everything else is a function between them.

Shape letters: B examples, T tokens, S = T - 1 predictions, V vocabulary, D hidden width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Head(NamedTuple):
    """The output layer of a model: logits are a linear map of its last hidden states.

    Then they are multiplied by ``scale`` (Cohere, Granite) and softly capped at ``cap`` (Gemma).
    ``dtype`` is that of the product, where it is not that of the weight, as under autocast.
    """

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    cap: float | None = None
    dtype: torch.dtype | None = None

    def __call__(self, states: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        dtype = self.dtype or self.weight.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        z = F.linear(states.to(dtype), self.weight.to(dtype), bias)
        z = z if self.scale == 1 else z * self.scale
        return z if self.cap is None else self.cap * (z / self.cap).tanh()


@dataclass(frozen=True)
class Outputs:
    """What a model predicts on a batch: ``logits[:, s]`` predicts ``targets[:, s]``.

    Made from the states before the output layer, and only where a loss asks for them: of all B S V
    logits most losses need little. Without a ``head``, ``states`` are the logits.
    """

    states: Float[Tensor, "B S D"]
    targets: Int[Tensor, "B S"]
    head: Head | None = None

    @property
    def logits(self) -> Float[Tensor, "B S V"]:
        """Of every position."""
        return self.states if self.head is None else self.head(self.states)

    @property
    def vocabulary(self) -> int:
        """How many logits there are at a position."""
        return self.states.shape[-1] if self.head is None else len(self.head.weight)


@dataclass(frozen=True)
class Tokens:
    """Log-probability of each target token and entropy of its prediction, in nats.

    Both are 0 where a target does not count; the entropy is there if it was asked for.
    """

    logp: Float[Tensor, "B S"]
    valid: Bool[Tensor, "B S"]
    entropies: Float[Tensor, "B S"] | None = None

    @property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of each prediction."""
        assert self.entropies is not None, "entropy was not asked for"
        return self.entropies

    def sum(self) -> Float[Tensor, " B"]:
        """Log-probability of each whole answer."""
        return self.logp.sum(-1)

    def mean(self) -> Float[Tensor, " B"]:
        """Log-probability per answer token, averaged within each example."""
        return self.logp.sum(-1) / self.valid.sum(-1).clamp_min(1)


IGNORE = -100
"""Label of a position that takes no part in any loss (the PyTorch convention)."""


class Example(NamedTuple):
    """One tokenized example; the first ``prompt`` ids take no loss.

    ``others`` are its counterparts, for losses that compare: a refusal of the same question, the
    same text in another context.
    """

    ids: list[int]
    prompt: int
    others: tuple["Example", ...] = ()


@dataclass(frozen=True)
class Batch:
    """Token ids of B examples; ``labels`` copies them with prompt and padding at IGNORE.

    ``others`` hold the counterparts of the examples, row by row.
    """

    input_ids: Int[Tensor, "B T"]
    attention_mask: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    others: tuple["Batch", ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device) -> "Batch":
        """Copy all tensors to ``device``."""
        parts = (self.input_ids, self.attention_mask, self.labels)
        others = tuple(other.to(device) for other in self.others)
        return Batch(*(part.to(device) for part in parts), others=others)


class Question(NamedTuple):
    """A multiple-choice question; ``options[answer]`` is right, options begin with their space.

    ``answer`` is None where nobody says which is right. ``contexts``, where given, has for each
    option a text of its own to stand in place of the prompt (WinoGrande).
    """

    prompt: str
    options: tuple[str, ...]
    answer: int | None
    contexts: tuple[str, ...] = ()

    def context(self, option: int) -> str:
        """What option number ``option`` is scored after."""
        return self.contexts[option] if self.contexts else self.prompt


class LM(NamedTuple):
    """A model and the tokenizer it was trained with."""

    model: nn.Module
    tokenizer: Any


Weights = Mapping[str, Float[Tensor, "..."]]
Mask = Mapping[str, Bool[Tensor, "..."]]
"""Weight name -> True where the weight may move."""


@runtime_checkable
class Forward(Protocol):
    """A model as the losses see it."""

    def __call__(self, batch: Batch) -> Outputs:
        """Return predictions; gradients flow unless this is the frozen reference."""
        ...

    def tokens(self, batch: Batch, *, entropy: bool = False) -> Tokens:
        """Return the log-probabilities of the targets; no more logits exist than a block of them.

        The reference remembers them: it reads a text once.
        """
        ...

    def hidden(self, batch: Batch, layer: int) -> Float[Tensor, "B T D"]:
        """Return the output of decoder block ``layer`` (0 is the first); later blocks do not run.

        Unlike the last entry of Hugging Face's ``hidden_states``, no final norm is applied.
        """
        ...

    def shifted(self, layer: int, by: Float[Tensor, "B T D"], batch: Batch) -> "Forward":
        """Return the same model with ``by`` added to the output of block ``layer`` on ``batch``.

        Other batches, such as counterparts, are read as they are.
        """
        ...


@runtime_checkable
class Loss(Protocol):
    """One value per example. Forget, retain and invariance losses all have this type.

    The value of an example may not depend on the others in its batch, so that splitting a batch
    into micro-batches changes nothing.
    """

    needs_reference: ClassVar[bool]

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        """Return the loss of each example; the objective takes the mean and the weight."""
        ...


Params = Sequence[nn.Parameter]
Grads = tuple[Tensor, ...]


class Slope(NamedTuple):
    """Value and gradient of one term over its whole batch."""

    value: float
    grads: Grads


GradHere = Callable[[], Slope]
"""The current term at the current weights."""
GradOf = Callable[[Loss, str], Slope]
"""Any other loss, on a fresh batch of any stream."""


@runtime_checkable
class GradRule(Protocol):
    """Turns the gradient of a term into the one to follow: taken nearby, squared, after an attack.

    ``here`` covers the whole batch, micro-batches included, so a rule that is not linear in the
    gradient (SAM, every invariance penalty) sees one gradient and not several noisy ones. ``step``
    counts the optimiser's steps from 0; a rule that draws random numbers seeds them with it.

    A rule with a ``power`` is the gradient of the mean loss to that power: such terms may share one
    backward pass. The others, with None, need a gradient of their own. ``reads`` names the streams
    that the rule draws from, besides that of its term.
    """

    power: ClassVar[int | None]

    def reads(self) -> tuple[str, ...]:
        """Return the names of the further streams."""
        ...

    def __call__(self, params: Params, here: GradHere, grad_of: GradOf, step: int) -> Slope:
        """Return the value and gradient to use; leave ``params`` bit-identical."""
        ...


@runtime_checkable
class Edit(Protocol):
    """Weight arithmetic after training."""

    def __call__(self, params: Params, original: Sequence[Tensor]) -> None:
        """Change ``params`` in place, given what they were before training."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where examples come from: a dataset plus how its rows become tokens."""

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        """Return the tokenized examples, in a fixed order."""
        ...


@runtime_checkable
class Questions(Protocol):
    """Where multiple-choice questions come from."""

    def __call__(self) -> list[Question]:
        """Return the questions, in a fixed order."""
        ...


class Score(NamedTuple):
    """A metric's value with its standard error over ``n`` items, and the value of each item.

    An item that cannot be scored is None and takes no part in value, error and ``n``; ``unscored``
    counts them. ``chance`` is the value that guessing at random gives; None if it is unknown.
    """

    value: float
    stderr: float
    n: int
    items: tuple[float | None, ...] = ()
    unscored: int = 0
    chance: float | None = None


@runtime_checkable
class Metric(Protocol):
    """Measure a model. Pure: the same model gives the same score."""

    higher_is_better: ClassVar[bool]

    def __call__(self, lm: LM) -> Score:
        """Score ``lm.model``."""
        ...


@runtime_checkable
class Group(Protocol):
    """Several metrics that share their work, such as one forward pass. Pure, like a metric."""

    def __call__(self, lm: LM) -> Mapping[str, Score]:
        """Score ``lm.model``, by name of the metric."""
        ...


STAGES = {"quarter": 0.25, "half": 0.5, "end": 1.0}
"""Where robust accuracy is measured: after these shares of an attack (arXiv 2506.01339)."""
Reached = Callable[[str], None]
"""Called by an attack at stages of ``STAGES``, each ``step N`` between, and always at the end."""
Steps = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""
Progress = Callable[[str, int, int], None]
"""The same with the name of the piece of work in front."""


@runtime_checkable
class Attack(Protocol):
    """An adversary: edits a model's weights, knowing nothing of how it was unlearned."""

    @property
    def goals(self) -> Mapping[str, Metric | Group]:
        """What the adversary itself is after, measured at the end of the attack."""
        ...

    @property
    def steps(self) -> int:
        """How many steps it takes, to tell the time left."""
        ...

    def data(self, lm: LM) -> Sequence[Example]:
        """Return what it trains on; raise ValueError if the model cannot take it."""
        ...

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        """Attack ``lm.model`` in place."""
        ...
