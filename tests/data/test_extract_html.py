"""HTML pages and fragments: what a reader sees in the main content is kept, the page around it is not."""

import pytest

from sluice.data.extraction.extract import extract


def html(text: str) -> str:
    return extract(text, "html")


def page(body: str) -> str:
    return html(f"<html><body>{body}</body></html>")


LONG = "Words of a paragraph that is long enough to be taken for the main text of a page by anybody who reads it. " * 4


@pytest.mark.parametrize(
    ("body", "text"),
    [
        # Headings, short items, tables and code of a page without article or main element.
        ("<h2>Notes</h2><p>T</p><p>more</p>", "## Notes\n\nT\n\nmore"),
        (
            "<ul><li>one first remark upon the case</li><li>two</li></ul>",
            "- one first remark upon the case\n- two",
        ),
        ("<h1>A</h1><p>text</p><h2>B</h2><pre>x\n  y</pre>", "# A\n\ntext\n\n## B\n\n    x\n      y"),
        (
            "<p>Rows:</p><table><tr><th>Key</th><th>Value</th></tr><tr><td>a</td><td>1</td></tr></table>",
            "Rows:\n\n- Key | Value\n- a | 1",
        ),
        ("<p>It cost</p><p>€49.00</p><p>***</p>", "It cost\n\n€49.00"),
        # Inline elements.
        ("<p>so<wbr>ft tail <b>bold</b> more</p>", "soft tail bold more"),
        ("<p>an <my-icon></my-icon>icon and <x-term>its name</x-term> after</p>", "an icon and its name after"),
        ("<p>on <time datetime='2023-01-02'>2 January</time> at noon</p>", "on 2 January at noon"),
        ("<p>He said <q>no</q> and left.</p>", "He said “no” and left."),
        ("<p>a<svg><text>drawn</text></svg>b<script>x()</script>c<!-- d -->e</p>", "abce"),
        ("<p>10<sup>-6</sup> m<sup>2</sup>, H<sub>2</sub>O, 1<sup>st</sup></p>", "10⁻⁶ m², H2O, 1st"),
        ("<p>shared<sup><a href='#1'>1</a></sup> by all<sup>[2]</sup></p>", "shared¹ by all[2]"),
        ("<p><code>f()</code> and <code></code>nothing</p>", "`f()` and nothing"),
        ("<p>one<br>two<br><br>three</p>", "one two\n\nthree"),
        ("<p>Roses are red<br>\nviolets <i>are<br>blue</i><br/></p>", "Roses are red\nviolets are\nblue"),
        # Figures and formulas.
        ("<figure><img src=a alt=b><figcaption>The gate</figcaption></figure><p>Text</p>", "The gate\n\nText"),
        ("<p>if <math alttext='x^2'><msup><mi>x</mi><mn>2</mn></msup></math> holds</p>", "if x^2 holds"),
        (
            "<p>so <math><semantics><mi>x</mi><annotation encoding='application/x-tex'>\\xi</annotation></semantics>"
            "</math>.</p>",
            "so \\xi.",
        ),
        ("<p><math><mfrac><mi>a</mi><msqrt><mi>b</mi></msqrt></mfrac></math> is it</p>", "a/(√(b)) is it"),
        ("<p>as <math alttext='{\\displaystyle E=mc^{2}}'></math> says</p>", "as E=mc^{2} says"),
        ("<p>if <script type='math/tex'>x<y</script> and <script>z()</script>then</p>", "if x<y and then"),
        # A hidden formula is what a picture shows.
        ("<p>of <span style='display:none'><math alttext='c'></math></span>two</p>", "of ctwo"),
        # Headings.
        ("<h1>Learn C#</h1><h2>Use<a href='#use'>#</a></h2><p>Text</p>", "# Learn C#\n\n## Use\n\nText"),
        ("<h2><button>Is it open?</button></h2><p>Yes <button>Copy</button></p>", "## Is it open?\n\nYes"),
        # Lists.
        ("<ul><li>a<ul><li>b</li></ul>c</li><li><p>d</p><p>e</p></li></ul>", "- a\n- b\n\nc\n\n- d\n\ne"),
        ("<dl><dt>size:</dt><dd><p>how many</p></dd><dt>empty</dt></dl>", "- size: how many\n- empty"),
        ("<ul><li>one<li>two</ul>", "- one\n- two"),
        # Code.
        ("<pre>a<br>b<div>c</div>d</pre>", "    a\n    b\n    c\n    d"),
        ("<pre><code>a <q>b</q></code></pre>", "    a b"),
        (
            "<table><tr><td class=linenos><pre>1\n2</pre></td><td><pre>x\ny</pre></td></tr></table>",
            "    x\n    y",
        ),
        (
            "<table class=highlight><tr><td class=blob-num>1</td><td class=blob-code>if x:</td></tr>"
            "<tr><td class=blob-num>2</td><td class=blob-code>    y()</td></tr></table>",
            "    if x:\n        y()",
        ),
        ("<p>Run <code>a<br>b</code></p>", "Run\n\n    a\n    b"),
        # Tables that lay out a page are blocks.
        ("<table><tr><td><h2>Left</h2><p>a</p></td><td><p>b</p></td></tr></table>", "## Left\n\na\n\nb"),
        ("<table><caption>Tides</caption><tr><td>a</td><td><p>b</p></td></tr></table>", "Tides\n\n- a | b"),
        # What nobody sees.
        ("<p>seen</p><p hidden>no</p><p style='display: none'>no</p><template><p>no</p></template>", "seen"),
        (
            "<p>seen by all<span class='sr-only'>no</span></p><p aria-hidden='true'>no</p><dialog>no</dialog>",
            "seen by all",
        ),
    ],
)
def test_what_a_reader_sees_is_kept(body: str, text: str):
    assert page(body) == text


