"""The unlearning methods as objectives, with the settings that a user may change as arguments.

Each is a function in ``unlikely``, ``instead``, ``hidden`` or ``weights``, and its name here is its
recipe name. What may stand behind it (``-ilu``, ``-sam``, ...) comes from ``variants``. A new
method is one more function and one more row.
"""

from ilu.recipes.hidden import adaptive_rmu, circuit_breakers, in_blocks, repnoise, rmu
from ilu.recipes.instead import ceu, dpo, elm, jensun, po, random_labels, undial, whp
from ilu.recipes.method import Method
from ilu.recipes.published import PUBLISHED
from ilu.recipes.unlikely import (
    ascent,
    divergence,
    entropy,
    graddiff,
    kl,
    npo,
    pdu,
    satimp,
    simnpo,
    token_npo,
    wga,
)
from ilu.recipes.weights import finetune, l1_sparse, task_vector

WMDP = "125 steps: arXiv 2502.05374 on WMDP"
METHODS: dict[str, Method] = {
    "ascent": Method(ascent, 1e-5, 125, f"lr: TOFU; {WMDP}; unbounded, stop early"),
    "graddiff": Method(graddiff, 1e-5, 125, f"lr and gamma: TOFU; {WMDP}; unbounded, stop early"),
    "kl": Method(kl, 1e-5, 125, f"lr: TOFU; {WMDP}; unbounded, stop early"),
    "divergence": Method(divergence, 1e-5, 125, "ours; WAGLE leaves gamma to the user"),
    "npo": Method(npo, 1e-5, 125, f"lr, beta and gamma: TOFU runs of the authors; {WMDP}"),
    "token-npo": Method(token_npo, 1e-5, 125, "ours"),
    "simnpo": Method(simnpo, 1e-5, 125, "TOFU forget10 runs of the authors"),
    "dpo": Method(dpo, 1e-5, 125, "lr and beta: TOFU"),
    "po": Method(po, 1e-5, 125, "lr and gamma: TOFU; WAGLE has lr 2e-5"),
    "jensun": Method(jensun, 8e-6, 125, "lr and weights: released code"),
    "random-labels": Method(random_labels, 1e-5, 125, "ours"),
    "undial": Method(undial, 1e-4, 125, "lr and beta: open-unlearning"),
    "wga": Method(wga, 1e-5, 125, "beta: open-unlearning"),
    "satimp": Method(satimp, 1e-5, 125, "powers and weights: open-unlearning"),
    "ceu": Method(ceu, 1e-5, 125, "skip: open-unlearning"),
    "pdu": Method(pdu, 1e-5, 125, "all: MUSE News; choose the limit by the retain loss"),
    "entropy": Method(entropy, 2e-5, 125, "lr: TAR"),
    "rmu": Method(rmu, 5e-5, 150, "lr, alpha, coefficient, layer, 150 batches: WMDP notebook"),
    "adaptive-rmu": Method(adaptive_rmu, 5e-5, 500, "lr, alpha, scale, 500 batches: README"),
    "circuit-breakers": Method(
        circuit_breakers,
        1e-4,
        150,
        "scripts: LoRA 16 in blocks 0 to 20, batch 16",
        {"lora_rank": 16, "batch_size": 16, "parameters": in_blocks(range(21))},
    ),
    "elm": Method(
        elm,
        5e-5,
        750,
        "lr, eta, 3000 samples, LoRA 256 in blocks 4 to 7: released code",
        {"lora_rank": 256, "lora_alpha": 16.0, "parameters": in_blocks(range(4, 8))},
    ),
    "repnoise": Method(repnoise, 1e-4, 125, "lr, alpha, beta: released demo"),
    "task-vector": Method(task_vector, 1e-5, 125, "lr: MUSE, which searches alpha in 1 to 16"),
    "whp": Method(whp, 3e-6, 512, "512 steps: model card; lr and alpha from memory"),
    "finetune": Method(finetune, 1e-5, 125, "ours"),
    "l1-sparse": Method(l1_sparse, 1e-5, 125, "ours"),
    **PUBLISHED,
}
"""Recipe name -> method."""
