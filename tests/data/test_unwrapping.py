"""Unwrapping joins the lines of hard-wrapped prose and of nothing else, on a labelled set of our own."""

import re
import textwrap
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unwrapping_texts import KEPT, LANGUAGES, MAIL

from sluice.data.extraction.extract import Extracted, convert, extract
from sluice.data.extraction.plain import unwrap
from sluice.data.writing_systems import join_lines, width

WIDTHS = (50, 60, 66, 72, 76, 80, 100)
_UNIT = re.compile(
    r"[^\s\u3000-\u9fff\uff00-\uffef]+ ?|[「『（]*[\u3000-\u9fff\uff00-\uffef][、。，！？」』）：；]*|\s"
)


def wrapped(text: str, columns: int) -> str:
    """Wrap a paragraph at a number of columns: at spaces, in Chinese and Japanese between letters, in Thai anywhere."""
    if unicodedata.name(text[0]).split()[0] in {"LATIN", "CYRILLIC", "GREEK"}:
        return textwrap.fill(text, columns, break_on_hyphens=False)
    pattern = r"\S[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]*|\s" if "\u0e00" <= text[0] <= "\u0e7f" else _UNIT
    lines = [""]
    for unit in re.findall(pattern, text):
        if width(lines[-1] + unit.rstrip()) > columns:
            lines.append("")
        lines[-1] += unit if lines[-1] else unit.lstrip()
    return "\n".join(line.rstrip() for line in lines)


@pytest.mark.parametrize("name", KEPT)
def test_lines_that_are_no_wrapped_prose_stay(name: str):
    assert convert(KEPT[name], "txt").text == KEPT[name].strip("\n")


def test_wrapped_prose_comes_back_as_it_was_or_stays():
    joined = breaks = 0
    for language, whole in LANGUAGES.items():
        for columns in WIDTHS:
            texts = [whole, whole[len(whole) // 9 :].lstrip()]
            raw = "\n\n".join(wrapped(text, columns) for text in texts)
            found = convert(raw, "txt")
            breaks += raw.count("\n") - 2
            joined += found.joined_lines
            if language in {"th", "zh", "ja"}:
                # A space at which Thai was wrapped is lost; none is put between letters.
                assert found.text.replace(" ", "") in {"\n\n".join(texts).replace(" ", ""), raw.replace(" ", "")}
                assert found.text.count(" ") <= sum(text.count(" ") for text in texts)
            else:
                assert found.text in {"\n\n".join(texts), raw}, (language, columns)
    assert joined / breaks > 0.97, f"{joined} of {breaks}"


def test_prose_of_a_mail_is_unwrapped_and_its_head_list_and_signature_stay():
    sent, expected = MAIL
    assert convert(sent, "txt") == convert(sent.replace("\n", "\r\n"), "txt")
    assert convert(sent, "txt").text == expected
    assert convert(sent, "txt").joined_lines == 5


def test_nothing_else_of_a_wrapped_text_is_joined():
    prose = [wrapped(LANGUAGES["en"], 72), wrapped(LANGUAGES["en"][40:], 72)] * 10
    joined = set()
    for name, text in KEPT.items():
        found = convert("\n\n".join([*prose, text, *prose]), "txt").text
        assert LANGUAGES["en"] in found
        if f"\n\n{text}\n\n" not in found:
            joined.add(name)
    # The docstring is prose.
    assert joined == {"python with a long docstring"}


def test_paragraphs_that_begin_with_an_indent_are_told_apart_without_blank_lines():
    for indent, language in (("   ", "en"), ("　　", "zh"), ("　", "ja")):
        texts = [indent + LANGUAGES[language], indent + LANGUAGES[language][11:].lstrip()] * 2
        raw = "\n".join(wrapped_with_indent(text, 66) for text in texts)
        assert extract(raw, "txt") == "\n".join(texts), language


def wrapped_with_indent(text: str, columns: int) -> str:
    content = text.lstrip()
    indent = text[: len(text) - len(content)]
    # A letter of the same width takes the place of a space, which wrapping would remove.
    return indent + wrapped(("漢" if indent[0] == "　" else "x") * len(indent) + content, columns)[len(indent) :]


def test_forced_unwrapping_joins_every_paragraph_but_not_lists_headings_and_speakers():
    text = "# Head\nan old\nsilent lock\n\n- one\n  more\n- two\nuser: a\nuser: b\n\n河边\n小屋\n\n    code\n    more"
    assert extract(text, "wrapped") == (
        "# Head\nan old silent lock\n\n- one more\n- two\nuser: a\nuser: b\n\n河边小屋\n\n    code\n    more"
    )
    verse = KEPT["german verse"]
    assert convert(verse, "wrapped") == Extracted(verse.replace("\n", " "), 3)


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (["河边", "小屋"], "河边小屋"),
        (["水門の", "「番人」が"], "水門の「番人」が"),
        (["ประตู", "น้ำ"], "ประตูน้ำ"),
        (["មាត់", "ទឹក"], "មាត់ទឹក"),
        (["ປະຕູ", "ນ້ຳ"], "ປະຕູນ້ຳ"),
        (["ရေ", "တံခါး"], "ရေတံခါး"),
        (["བོད་", "ཡིག"], "བོད་ཡིག"),
        (["아래", "수문"], "아래 수문"),
        (["the lower", "lock"], "the lower lock"),
        (["用Python", "写"], "用Python 写"),
        (["河边，", "Python"], "河边，Python"),
        (["他说：“", "好”"], "他说：“好”"),
        (["……", "小屋"], "……小屋"),
        (["한국어。", "다음"], "한국어。 다음"),
        (["か\u3099", "き"], "か\u3099き"),
        (["ខ\u200b", "x"], "ខ\u200bx"),
        (["😀", "😀"], "😀 😀"),
        (["", "a", "", "b"], "a b"),
        ([], ""),
    ],
)
def test_lines_are_joined_by_the_rules_of_their_script(lines: list[str], joined: str):
    assert join_lines(lines) == joined


