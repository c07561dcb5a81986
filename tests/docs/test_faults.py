"""The table of faults: every row names a test that exists."""

import re

from tests.conftest import ROOT

ROW = re.compile(r"^\| (.*) \| (.+) \| `(\S+)::(\w+)` \|$")


def test_every_fault_has_a_test_that_exists():
    page = (ROOT / "docs/faults.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if "public report" not in line]
    assert len(rows) > 30
    for line in rows:
        found = ROW.match(line)
        assert found, line
        report, _, file, name = found.groups()
        assert f"\ndef {name}(" in (ROOT / file).read_text(), line
        for repository, number in re.findall(r"\[(\S+)#(\d+)\]", report):
            assert re.search(rf"github\.com/{repository}/(issues|pull)/{number}\)", report), line
