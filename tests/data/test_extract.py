"""Markup to the document text contract, on the constructions that real documentation uses."""

import unicodedata
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.data.extraction.extract import extract


def rst(text: str) -> str:
    return extract(dedent(text), "rst")


def test_titles_take_their_level_from_the_order_of_their_styles():
    text = rst(
        """
        =====
        Title
        =====

        Section
        -------
        One.

        Deeper
        ~~~~~~
        Two.

        Another section
        ---------------
        Three.
        """
    )
    assert text == "# Title\n\n## Section\n\nOne.\n\n### Deeper\n\nTwo.\n\n## Another section\n\nThree."


def test_hard_wrapped_lines_become_one_line_of_words():
    assert rst("A paragraph that is\nwrapped by hand,\ntwice.\n\nAnother.") == (
        "A paragraph that is wrapped by hand, twice.\n\nAnother."
    )


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("Use ``QuerySet.filter()`` here.", "Use `QuerySet.filter()` here."),
        ("See :doc:`the guide </topics/guide>`.", "See the guide."),
        ("Call :meth:`~django.db.models.Model.save`.", "Call save()."),
        ("The :class:`!Thread` class.", "The Thread class."),
        ("The :py:class:`django.http.HttpRequest` class.", "The django.http.HttpRequest class."),
        ("See :ref:`label-of-another-page`.", "See label of another page."),
        ("Fixed (:ticket:`36298`).", "Fixed (#36298)."),
        ("As :pep:`8` says.", "As PEP 8 says."),
        ("A `link <https://example.org/>`_ and `another`__ and word_.", "A link and another and word."),
        ("**Strong** and *emphasis* and 2*3*4.", "Strong and emphasis and 2*3*4."),
        ("A note [1]_ and a citation [Knuth97]_.", "A note and a citation [Knuth97]."),
        (r"Escaped \*stars\* and glue\ d words.", "Escaped *stars* and glued words."),
        ("Literal ``:ref:`x``` stays, ``**kwargs`` too.", "Literal `:ref:`x`` stays, `**kwargs` too."),
        ("The :class:`Deferred` , which fires.", "The Deferred, which fires."),
        ("Dunder ``__init__`` and name_with_parts stay.", "Dunder `__init__` and name_with_parts stay."),
    ],
)
def test_inline_markup(marked: str, plain: str):
    assert rst(marked) == plain


def test_reference_to_a_label_of_the_same_document_shows_its_title():
    assert (
        rst(
            """
        See :ref:`setup`.

        .. _setup:

        Setting it up
        =============

        Do it.
        """
        )
        == "See Setting it up.\n\n# Setting it up\n\nDo it."
    )


def test_substitutions_are_replaced():
    assert rst(".. |name| replace:: Sluice\n\nThis is |name|.") == "This is Sluice."


def test_code_is_indented_and_keeps_its_shape():
    text = rst(
        """
        Run this::

            def f():

                return 1

        .. code-block:: python
           :linenos:

           x = 1

        >>> f()
        1

        Done.
        """
    )
    assert text == "Run this:\n\n    def f():\n\n        return 1\n\n    x = 1\n\n    >>> f()\n    1\n\nDone."


def test_admonitions_keep_their_label_and_version_notes_their_version():
    text = rst(
        """
        .. note:: Mind the gap.

        .. versionadded:: 3.1

           The flag.

        .. versionchanged:: 4.0
        """
    )
    assert text == "Note: Mind the gap.\n\nNew in version 3.1: The flag."


def test_signatures_become_headings_over_their_descriptions():
    text = rst(
        """
        API
        ===

        .. class:: Client(url)

           Talks to a server.

           .. method:: get(path)

              Fetch it.

              :param path: where it is
              :type path: str
              :returns: the body

        .. function:: close()

           Close it.
        """
    )
    assert text == (
        "# API\n\n## Client(url)\n\nTalks to a server.\n\n### get(path)\n\nFetch it.\n\n"
        "- `path`: where it is\n- Returns: the body\n\n## close()\n\nClose it."
    )


