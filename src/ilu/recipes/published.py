"""Whole published runs as recipes: model, data and every setting."""

from typing import Any

from ilu.recipes.instead import po
from ilu.recipes.plan import Method
from ilu.recipes.unlikely import graddiff, token_npo

TOFU: dict[str, Any] = {
    "model": "locuslab/tofu_ft_llama2-7b",
    "forget": ("locuslab/TOFU:forget10",),
    "retain": "locuslab/TOFU:retain90",
    "weight_decay": 0.1,
    "schedule": "linear",
}
WMDP: dict[str, Any] = {
    "model": "HuggingFaceH4/zephyr-7b-beta",
    "forget": ("bio_remove_dataset.jsonl", "cais/wmdp-corpora:cyber-forget-corpus"),
    "retain": "cais/wmdp-corpora:bio-retain-corpus",
    "truncate": 1024,
    "warmup": 50,
    "schedule": "linear",
}
WAGLE = "configuration of the released code, whose mu of 1e-6 is for sums: here it balances"
NPO_ON_MEANS = {"beta": 0.1}
"""The released code takes the ratio of the batch's token means, which token-npo is nearest to."""
PUBLISHED: dict[str, Method] = {
    "tofu-graddiff-wagle": Method(
        graddiff, 7e-6, 500, WAGLE, {**TOFU, "warmup": 50, "mask": "wagle:0.95"}
    ),
    "tofu-npo-wagle": Method(
        token_npo, 1e-5, 400, WAGLE, {**TOFU, "warmup": 40, "mask": "wagle:0.95", **NPO_ON_MEANS}
    ),
    "tofu-po-wagle": Method(po, 2e-5, 500, WAGLE, {**TOFU, "warmup": 50, "mask": "wagle:0.8"}),
    "wmdp-graddiff-wagle": Method(graddiff, 5e-6, 500, WAGLE, {**WMDP, "mask": "wagle:0.4"}),
    "wmdp-npo-wagle": Method(
        token_npo, 1e-5, 500, WAGLE, {**WMDP, "mask": "wagle:0.6", **NPO_ON_MEANS}
    ),
}
"""The five configurations of WAGLE (arXiv 2410.17509). The first forget set of those on WMDP is
given out on request only; see https://huggingface.co/datasets/cais/wmdp-corpora. The original also
keeps the cyber corpus; here the retain set is the larger one, biology."""
