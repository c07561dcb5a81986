"""Whole published runs as recipes: model, data and every setting.

What a source does not state, or what could not be read there, is said in the source of the recipe.
With ``-ilu`` or ``-control`` behind the name each takes GSM8K as its environment, 48 examples per
step; the paper says so for WMDP (arXiv 2506.01339). Its lambda, its number of steps and what w
multiplies are not stated in what we could read and no code was released: strength and reading are
then those of all recipes (``variants.Invariance``); docs/recipes.md says what speaks for them. None
was run on its model of 7B by us.
"""

from typing import Any

from ilu.recipes.hidden import adaptive_rmu, rmu
from ilu.recipes.instead import po
from ilu.recipes.method import Method
from ilu.recipes.unlikely import graddiff, npo, simnpo, token_npo

ENVIRONMENT: dict[str, Any] = {
    "environment": ("openai/gsm8k:main",),
    "environment_batch_size": 48,
}
TOFU: dict[str, Any] = {
    "model": "locuslab/tofu_ft_llama2-7b",
    "forget": ("locuslab/TOFU:forget10",),
    "retain": "locuslab/TOFU:retain90",
    "weight_decay": 0.1,
    "schedule": "linear",
    **ENVIRONMENT,
}
WMDP: dict[str, Any] = {
    "model": "HuggingFaceH4/zephyr-7b-beta",
    "forget": ("wmdp:bio-forget", "wmdp:cyber-forget"),
    "retain": "wmdp:bio-retain",
    "truncate": 1024,
    "warmup": 50,
    "schedule": "linear",
    **ENVIRONMENT,
}
"""WMDP's biology and cyber. The released code reads biology from bio_remove_dataset.jsonl; the
hub's corpus, which is given out on request, is taken for the same, as by ``ilu import-config``."""
WAGLE = "configuration of the released code, whose mu of 1e-6 is for sums: here it balances"
NPO_ON_MEANS = {"beta": 0.1}
"""The released code takes the ratio of the batch's token means, which token-npo is nearest to."""
BIO: dict[str, Any] = {
    "model": "HuggingFaceH4/zephyr-7b-beta",
    "forget": ("wmdp:bio-forget",),
    "retain": "wikitext:test",
    "truncate": 512,
    **ENVIRONMENT,
}
"""WMDP's biology on Zephyr-7B. The forget set is given out on request. The test split of WikiText
is what the released codes train on: perplexity on it is no measure of utility afterwards."""
LLAMA3 = {"model": "meta-llama/Meta-Llama-3-8B-Instruct"}
UNCLIPPED = {"clip": 1e9}
"""RMU's released code does not clip."""
SMOOTH: dict[str, Any] = {**BIO, "warmup": 12, "schedule": "linear", "seed": 1001}
NEWS: dict[str, Any] = {
    "model": "muse-bench/MUSE-news_target",
    "forget": ("muse:news:raw:forget",),
    "retain": "muse:news:raw:retain1",
    "truncate": 2048,
    "batch_size": 16,
    "micro_batch": 4,
    **ENVIRONMENT,
}
"""MUSE on Llama-2-7B. The original cuts the corpus into pieces of 2048 tokens; here each document
is cut once, and what is behind its 2048th token is not seen."""
BOOKS: dict[str, Any] = {
    **NEWS,
    "model": "muse-bench/MUSE-books_target",
    "forget": ("muse:books:raw:forget",),
    "retain": "muse:books:raw:retain1",
}
"""MUSE on ICLM-7B."""
RMU = "lr, alpha, coefficient, layer, 150 batches, 512 tokens, no clipping: WMDP notebook"
NPO = "lr, gamma, 125 steps, schedule, seed: scripts of 2502.05374"
ON_LLAMA3 = "settings of Zephyr-7B; those for Llama-3-8B were not found: unverified"
ON_MUSE = "lr, batch, 2048 tokens: 2502.05374 on MUSE; beta ours, its code compares raw logits"
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
    "wmdp-rmu": Method(rmu, 5e-5, 150, RMU, {**BIO, **UNCLIPPED, "seed": 42}),
    "wmdp-npo": Method(
        token_npo, 5e-6, 125, f"{NPO}, beta of the batch's token mean", {**SMOOTH, "beta": 0.0225}
    ),
    "wmdp-simnpo": Method(
        simnpo,
        9.5e-6,
        125,
        "lr, beta, gamma: released code; forget weight, 125 steps and the rest as wmdp-npo",
        {**SMOOTH, "beta": 0.1, "forget_weight": 1.0},
    ),
    "wmdp-rmu-llama3": Method(
        adaptive_rmu,
        5e-5,
        500,
        f"README of adaptive RMU, whose length of the steering vector fits any model; {ON_LLAMA3}",
        {**BIO, **UNCLIPPED, **LLAMA3},
    ),
    "wmdp-npo-llama3": Method(
        token_npo, 5e-6, 125, f"{NPO}; {ON_LLAMA3}", {**SMOOTH, **LLAMA3, "beta": 0.0225}
    ),
    "muse-news-npo": Method(npo, 1e-5, 1020, f"{ON_MUSE}; 10 epochs", {**NEWS, "beta": 3e-3}),
    "muse-books-npo": Method(npo, 1e-5, 139, f"{ON_MUSE}; 1 epoch", {**BOOKS, "beta": 3e-3}),
    "muse-news-rmu": Method(
        rmu, 5e-5, 150, "all settings of WMDP: not published for MUSE, unverified",
        {**NEWS, **UNCLIPPED, "batch_size": 4, "truncate": 512},
    ),
    "muse-books-rmu": Method(
        rmu, 5e-5, 150, "all settings of WMDP: not published for MUSE, unverified",
        {**BOOKS, **UNCLIPPED, "batch_size": 4, "truncate": 512},
    ),
}  # fmt: skip
"""The five configurations of WAGLE (arXiv 2410.17509), then the settings of the experiments of ILU
(arXiv 2506.01339). WAGLE's original also keeps the cyber corpus; here the retain set is the larger
one, biology."""