def test_navigation_pictures_targets_and_comments_are_dropped():
    text = rst(
        """
        :orphan:

        .. _target:
        .. This is a comment
           of two lines.

        .. toctree::
           :maxdepth: 2

           one
           two

        .. image:: picture.png
        .. automodule:: package.module
           :members:

        .. |icon| image:: icon.png

        Words.

        .. _link: https://example.org/
        """
    )
    assert text == "Words."


def test_lists_are_lines_and_definitions_are_items():
    text = rst(
        """
        * one
          goes on
        * two

          with more

          * nested

        1. first
        2. second

        term
            Its definition.

        A dash - in running text
        - is no list.
        """
    )
    assert text == (
        "- one goes on\n- two with more\n- nested\n- first\n- second\n- term: Its definition.\n\n"
        "A dash - in running text - is no list."
    )


def test_tables_become_rows():
    text = rst(
        """
        ======  =======
        Name    Meaning
        ======  =======
        a       first
                letter
        b       second
        ======  =======

        +-----+-----+
        | x   | y   |
        +=====+=====+
        | 1   | 2   |
        +-----+-----+

        .. list-table::
           :header-rows: 1

           * - Key
             - Value
           * - k
             - v
        """
    )
    assert text == "- Name | Meaning\n- a | first letter\n- b | second\n- x | y\n- 1 | 2\n- Key | Value\n- k | v"


def test_markdown():
    text = extract(
        dedent(
            """\
            ---
            title: front matter
            ---
            # Title

            Some *emphasised* text with `code`,
            a [link](https://example.org/) and {func}`~a.b.run`.

            - item one
            - item two

            ```python
            x = 1
            ```

            ```{note}
            Mind the gap.
            ```

            | a | b |
            |---|---|
            | 1 | 2 |

            <p>A <b>paragraph</b> of HTML.</p>
            """
        ),
        ".md",
    )
    assert text == (
        "# Title\n\nSome emphasised text with `code`, a link and run().\n\n- item one\n- item two\n\n    x = 1\n\n"
        "Note: Mind the gap.\n\n- a | b\n- 1 | 2\n\nA paragraph of HTML."
    )


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('---\nlayout: post\ntitle: "Tides: a guide"\n---\nHigh at 7.\n', "# Tides: a guide\n\nHigh at 7."),
        ("---\ntitle: Tides\n---\n## Spring\n\nHigh at 7.\n", "# Tides\n\n## Spring\n\nHigh at 7."),
        ("+++\ntitle = 'Tides'\ndate = 2020-01-02\n+++\nHigh at 7.\n", "# Tides\n\nHigh at 7."),
        ("---\ntitle: Tides\n---\n# Tides\n\nHigh at 7.\n", "# Tides\n\nHigh at 7."),
        ("---\n---\nHigh at 7.\n", "High at 7."),
        ("---\nsubtitle: Tides\n---\nHigh at 7.\n", "High at 7."),
    ],
)
def test_the_title_of_front_matter_is_a_heading_unless_the_text_has_one(text: str, clean: str):
    assert extract(text, "md") == clean


def test_html():
    text = extract(
        """<html><head><title>no</title><script>var x = "<p>";</script></head><body><nav><a>menu</a></nav>
        <h1>Title</h1><p>Some <b>bold</b> &amp; <code>code</code>
        text.</p><ul><li>one</li><li><p>two</p></li></ul><pre>a = 1\n  b = 2</pre><footer>no</footer><p>Last.</body>""",
        "html",
    )
    assert text == "# Title\n\nSome bold & `code` text.\n\n- one\n- two\n\n    a = 1\n      b = 2\n\nLast."


def test_unknown_markup_is_refused():
    with pytest.raises(ValueError, match=r"'\.docx' is not known; allowed: raw, txt, wrapped, rst, md"):
        extract("x", ".docx")


