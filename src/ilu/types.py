"""The core types of the package, and the protocols of its parts.

Shape letters: B examples, T tokens, S = T - 1 predictions, V vocabulary, D hidden width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ilu.system.scores import Reached, Score, Steps


class Head(NamedTuple):
    """The output layer of a model: logits are a linear map of its last hidden states.

    The logits are then multiplied by ``scale`` (Cohere, Granite) and softly capped at ``cap``
    (Gemma). ``dtype`` is that of the matrix product; None means that of the weight. They differ
    under autocast.
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
    """Predictions of a model on a batch: ``logits[:, s]`` predicts ``targets[:, s]``.

    The logits are computed on access from ``states``, the hidden states before the output layer,
    since most losses need only few of the B S V logits. Without a ``head``, ``states`` are the
    logits.
    """

    states: Float[Tensor, "B S D"]
    targets: Int[Tensor, "B S"]
    head: Head | None = None

    @property
    def logits(self) -> Float[Tensor, "B S V"]:
        """The logits of every position."""
        return self.states if self.head is None else self.head(self.states)

    @property
    def vocabulary(self) -> int:
        """The number of logits per position."""
        return self.states.shape[-1] if self.head is None else len(self.head.weight)


@dataclass(frozen=True)
class Tokens:
    """Log-probability of each target token and entropy of its prediction, in nats.

    Both are 0 where ``valid`` is false. ``entropies`` is None unless it was requested.
    """

    logp: Float[Tensor, "B S"]
    valid: Bool[Tensor, "B S"]
    entropies: Float[Tensor, "B S"] | None = None

    @property
    def entropy(self) -> Float[Tensor, "B S"]:
        """Entropy of each prediction."""
        assert self.entropies is not None, "entropy was not requested"
        return self.entropies

    def sum(self) -> Float[Tensor, " B"]:
        """Log-probability of each full answer."""
        return self.logp.sum(-1)

    def mean(self) -> Float[Tensor, " B"]:
        """Log-probability per answer token, averaged within each example."""
        return self.logp.sum(-1) / self.valid.sum(-1).clamp_min(1)


IGNORE = -100
"""Label of a position without a loss (the PyTorch convention)."""


class Example(NamedTuple):
    """One tokenized example; the first ``prompt`` ids have no loss.

    ``others`` are its counterparts for losses that compare texts, such as a refusal of the same
    question or the same text in another context. The last ``end`` ids close the answer, such as an
    end-of-text token: they have a loss in training and are no words of the answer.
    """

    ids: list[int]
    prompt: int
    others: tuple["Example", ...] = ()
    end: int = 0

    @property
    def words(self) -> list[int]:
        """The ids of the answer without its end."""
        return self.ids[self.prompt : len(self.ids) - self.end]

    def without_end(self) -> "Example":
        """The example without counterparts, up to the last word of its answer."""
        return Example(self.ids[: len(self.ids) - self.end], self.prompt)

    def cut(self, length: int | None) -> "Example":
        """The first ``length`` ids, without counterparts."""
        ids = self.ids[:length]
        return Example(ids, self.prompt, end=max(0, self.end - (len(self.ids) - len(ids))))


@dataclass(frozen=True)
class Batch:
    """Token ids of B examples; ``labels`` copies them with prompt and padding at IGNORE.

    ``others`` are the counterparts of the examples, row by row.
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
    """A multiple-choice question; ``options[answer]`` is right. Options begin with a space.

    ``answer`` is None if the right option is unknown. ``contexts`` optionally has a separate prompt
    for each option (WinoGrande).
    """

    prompt: str
    options: tuple[str, ...]
    answer: int | None
    contexts: tuple[str, ...] = ()

    def context(self, option: int) -> str:
        """The text after which option number ``option`` is scored."""
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
    """The interface of a model for losses."""

    def __call__(self, batch: Batch) -> Outputs:
        """Return predictions; gradients flow unless this is the frozen reference."""
        ...

    def tokens(self, batch: Batch, *, entropy: bool = False) -> Tokens:
        """Return the log-probabilities of the targets, computing logits block by block.

        The reference caches them, so it reads each text once.
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


class Needs(NamedTuple):
    """What a loss reads of the models: training copies the reference for it, and memory is planned.

    The defaults are those of a loss on ``forward.tokens(batch)`` alone.

    Args:
        reference: it reads the original model.
        entropy: it reads the entropies of the predictions.
        logits: copies of the logits of one text that exist at once, 0 if it reads none.
        chunked: it reads logits by ``per_token``, which makes those of a chunk at a time.
        texts: texts of an example that the model reads up to its output layer, counterparts too.
        blocks: decoder blocks whose output it reads, each in a forward pass of its own.
    """

    reference: bool = False
    entropy: bool = False
    logits: float = 0.0
    chunked: bool = False
    texts: int = 1
    blocks: tuple[int, ...] = ()


