"""A part of a page that a command writes, between two comments; the rest of the page is people's or other commands'."""


def put(page: str, name: str, text: str) -> str:
    """`page` with `text` between the marks of `name`, which stand at its end where they were not yet.

    ValueError where one mark stands without the other.
    """
    opening, closing = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    block = f"{opening}\n{text.strip()}\n{closing}"
    if opening not in page and closing not in page:
        return f"{page.rstrip()}\n\n{block}\n".lstrip()
    before, found, rest = page.partition(opening)
    _, closed, after = rest.partition(closing)
    if not found or not closed:
        raise ValueError(f"one of the marks {opening} and {closing} is missing: put it back, or take both out")
    return before + block + after
