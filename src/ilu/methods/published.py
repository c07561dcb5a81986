"""Models, data and settings of published experiments, which several methods share.

The ``source`` of each method lists the settings that its publication does not state. With ``-ilu``
or ``-control`` the environment is GSM8K with 48 examples per step, as in the paper for WMDP (arXiv
2506.01339). The text that we could read does not state lambda, the number of steps or what w
multiplies, and no code was released; strength and reading are the defaults of ``-ilu``. None of
these experiments was run on its 7B model.
"""

from typing import Any

WMDP_STEPS = "125 steps: arXiv 2502.05374 on WMDP"
ON_LLAMA3 = "settings of Zephyr-7B; those for Llama-3-8B were not found: unverified"
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
"""WMDP's biology and cyber. The released code reads biology from bio_remove_dataset.jsonl; we
assume that the gated corpus of the hub is the same, as does ``ilu import-config``."""
WAGLE = "configuration of the released code, whose mu of 1e-6 is for sums: here it balances"
BIO: dict[str, Any] = {
    "model": "HuggingFaceH4/zephyr-7b-beta",
    "forget": ("wmdp:bio-forget",),
    "retain": "wikitext:test",
    "truncate": 512,
    **ENVIRONMENT,
}
"""WMDP's biology on Zephyr-7B. The forget set is gated. The released codes train on the test split
of WikiText, so perplexity on it does not measure utility."""
LLAMA3 = {"model": "meta-llama/Meta-Llama-3-8B-Instruct"}
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
"""MUSE on Llama-2-7B. The original splits the corpus into chunks of 2048 tokens; here each document
is truncated at 2048 tokens."""
BOOKS: dict[str, Any] = {
    **NEWS,
    "model": "muse-bench/MUSE-books_target",
    "forget": ("muse:books:raw:forget",),
    "retain": "muse:books:raw:retain1",
}
"""MUSE on ICLM-7B."""
