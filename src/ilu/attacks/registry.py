"""Kinds of attack and of prompting attack by name, found by walking ``ilu.attacks``."""

import re
from collections.abc import Mapping
from pathlib import Path

import ilu.attacks
import ilu.attacks.prompting
from ilu.attacks.kind import AttackKind
from ilu.attacks.prompting.kind import ProbeKind
from ilu.data.facts.selection import is_facts
from ilu.data.readers import ENDINGS
from ilu.system.discover import discovered


def attack_kinds() -> Mapping[str, AttackKind]:
    """Every kind of attack, by the name before the colon; any other name is a task."""
    return discovered(ilu.attacks, "ATTACKS")


def probe_kinds() -> Mapping[str, ProbeKind]:
    """Every prompting attack, by the name before the colon."""
    return discovered(ilu.attacks.prompting, "PROBES")


def label(name: str) -> str:
    """The name of an attack in files. A data file's name loses its folder and ending."""
    kind, _, argument = name.partition(":")
    if kind in attack_kinds() and argument:
        return f"{kind}-{label(argument)}"
    if is_facts(name):
        return re.sub(r"[^\w.+-]+", "-", name)
    short = Path(name).stem if Path(name).suffix in ENDINGS else name.rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", short)
