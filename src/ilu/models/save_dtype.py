"""The precision in which a model is saved, as a setting: this file needs no torch."""

from typing import Literal

SaveDtype = Literal["own", "float32", "bfloat16", "float16"]
"""Precision of the weights on disk; ``own`` is that of the model that was loaded."""
