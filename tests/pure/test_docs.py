"""The documents: what docstrings cite exists, links lead somewhere, and lines fit a screen."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(sys.modules["ella_lmd"].__path__[0])
NUMBER = r"\d{1,2}(?:\.\d)?"
CITED = re.compile(rf"docs/lmd\.md,\s+((?:{NUMBER}(?:,\s+|\s+and\s+|\s+to\s+)?)+)")
BARE = re.compile(
    rf"(?:\(|Source: |: E_total of |e\(o, p\) of )({NUMBER})(?:, steps? (\d)(?: to (\d))?)?(?=[).,:]|\)|$)"
)
SECTIONS = {m[1]: m[0] for m in re.finditer(rf"^##+ ({NUMBER})\.? .*$", (ROOT / "docs" / "lmd.md").read_text(), re.M)}
CODE = [p for name in ("lmd", "ella", "nodes", "evaluation", "tools") for p in sorted((ROOT / name).rglob("*.py"))]
ENGINE = [
    p for name in ("lmd/sampling", "nodes/host/lmd", "nodes/host/guidance") for p in sorted((ROOT / name).glob("*.py"))
]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "demo" / "README.md"])


def steps(section: str) -> int:
    """How many numbered steps a section of docs/lmd.md has."""
    text = (ROOT / "docs" / "lmd.md").read_text().split(SECTIONS[section], 1)[1].split("\n#", 1)[0]
    return len(re.findall(r"^\d\. ", text, re.M))


def test_every_section_that_code_cites_is_there():
    cited = 0
    for path in CODE:
        for match in CITED.finditer(path.read_text(encoding="utf-8")):
            numbers = re.findall(NUMBER, match[1])
            cited += len(numbers)
            assert set(numbers) <= SECTIONS.keys(), f"{path.relative_to(ROOT)} cites {match[0]!r}"
    assert cited > 25


def test_every_bare_number_in_the_engines_docstrings_is_a_section():
    cited = 0
    for path in ENGINE:
        for docstring in re.findall(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.S):
            for number, first, last in BARE.findall(docstring):
                if "." in number:
                    cited += 1
                    assert number in SECTIONS, f"{path.relative_to(ROOT)} cites {number}"
                    assert int(last or first or 0) <= steps(number), (
                        f"{path.relative_to(ROOT)}: {number} has no step {last or first}"
                    )
    assert cited > 15


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto")):
            file, _, heading = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            assert linked.exists(), target
            if heading:
                slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-")
                         for h in re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)}  # fmt: skip
                assert heading in slugs, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_have_at_most_120_characters(path):
    """Tables, pictures and code are excepted."""
    text = re.sub(
        r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), path.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    long = [n for n, x in enumerate(text.splitlines(), 1) if len(x) > 120 and not x.startswith(("|", "!["))]
    assert not long, f"lines {long} of {path.relative_to(ROOT)}"
