"""How far two masks on the same weights agree."""

from typing import NamedTuple


class Overlap(NamedTuple):
    """Two masks on the same weights: how many move in both, in either, and by chance in both.

    ``chance`` is the expected number in both if each mask kept its density in every tensor and were
    otherwise random.
    """

    both: int
    either: int
    chance: float

    @property
    def iou(self) -> float:
        """Intersection over union; 1 for two masks that let nothing move."""
        return self.both / self.either if self.either else 1.0

    @property
    def chance_iou(self) -> float:
        """The same by chance, to first order."""
        union = self.both + self.either - self.chance
        return self.chance / union if union else 1.0
