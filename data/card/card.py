"""The data card: one HTML page about a refined folder, without external assets; equal folders give equal bytes."""

from pathlib import Path

from sluice.core.files import atomic_write
from sluice.data.card import numbers
from sluice.data.card.folder import open_folder
from sluice.data.card.view import make_card

CARD_FILE = "card.html"
_HERE = Path(__file__).parent


def write_card(
    folder: Path, out: Path | None = None, *, tokenizer: Path | None = None, packed: Path | None = None
) -> Path:
    """Write the card of a refined folder to `out`, by default card.html inside it, and return its path.

    `tokenizer` and `packed` are folders of those steps, to show their reports too. Raises ValueError naming the file
    where a folder is not what it should be.
    """
    path = out or folder / CARD_FILE
    page = render(folder, tokenizer=tokenizer, packed=packed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        # A lone surrogate in the path of a source has no UTF-8 form; the page shows it escaped.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def render(folder: Path, *, tokenizer: Path | None = None, packed: Path | None = None) -> str:
    """Render the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    card = make_card(open_folder(folder), tokenizer, packed)
    # Documents are untrusted: everything is escaped except the charts, which escape their labels themselves.
    page = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in ("count", "size", "share", "label", "number"):
        page.filters[name] = getattr(numbers, name)
    page.filters["unescaped"] = Markup
    page.filters["heat"] = heat
    style = (_HERE / "card.css").read_text(encoding="utf-8")
    return page.get_template("card.html.j2").render(card=card, style=style)


def heat(passed: int, documents: int) -> int:
    """Colour level of a pass rate, from 0 where nearly every document passes to 5 where most do not."""
    failing = 1 - passed / documents if documents else 0.0
    return sum(failing > step for step in (0.01, 0.03, 0.1, 0.25, 0.5))
