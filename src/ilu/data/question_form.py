"""The two ways to ask a multiple-choice question."""

from typing import Literal

Form = Literal["letters", "cloze"]
"""Options shown and answered by letter, or not shown and answered in full."""
