"""docs/security.md names every test of a threat, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = [*ROOT.glob("*_test.go"), *ROOT.glob("internal/*/*_test.go"), *ROOT.glob("python/tests/test_*.py")]
SOURCES += ROOT.glob("tests/**/test_*.py")


def test_the_table_names_the_tests_that_there_are() -> None:
    there_are = {
        name
        for source in SOURCES
        for name in re.findall(
            r"^(?:async )?(?:def|func) (test_threat_\w+|TestThreat\w+)", source.read_text(), re.MULTILINE
        )
    }
    named = re.findall(r"`(test_threat_\w+|TestThreat\w+)`", (ROOT / "docs/security.md").read_text())
    assert sorted(named) == sorted(there_are)
