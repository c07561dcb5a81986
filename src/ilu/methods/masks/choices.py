"""The words by which a mask is chosen: this file needs no torch."""

from typing import Literal

Per = Literal["model", "layer", "tensor", "row"]
"""The weights among which the largest scores are chosen."""
Unit = Literal["heads", "neurons", "modules"]
"""Groups of weights that are chosen together."""
Reduce = Literal["mean", "norm", "sum"]
"""From the scores of the weights of a unit to that of the unit."""
Reduction = Literal["mean", "sum"]
"""``mean``: of all examples alike. ``sum``: of the token means of the batches, as WAGLE's code."""
Rest = Literal["still", "free"]
"""What weights do that a mask does not name."""