@runtime_checkable
class Loss(Protocol):
    """One value per example. Forget, retain and invariance losses all have this type.

    The value of an example may not depend on the others in its batch, so that splitting a batch
    into micro-batches changes nothing. ``needs`` may be a class attribute or a property.
    """

    @property
    def needs(self) -> Needs:
        """What it reads of the models."""
        ...

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        """Return the loss of each example; the objective takes the mean and the weight."""
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A loss with settings that may be None: they are then chosen for a model and its data."""

    def calibrated(self, forward: Forward, batch: Batch) -> tuple[Loss, str]:
        """Return the loss with every setting chosen, and a sentence with the values and the rule.

        The sentence is empty if nothing had to be chosen. ``batch`` is of the term's own stream.
        """
        ...


@runtime_checkable
class Cautious(Protocol):
    """A loss that knows when its settings do not suit a model."""

    def caution(self, forward: Forward, batch: Batch) -> str:
        """Return what will go wrong, with a setting that would do; empty if nothing will."""
        ...


Params = Sequence[nn.Parameter]
Grads = tuple[Tensor, ...]


class Slope(NamedTuple):
    """Value and gradient of one term over its whole batch."""

    value: float
    grads: Grads


@runtime_checkable
class GradHere(Protocol):
    """The value and gradient of the current term at the current weights."""

    def __call__(self, onto: Grads | None = None) -> Slope:
        """With ``onto``, add the gradient to these tensors in place, which saves a copy."""
        ...


GradOf = Callable[[Loss, str], Slope]
"""Any other loss, on a fresh batch of any stream."""


class Copies(NamedTuple):
    """Gradients of all weights that exist at once while a rule works; memory is planned by them.

    Copies of the weights and states of an inner optimiser count, as they are as large.

    Args:
        most: at the worst moment, the gradient that it returns included.
        at_own: before the rule takes the gradient of its own term, at most.
        at_other: the same for the gradient of another loss.
        added: 1 if the gradient of its own term is added to one that exists before that pass.
    """

    most: int
    at_own: int = 0
    at_other: int = 0
    added: int = 0


@runtime_checkable
class GradRule(Protocol):
    """Computes the gradient to follow for a term, such as that at perturbed weights.

    ``here`` returns the gradient over the full batch, summed over micro-batches. So a rule that is
    not linear in the gradient (SAM, every invariance penalty) gets one gradient and not several
    noisy ones. ``step`` is the optimiser step, from 0; a rule uses it to seed random numbers.

    A rule with a ``power`` computes the gradient of the mean loss to that power; such terms may
    share one backward pass. A rule with None needs a separate gradient. ``reads`` returns the
    further streams that the rule draws from. ``power`` and ``copies`` may be class
    attributes or properties.
    """

    @property
    def power(self) -> int | None:
        """The power of the mean loss whose gradient this is."""
        ...

    @property
    def copies(self) -> Copies:
        """The gradients that it keeps at the same time."""
        ...

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
        """Change ``params`` in place; ``original`` are their values before training."""
        ...


@runtime_checkable
class Source(Protocol):
    """A source of examples: a dataset and the tokenization of its rows."""

    def __call__(self, tokenizer: Any) -> Sequence[Example]:
        """Return the tokenized examples, in a fixed order."""
        ...


@runtime_checkable
class Questions(Protocol):
    """A source of multiple-choice questions."""

    def __call__(self) -> list[Question]:
        """Return the questions, in a fixed order."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Measure a model. Pure: the same model gives the same score."""

    higher_is_better: ClassVar[bool]

    def __call__(self, lm: LM) -> Score:
        """Score ``lm.model``."""
        ...


@runtime_checkable
class Group(Protocol):
    """Several metrics that share computation, such as one forward pass. Pure, like a metric."""

    def __call__(self, lm: LM) -> Mapping[str, Score]:
        """Score ``lm.model``, by name of the metric."""
        ...


@runtime_checkable
class Attack(Protocol):
    """An adversary that changes a model's weights, without knowledge of the unlearning method."""

    @property
    def goals(self) -> Mapping[str, Metric | Group]:
        """Metrics of the adversary's own goals, measured at the end of the attack."""
        ...

    @property
    def steps(self) -> int:
        """The number of steps, for the progress display."""
        ...

    def data(self, lm: LM) -> Sequence[Example]:
        """Return the training examples; raise ValueError if they do not fit the model."""
        ...

    def __call__(self, lm: LM, *, reached: Reached, progress: Steps) -> None:
        """Attack ``lm.model`` in place."""
        ...
