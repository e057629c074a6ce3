"""Documents made to be slow: extraction takes time in proportion to their length, and gives an answer."""

import subprocess
import sys
from textwrap import dedent

import pytest

from sluice.data.extraction.encoding import composed
from sluice.data.extraction.extract import extract

# fmt: off
_UNITS = (
    "<a ", "<", "<!--", "<![CDATA[", "<?", "</", "<a b='", "<br/", "&", "&#", "<svg>", "<li>",
    "+1", "sk-", "::f", ":a:", "a.b-", "`a", "**", "**a ", "__", "a_", "_`", "*a", "``", "|a",
    "[", "](", "[a]: b\n", "\\", "- ", "> ", "#", "(", "@", "|", "=\n", ".. ", "~~~\n", "a\n",
    "```{note}\n", "    x\n", "\t", "\r", "\0", "\x85", "\x1b[", "Ã¼", "\u0301\u0323",
    "= =\na b\n= =\n\n", "+-+\n|a|\n+-+\n\n", "<a b='>'", "<!-- a>", "<svg><p></p>", "<![foo[x",
)
# fmt: on
# (what stands once before it, what is repeated)
_HOSTILE = [
    *(("", unit) for unit in _UNITS),
    ("= =\n", "  a\n"),
    ("= " * 25_000 + "\n", "a b\n"),
    ("- a\n\n", "  b\n\n"),
    (".. function:: f(\n", "   a,\n"),
    (":x:`a", " "),
    (".. |a| replace:: " + "x" * 25_000 + "\n\n", "|a| "),
    ("<li>", " <p>"),
    ("<svg>" * 10_000, "</p>"),
    ("<svg>" * 5_000, "<p></p>"),
    ("<html><body><p>One.</p>", "<b>a"),
    ("<html><body><p>One.</p>", "<p>a"),
    ("<html><body><p>One.</p>", "<a "),
    *(
        ("<html><body><p>One.</p>", unit)
        for unit in (
            "<div class=nav>a",
            "<table><tr><td>a<td>b",
            "<dl><dt>a<dd>",
            "<math><mfrac>",
            "<h1><a>",
            "<p hidden>",
        )
    ),
]
_CHARACTERS = 75_000
_CPU_SECONDS = 10
"""Time limit of a document: several times that of a linear pass; a quadratic one takes minutes."""
_CHILD = """
import resource, sys
from sluice.data.refining.score import ExtractMarkup
from datatrove.data import Document
from tests.data.test_extract_hostile import _CHARACTERS, _CPU_SECONDS, _HOSTILE

for number, (head, unit) in enumerate(_HOSTILE):
    print(number, flush=True)
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + _CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    text = head + (unit * _CHARACTERS)[: max(_CHARACTERS - len(head), 1)]
    document = Document(text=text, id="1", metadata={"markup": sys.argv[1]})
    assert len(list(ExtractMarkup().run(iter([document])))) == 1
    assert len(document.text) <= 20 * _CHARACTERS, "the text has grown"
print("all")
"""


@pytest.mark.process
@pytest.mark.parametrize("markup", ["txt", "md", "rst", "html"])
def test_no_repeated_unit_takes_more_than_linear_time(markup: str):
    # A process of its own, which the kernel ends at its limit of processor time, however busy the machine is.
    child = subprocess.run([sys.executable, "-c", _CHILD, markup], capture_output=True, text=True, check=False)
    last = child.stdout.split()[-1] if child.stdout else "none"
    assert last == "all", f"{markup}: {_HOSTILE[int(last)] if last.isdigit() else last!r}: {child.stderr[-500:]}"
    assert child.returncode == 0


def test_a_tag_without_an_end_is_text_and_the_rest_is_read():
    assert extract("<p>one <!-- two <b>three</b></p><p>four</p>", "html") == "one <!-- two three\n\nfour"
    assert extract("<p>a &amp; b <i", "html") == "a & b <i"


@pytest.mark.parametrize("tag", ["<b>", "<font size=2>", "<div>"])
def test_the_text_of_a_page_that_is_nested_too_deep_is_kept(tag: str):
    text = extract(f"<html><body><p>One.</p>{f'{tag}word ' * 5_000}<p>End.</p>", "html")
    assert text.count("word") == 5_000
    assert text.startswith("One.") and text.endswith("End.")


def test_a_marked_section_of_an_unknown_name_is_no_text():
    assert extract("<p>one</p><![foo[bar]]><p>two</p>", "html") == "one\n\ntwo"


def test_strong_text_without_an_end_keeps_its_stars_and_the_rest_is_read():
    assert extract("**One** and **two and *three* and four_ and **five", "rst") == (
        "One and **two and three and four and **five"
    )


def test_a_directive_within_too_many_is_code():
    text = extract("```{note}\n" * 30 + "word\n", "md")
    assert text.startswith("Note:") and text.count("Note:") < 20 and "    word" in text


def test_cells_of_several_lines_are_joined_in_a_wide_table():
    table = dedent(
        """
        ===  ===  ===
        a    b    c
             d
        e
             f    g
        ===  ===  ===

        After.
        """
    )
    assert extract(table, "rst") == "- a | b d | c\n- e | f | g\n\nAfter."


def test_piled_marks_are_cut_at_thirty_and_fewer_are_kept():
    assert composed("x" + "\u0301\u0323" * 500).count("\u0301") == 15
    assert len(composed("é" * 20 + "x" + "\u0323" * 31)) == len(composed("é" * 20 + "x" + "\u0323" * 30))
    fewer = "x" + "\u0323" * 15 + "\u0301" * 15
    assert composed(fewer + " y") == composed(fewer) + " y"
    assert len(composed("q" + "\u0323" * 30)) == 31