@pytest.mark.parametrize(
    ("markup", "text", "expected"),
    [
        ("wrapped", "河边\n小屋", "河边小屋"),
        ("txt", "河边\n小屋", "河边\n小屋"),
        ("md", "河边\n小屋\n\n- 一\n  二\n\n> 引\n> *用*\n> 文", "河边小屋\n\n- 一二\n\n引用文"),
        ("html", "<p>河边\n小屋</p><ul><li>一\n二</ul><h2>甲\n乙</h2>", "河边小屋\n\n- 一二\n\n## 甲乙"),
        (
            "rst",
            "河边\n*小屋*\n里\n\n* 一\n  二\n\n词\n  定义\n  更多\n\n.. note:: 一\n   二\n\n"
            "=== ===\n甲   乙\n    丙\n=== ===",
            "河边小屋里\n\n- 一二\n- 词: 定义更多\n\nNote: 一二\n\n- 甲 | 乙丙",
        ),
        ("rst", "See :ref:`the\nguide <x>` and ``a\nb``\n::\n\n    x", "See the guide and `a b`\n\n    x"),
    ],
)
def test_no_markup_puts_a_space_between_letters_of_scripts_without_spaces(markup: str, text: str, expected: str):
    assert extract(text, markup) == expected


any_text = st.lists(
    st.one_of(
        st.sampled_from([*KEPT.values(), *(wrapped(text, 60) for text in LANGUAGES.values()), MAIL[0]]),
        st.sampled_from(
            ["", " ", "a\r\nb", "\ufeff", "  indented line", "\tx", "- item\n  goes on", "cafe\u0301", "\x00"]
        ),
        st.text(max_size=80),
    ),
    max_size=5,
).map("\n".join)


@given(any_text)
def test_raw_text_is_kept_as_it_is(text: str):
    assert convert(text, "raw").text == text


@given(any_text, st.sampled_from(["txt", "wrapped"]))
def test_unwrapping_again_changes_nothing(text: str, markup: str):
    once = extract(text, markup)
    assert convert(once, markup).joined_lines == 0
    assert extract(once, markup) == once


@given(any_text, st.booleans())
def test_unwrapping_changes_white_space_alone_and_counts_its_joins(text: str, force: bool):
    found = unwrap(text, force=force)
    assert "".join(found.text.split()) == "".join(text.split())
    assert text.count("\n") - found.text.count("\n") == found.joined_lines
