"""The study of attacks."""

import pytest

from ilu.lab import tasks
from ilu.models.load import load_model
from studies.attacks.cells import NAMES, QUICK, jobs


@pytest.fixture(scope="module")
def lab():
    return load_model("lab")


def test_every_defence_meets_the_same_attacks(lab, tmp_path):
    planned = jobs(NAMES, 2, QUICK, tmp_path)
    assert len(planned) == 2 * (2 + 4 * 4 + 1)
    assert [path.name for path in planned][:3] == [
        "original-seed0", "never-knew-seed0", "rmu-seed0"
    ]  # fmt: skip
    seeds = [list(planned.values())[i :: len(NAMES)] for i in (1, 2)]
    known, never = planned[tmp_path / "original-seed1"], planned[tmp_path / "never-knew-seed1"]
    assert (known.model, never.model) == ("lab", "lab-never")
    assert all(made.attacks == known.attacks for made in (never, seeds[1][1]))
    assert not any(made.keep_attacked for made in planned.values())
    shown = {a.feed.source.stop for n, a in known.attacks.items() if n.startswith("relearn")}
    assert shown == {1, 5, 20}
    tasks_alone = [n for n, a in known.attacks.items() if "task_accuracy" in a.goals]
    assert tasks_alone == [t.name for t in tasks.TASKS]  # `still_forgotten` is over these
    assert all(len(a.data(lab)) >= 4 for a in known.attacks.values() if a.steps)