_MARKUP_PIECES = st.sampled_from(
    (
        *("", "word", "Title", "é", "\x00", "\t", "=====", "-----", "``lit``", ":ref:`a`", "`b`_", "|s|", "# h", "```"),
        *("..", ".. note::", "::", "    code", "* a", "1. a", ">>> x", "<p>", "</p>", "<script>", "<br>"),
        *("+--+--+", "| a | b |", "=== ==="),
    )
)


@given(st.lists(_MARKUP_PIECES, max_size=25), st.sampled_from(["rst", "md", "html"]), st.sampled_from("\n "))
def test_any_text_is_extracted_into_the_contract(pieces: list[str], markup: str, joint: str):
    text = extract(joint.join(pieces), markup)
    assert text == unicodedata.normalize("NFC", text)
    assert text == text.strip("\n")
    assert "\n\n\n" not in text
    assert not any(line != line.rstrip() for line in text.split("\n") if not line.strip())


@given(st.lists(_MARKUP_PIECES, max_size=25), st.sampled_from(["rst", "md", "html"]))
def test_clean_text_read_again_as_plain_text_is_unchanged(pieces: list[str], markup: str):
    clean = extract("\n".join(pieces), markup)
    assert extract(clean, "txt") == clean


PAGE = """<!DOCTYPE html><html><head><title>Locks</title></head><body>
<div class="nav"><ul><li><a href="/">Home</a></li><li><a href="/shop">Shop</a></li></ul></div>
<article><h1>On locks</h1><p>A lock lifts boats with <em>water</em> alone,
and needs 2*3*4 <code>gates_of_iron</code> at most.</p><h2>How it works</h2><p>The keeper opens the lower gate,<br>and
writes &lt;b&gt; into the <a href="/log">log</a> of the day.</p>
<ul><li>close the gate</li><li>open the sluice<ul><li>slowly at first</li></ul></li></ul>
<pre><code>def lift(boat):
    return boat + 1</code></pre><pre><code>lift --now
</code></pre>
<p>Then the boat goes on its way to the upper pound, and the next one comes in.</p></article>
<div class="sidebar">Subscribe to our newsletter!</div>
<div id="footer">Copyright, all rights reserved</div></body></html>"""


def test_a_web_page_yields_its_main_text_alone():
    assert extract(PAGE, "html") == (
        "# On locks\n\nA lock lifts boats with water alone, and needs 2*3*4 `gates_of_iron` at most.\n\n"
        "## How it works\n\nThe keeper opens the lower gate, and writes <b> into the log of the day.\n\n"
        "- close the gate\n- open the sluice\n- slowly at first\n\n"
        "    def lift(boat):\n        return boat + 1\n\n    lift --now\n\n"
        "Then the boat goes on its way to the upper pound, and the next one comes in."
    )


def test_a_page_in_which_no_text_of_its_own_is_found_gives_all_of_it():
    rows = "".join(f"<tr><td>name {n}</td><td>what the setting of number {n} does</td></tr>" for n in range(40))
    text = extract(f"<html><body><table>{rows}</table><p>One line.</p><p>Another.</p></body></html>", "html")
    assert "name 39 | what the setting of number 39 does" in text
    assert extract("<html><body></body></html>", "html") == ""


@given(st.lists(_MARKUP_PIECES, max_size=25))
def test_any_page_is_extracted_into_the_contract(pieces: list[str]):
    clean = extract("<html><body><h1>A</h1><p>word</p>" + "\n".join(pieces), "html")
    assert extract(clean, "txt") == clean


def test_the_options_of_a_directive_in_markdown_go_and_its_content_stays():
    text = "```{note}\n:class: tip\n:name: here\nOne line.\n\nAnother.\n```\n\nAfter.\n"
    assert extract(text, "md") == "Note: One line.\n\nAnother.\n\nAfter."


@pytest.mark.parametrize("mark", ["\f", "\v"])
def test_a_page_break_between_two_words_does_not_join_them(mark: str):
    assert extract(f"first page{mark}second page", "txt") == "first page\nsecond page"
    assert extract(f"first page{mark}second page", "raw") == f"first page{mark}second page"