@pytest.mark.parametrize("between", ["</body></html>", "</body>", "</body></html><html><body>", "</BODY ></HTML\n>"])
def test_what_follows_the_end_of_the_page_is_kept(between: str):
    page = f"<html><body><p>one first paragraph</p>{between}<p>and a second</p> tail</body></html>"
    assert extract(page, "html") == "one first paragraph\n\nand a second\n\ntail"


def test_the_title_is_the_heading_of_a_page_without_one():
    assert (
        html("<html><head><title>Tides</title></head><body><p>High at 7.</p></body></html>") == "# Tides\n\nHigh at 7."
    )
    assert html("<html><head><title>Tides | Port</title></head><body><h1>Tides</h1><p>At 7.</p></body></html>") == (
        "# Tides\n\nAt 7."
    )
    # A heading of another level that the title repeats.
    assert html("<html><head><title>Tides - Port</title></head><body><h2>Tides</h2><p>At 7.</p></body></html>") == (
        "## Tides\n\nAt 7."
    )


@pytest.mark.parametrize(
    "furniture",
    [
        "<nav><a href='/'>Home</a></nav>",
        "<div class='site-nav'>Home</div>",
        "<div role='navigation'>Home</div>",
        "<footer>Imprint</footer>",
        "<div id='page-footer'>Imprint</div>",
        "<aside><h3>Read next</h3><p>Another text</p></aside>",
        "<div class='relatedPosts'>Another text</div>",
        "<div class='cookie-banner'><p>We use cookies.</p></div>",
        "<form><label>Mail</label><input><button>Send</button></form>",
        "<div class='comments'><p>Nice!</p></div>",
        "<div><a href='/a'>One</a> <a href='/b'>Two</a></div>",
        "<p>© 2020 All rights reserved</p>",
    ],
)
def test_furniture_is_left_out(furniture: str):
    assert page(f"<h1>Title</h1><p>{LONG}</p>{furniture}") == f"# Title\n\n{LONG.strip()}"


def test_what_has_most_of_the_text_is_content_whatever_it_is_called():
    assert page(f"<div class='sidebar-layout comments'><p>{LONG}</p></div>") == LONG.strip()
    assert page(f"<form><p>{LONG}</p></form>") == LONG.strip()
    assert page(f"<div hidden><p>{LONG}</p></div>") == LONG.strip()
    answers = "".join(f"<h3>Q{n}</h3><div style='display:none'>{LONG}</div>" for n in range(3))
    assert page(f"<h1>FAQ</h1>{answers}").count("long enough") == 12
    thread = "".join(f"<div class='comment'><p>{n} {LONG}</p></div>" for n in range(3))
    assert page(f"<h1>A thread</h1>{thread}").count("long enough") == 12


def test_a_note_in_an_article_and_the_source_of_a_quotation_are_content():
    text = page(
        f"<article><header><h1>T</h1><p>By A. Smith</p></header><p>{LONG}</p><aside>A note.</aside>"
        "<blockquote><p>Words</p><footer>— B. Jones</footer></blockquote></article>"
    )
    assert text == f"# T\n\nBy A. Smith\n\n{LONG.strip()}\n\nA note.\n\nWords\n\n— B. Jones"


def test_a_note_between_paragraphs_is_content_without_an_article_element_too():
    text = page(f"<h1>T</h1><p>{LONG}</p><aside class='notice'>The fee is not returned.</aside><h2>U</h2><p>{LONG}</p>")
    assert "\n\nThe fee is not returned.\n\n## U" in text


def test_a_list_of_links_is_content_where_there_is_nothing_else():
    links = "".join(f"<li><a href='/{n}'>Chapter {n}</a></li>" for n in range(3))
    assert page(f"<h1>Contents</h1><ul>{links}</ul>") == "# Contents\n\n- Chapter 0\n- Chapter 1\n- Chapter 2"


def test_a_bar_of_links_is_left_out_and_a_list_of_links_in_the_text_is_kept():
    bar = "<div><a href='/f'>Facebook</a> <a href='/t'>Twitter</a></div>"
    see = "<h2>See also</h2><div><ul><li><a href='/x'>X</a></li><li><a href='/y'>Y</a></li></ul></div>"
    assert page(f"<h1>T</h1><p>{LONG}</p>{bar}{see}<p>End of it.</p>") == (
        f"# T\n\n{LONG.strip()}\n\n## See also\n\n- X\n- Y\n\nEnd of it."
    )
    assert page(f"<h1>T</h1>{bar}") == "# T\n\nFacebook Twitter"


def test_a_fragment_keeps_everything_that_is_seen():
    assert html("<div class=footer>a<br>b</div><p>c") == "a b\n\nc"
    assert html("") == html("<!-- only this -->") == ""


def test_an_encoding_that_is_declared_in_the_text_changes_nothing():
    assert html('<?xml version="1.0" encoding="latin-1"?><html><body><p>Żółć</p></body></html>') == "Żółć"
