"""Raw text of each markup that is extracted."""

from collections.abc import Sequence
from importlib.metadata import distributions

from benchmarks.data.texts import sample
from sluice.data.document import Document

_PAGE = "<!doctype html><html><head><title>{title}</title></head><body><nav>Home</nav><main>{body}</main></body></html>"


def by_markup(raw: Sequence[Document], size_bytes: int) -> dict[str, list[str]]:
    """About `size_bytes` of each: reStructuredText of `raw` and the same read as plain text; Markdown of the long
    descriptions of the installed packages, and web pages made from those.
    """
    from markdown_it import MarkdownIt

    rst = sample([document.text for document in raw if document.metadata["markup"] == "rst"], size_bytes)
    markdown = sample(_descriptions(), size_bytes)
    renderer = MarkdownIt()
    pages = [_PAGE.format(title="description", body=renderer.render(text)) for text in markdown]
    return {"rst": rst, "md": markdown, "html": pages, "txt": rst}


def _descriptions() -> list[str]:
    found = set()
    for distribution in distributions():
        metadata = distribution.metadata.json
        if "markdown" in str(metadata.get("description_content_type") or ""):
            found.add(str(metadata.get("description") or ""))
    return sorted(text for text in found if text.strip())
