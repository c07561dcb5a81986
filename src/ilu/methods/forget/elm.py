"""Erasure of language memory: distil from the original model, steered towards a novice."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ilu.data.stream import counterpart
from ilu.methods.method import Method, Setup, with_contexts
from ilu.methods.retain.likelihood import HardLabels
from ilu.models.lm_head_loss import placed
from ilu.models.token_math import answered, at_least_float32, masked_mean, token_cross_entropy
from ilu.models.weight_names import in_blocks
from ilu.training.objective import Term
from ilu.types import Batch, Forward, Needs


def erased_logits(
    plain: Float[Tensor, "N V"],
    expert: Float[Tensor, "N V"],
    novice: Float[Tensor, "N V"],
    *,
    eta: Float[Tensor, " N"],
    top: int,
    temperature: float,
) -> Float[Tensor, "N V"]:
    """(log P + eta (log P_novice - log P_expert)) / temperature, restricted to its ``top`` tokens.

    arXiv 2410.02760, with the truncation and temperature of the released code.
    """
    logp, logp_expert, logp_novice = (
        at_least_float32(z).log_softmax(-1) for z in (plain, expert, novice)
    )
    steered = logp + eta.unsqueeze(-1) * (logp_novice - logp_expert)
    least = steered.topk(min(top, steered.shape[-1]), dim=-1).values[:, -1:]
    return steered.masked_fill(steered < least, -torch.inf) / temperature


@dataclass(frozen=True)
class ELM:
    """Cross-entropy to the erased prediction of the original model (arXiv 2410.02760).

    The original model reads the text alone, after an expert's introduction and after a novice's.
    ``eta`` grows linearly along the answer from 1 to its value. The paper's third term, on
    generated diversions, is omitted.
    """

    eta: float = 1000.0
    top: int = 50
    temperature: float = 1.2
    needs = Needs(reference=True, logits=9.25)

    def __call__(self, forward: Forward, reference: Forward, batch: Batch) -> Float[Tensor, " B"]:
        valid = answered(batch.labels[:, 1:])
        contexts = (batch, counterpart(batch, 0, "expert"), counterpart(batch, 1, "novice"))
        plain, expert, novice = (answer_logits(reference, b) for b in contexts)
        target = erased_logits(
            plain,
            expert,
            novice,
            eta=growing(valid, self.eta),
            top=self.top,
            temperature=self.temperature,
        )
        loss = token_cross_entropy(target, answer_logits(forward, batch))
        return masked_mean(placed(loss, valid), valid)


def answer_logits(model: Forward, batch: Batch) -> Float[Tensor, "N V"]:
    """Logits at all answer tokens, row by row. The contexts of a text differ only before them."""
    out = model(batch)
    rows = out.states[answered(out.targets)]
    return rows if out.head is None else out.head(rows)


def growing(valid: Int[Tensor, "B S"] | Tensor, stop: float) -> Float[Tensor, " N"]:
    """Linear from 1 at an answer's first token to ``stop`` at its last."""
    place = (valid.cumsum(-1) - 1).float() / (valid.sum(-1, keepdim=True) - 1).clamp_min(1)
    return (1 + (stop - 1) * place)[valid]


def elm(eta: float = 1000.0, gamma: float = 1.0) -> Setup:
    """Distil novice-like predictions (ELM, arXiv 2410.02760), without its generated diversions.

    Args:
        eta: strength of the step from the expert's to the novice's prediction.
        gamma: weight of the retain term.
    """
    retain = Term(HardLabels(), on="retain", weight=gamma)
    return Setup({"forget": Term(ELM(eta), on="forget"), "retain": retain}, pairing=with_contexts)


METHODS = {
    "elm": Method(
        elm,
        5e-5,
        750,
        "lr, eta, 3000 samples, LoRA 256 in blocks 4 to 7: released code",
        {"lora_rank": 256, "lora_alpha": 16.0, "parameters": in_blocks(range(4, 8))},
        lab={"lr": 1e-3, "eta": 1000.0, "gamma": 0.3, "steps": 250},
    ),
}
