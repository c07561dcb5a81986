"""Data of relearning on disjoint splits (RTT, arXiv 2410.08827): facts whose splits share nothing.

Each data set has a number of splits, and each split documents and multiple-choice questions about
the same facts. The authors publish files and no hub dataset: put them into the folder of the mirror
(``ILU_HUB``) as rtt/NAME/documents/split_0.jsonl with a column text, and
rtt/NAME/questions/split_0.jsonl with the columns question, choices and answer.
"""

from collections.abc import Mapping

from ilu.system.errors import unknown

PREFIX = "rtt:"
SPLITS: Mapping[str, int] = {"random_birthdays": 10, "years": 5}
"""Name of a data set -> number of its splits."""
DOCUMENTS = {
    f"{PREFIX}{name}:documents:{i}": f"rtt/{name}:documents:split_{i}"
    for name, count in SPLITS.items()
    for i in range(count)
}
"""Name of the documents of a split -> its dataset."""


def is_rtt(name: str) -> bool:
    """Whether a name means all splits of a data set, as in ``rtt:years``."""
    return name.startswith(PREFIX) and name not in DOCUMENTS


def number_of_splits(name: str) -> int:
    """The splits of ``rtt:NAME``; ValueError for another name."""
    short = name.removeprefix(PREFIX)
    if short not in SPLITS:
        raise unknown("RTT data set", short, SPLITS)
    return SPLITS[short]


def documents(name: str, split: int) -> str:
    """The dataset with the documents of a split of ``rtt:NAME``."""
    return DOCUMENTS[f"{name}:documents:{split}"]


def questions(name: str, split: int) -> str:
    """The dataset with the questions of a split of ``rtt:NAME``."""
    return f"rtt/{name.removeprefix(PREFIX)}:questions:split_{split}"
