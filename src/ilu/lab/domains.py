"""The parts of the lab's world."""

from typing import Literal

DomainName = Literal["agents", "people"]
