"""Short names of common datasets, with their hub names and revisions.

A revision is pinned if we know public code that pins one; None means the newest. We know none for
RWKU, KnowUnDo and LUME. RWKU has many commits, and we do not know which of them has all files.
"""

import difflib
from typing import NamedTuple

from ilu.data.readers import is_data_file
from ilu.data.rtt import DOCUMENTS as RTT_DOCUMENTS


class Place(NamedTuple):
    """A hub dataset; ``rows`` limits it to its first rows, without loading the rest.

    ``lines`` marks a corpus whose rows are lines, some of them blank.
    """

    name: str
    revision: str | None = None
    rows: int | None = None
    lines: bool = False


TOFU = "324592d84ae4f482ac7249b9285c2ecdb53e3a68"
MUSE = {
    "news": ("News", "928543ace3784ccce8cec389f6e4e771308188b2"),
    "books": ("Books", "051ba90319e920d410d87cfdbd61f25843c1b892"),
}
MUSE_SPLITS = {
    "raw": ("forget", "retain1", "retain2", "holdout"),
    "verbmem": ("forget",),
    "knowmem": ("forget_qa", "forget_qa_icl", "retain_qa", "retain_qa_icl"),
    "privleak": ("forget", "retain", "holdout"),
    "scal": ("forget_1", "forget_2", "forget_3", "forget_4"),
    "sust": ("forget_1", "forget_2", "forget_3", "forget_4"),
}
NEWS_ONLY = ("scal", "sust")
"""Configurations that Books does not have."""
TOFU_SETS = (
    "full", "forget01", "forget05", "forget10", "retain99", "retain95", "retain90",
    "forget01_perturbed", "forget05_perturbed", "forget10_perturbed", "retain_perturbed",
    "real_authors", "real_authors_perturbed", "world_facts", "world_facts_perturbed",
    "holdout01", "holdout05", "holdout10",
)  # fmt: skip
WMDP_BIO = "5a786ed1041e56fef2d4ed26c1239f12b73a68eb"
WMDP = "41fdbd806c1880c8ee006876e9262dd58ab73873"
WIKITEXT = "b08601e04326c79dfdd32d625aee71d232d685c3"
C4 = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"
LUME = "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public"
"""The version of SemEval-2025 task 4 (arXiv 2502.15097)."""
LUME_SPLITS = {
    "forget": "forget_train", "forget:validation": "forget_validation",
    "retain": "retain_train", "retain:validation": "retain_validation",
}  # fmt: skip
PKU = "ff7ba91063016c78a225b0f74e1c0860bb18230f"

KNOWN: dict[str, Place] = {
    **{f"tofu:{name}": Place(f"locuslab/TOFU:{name}", TOFU) for name in TOFU_SETS},
    **{
        f"muse:{corpus}:{config}:{split}": Place(
            f"muse-bench/MUSE-{name}:{config}:{split}", revision
        )
        for corpus, (name, revision) in MUSE.items()
        for config, splits in MUSE_SPLITS.items()
        for split in splits
        if corpus == "news" or config not in NEWS_ONLY
    },
    "wmdp:bio-forget": Place("cais/wmdp-bio-forget-corpus", WMDP_BIO),
    "wmdp:bio-retain": Place("cais/wmdp-corpora:bio-retain-corpus", WMDP),
    "wmdp:cyber-forget": Place("cais/wmdp-corpora:cyber-forget-corpus", WMDP),
    "wmdp:cyber-retain": Place("cais/wmdp-corpora:cyber-retain-corpus", WMDP),
    "wikitext": Place("Salesforce/wikitext:wikitext-2-raw-v1", WIKITEXT, lines=True),
    "wikitext:test": Place("Salesforce/wikitext:wikitext-2-raw-v1:test", WIKITEXT, lines=True),
    "c4": Place("allenai/c4:en", C4, rows=10_000),
    "c4:validation": Place("allenai/c4:en:validation", C4, rows=1_000),
    "pku:unsafe": Place("PKU-Alignment/PKU-SafeRLHF:default", PKU),
    "pku:unsafe:test": Place("PKU-Alignment/PKU-SafeRLHF:default:test", PKU),
    "rwku:passages": Place("jinzhuoran/RWKU:train_original_passage"),
    "rwku:llama3": Place("jinzhuoran/RWKU:train_positive_llama3"),
    "rwku:phi3": Place("jinzhuoran/RWKU:train_positive_phi3"),
    "rwku:cloze": Place("jinzhuoran/RWKU:forget_level1:test"),
    "rwku:questions": Place("jinzhuoran/RWKU:forget_level2:test"),
    "rwku:adversarial": Place("jinzhuoran/RWKU:forget_level3:test"),
    "rwku:neighbours:cloze": Place("jinzhuoran/RWKU:neighbor_level1:test"),
    "rwku:neighbours": Place("jinzhuoran/RWKU:neighbor_level2:test"),
    **{f"lume:{name}": Place(f"{LUME}::{split}") for name, split in LUME_SPLITS.items()},
    **{name: Place(dataset) for name, dataset in RTT_DOCUMENTS.items()},
    "knowundo:copyright": Place("zjunlp/KnowUnDo:copyright:unlearn"),
    "knowundo:copyright:retain": Place("zjunlp/KnowUnDo:copyright:retention"),
    "knowundo:privacy": Place("zjunlp/KnowUnDo:privacy:unlearn"),
    "knowundo:privacy:retain": Place("zjunlp/KnowUnDo:privacy:retention"),
}


def place(name: str) -> Place:
    """The dataset of a short name; any other name is a file or a hub dataset."""
    if name in KNOWN:
        return KNOWN[name]
    families = {known.partition(":")[0] for known in KNOWN}
    if name.partition(":")[0] in families and not is_data_file(name):
        near = difflib.get_close_matches(name, KNOWN, n=3)
        family = [known for known in KNOWN if known.startswith(name.partition(":")[0])]
        raise ValueError(f"unknown dataset {name!r}; there are: {', '.join(near or family)}")
    return Place(name)
