"""Examples in the pages of the documentation, which tests read and run."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def example(page: str, word: str) -> str:
    """The only block of Python in a page that has ``word`` in it."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return found
