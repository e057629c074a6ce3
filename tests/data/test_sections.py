"""Sections of clean text."""

from sluice.data.extraction.sections import Section, sections


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
