"""Sections of clean text."""

from hypothesis import given
from hypothesis import strategies as st

from sluice.data.extraction.sections import Section, continuations, passages, prompts, sections


def test_sections_follow_the_headings():
    text = (
        "Lead.\n\n# Title\n\nBody one.\n\n    # a comment in code\n\n## Deeper\n\n- item\n\n## Empty\n## Last\n\nEnd."
    )
    assert sections(text) == [
        Section("", "Lead.", 0),
        Section("Title", "Body one.\n\n    # a comment in code", 1),
        Section("Deeper", "- item", 2),
        Section("Empty", "", 2),
        Section("Last", "End.", 2),
    ]


def test_text_without_headings_is_one_section_and_no_text_is_none():
    assert sections("Only words.") == [Section("", "Only words.", 0)]
    assert sections("") == []


def test_code_at_the_start_of_a_body_keeps_its_indentation():
    assert sections("# A\n\n    x = 1\n\nWords.")[0].body == "    x = 1\n\nWords."


def test_passages_end_where_a_reader_would_pause():
    paragraphs = [f"One sentence of the {number}. paragraph is here. " * 5 for number in (1, 2, 3)]
    assert passages("\n\n".join(paragraphs)) == [paragraph.strip() for paragraph in paragraphs]
    assert [each[-1] for each in passages("A sentence has about forty characters. " * 40)] == ["."] * 4
    assert [each[-1] for each in passages("河边的小屋里住着一位老人。" * 60)] == ["。"] * 2
    assert passages("x" * 79) == [] and len(passages("x" * 160)) == 2


@given(st.text(alphabet="ab .\n。", max_size=2000))
def test_passages_are_parts_of_the_text_in_order(text: str):
    place = 0
    for passage in passages(text):
        assert 0 < len(passage) <= 400
        place = text.index(passage, place) + len(passage)


def test_prompts_are_headings_or_passages_that_another_follows():
    assert prompts("# One\n\nText.\n\n## Two\n\nText.") == ["One", "Two"]
    text = "A sentence has about forty characters. " * 40
    first, second = passages(text)[:2]
    assert continuations(text)[0] == ("forty characters." + " A sentence has about forty characters." * 2, second)
    assert prompts(text)[0] in first and max(map(len, prompts(text))) <= 100
    assert continuations("# One\n\n" + text) == []


def test_a_comment_in_code_is_no_heading_and_a_heading_has_no_line_end():
    code = "# Load it\nimport json\n\n\ndef load(path):\n    # Open it\n    return json.load(open(path))\n"
    assert sections(code) == [Section("", code.strip("\n"))]
    assert sections("# Title\r\ntext") == [Section("Title", "text", 1)]
