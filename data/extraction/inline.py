"""Convert inline markup of reStructuredText (with Sphinx's roles) to plain words; literals become `literal`."""

import re
from collections.abc import Callable, Mapping

from sluice.data.writing_systems import one_line

# One pass over the text: the content of a literal must not be parsed as markup again, so the alternatives are ordered
# from the most to the least binding, as in docutils. Names have a maximum length: in a long run of name characters,
# each would be searched up to the end of the run.
_BINDING = r"""
      ``(?P<literal>.+?)``(?!`)
    | :(?P<role>[A-Za-z][\w.+:-]{0,99}):`(?P<target>[^`]+)`
    | (?<![\w`])_?`(?P<interpreted>[^`\s](?:[^`]*[^`\s])?)`
      (?::(?P<trailing_role>[A-Za-z][\w.+:-]{0,99}):|__?)?(?!`)
    | (?<![\w|])\|(?P<substitution>[^|\s](?:[^|]*[^|\s])?)\|_{0,2}(?![\w|])
"""
# Only this one searches its end beyond the next mark, so the first `**` without an end is matched separately: none
# after it has an end either.
_STRONG = r"""
    | (?<![\w*])\*\*(?P<strong>[^\s*](?:.*?[^\s])?)\*\*(?!\w)
    | (?<![\w*])(?P<endless>\*\*)(?=[^\s*])
"""
_LOOSE = r"""
    | (?<![\w*])\*(?P<emphasis>[^\s*](?:[^*]*[^\s*])?)\*(?![\w*])
    | \s?\[(?P<footnote>\#?[\w.-]*|\*)\]_(?!\w)
    | (?<![\w`/:.@])(?P<word>[A-Za-z0-9](?:[\w.+-]{0,199}[A-Za-z0-9])?)__?(?=[\s.,;:!?)\]'"]|$)
    | \\(?P<escaped>.)
"""
_INLINE = re.compile(_BINDING + _STRONG + _LOOSE, re.VERBOSE | re.DOTALL)
_INLINE_WITHOUT_STRONG = re.compile(_BINDING + _LOOSE, re.VERBOSE | re.DOTALL)
_SPACE_BEFORE_PUNCTUATION = re.compile(r"(?<=[\w`)\"']) (?=[,.;](?:\s|\Z))")
_TARGET = re.compile(r"<[^<>]*>\Z")
_CALLABLE_ROLES = frozenset({"func", "meth"})
# What Sphinx-Gallery puts around the name of an example.
_GALLERY = re.compile(r"\Asphx_glr_(?:auto_examples_)?|_py\Z")
_NUMBER_ROLES = frozenset({"ticket", "issue", "pull", "pr", "gh"})
_SILENT_ROLES = frozenset({"index", "raw", "raw-html", "bdg-primary", "octicon"})


def plain_words(text: str, substitutions: Mapping[str, str], labels: Mapping[str, str] | None = None) -> str:
    """Return the words of one paragraph as rendered, on one line.

    `labels` maps the targets of `:ref:` to the titles they refer to.
    """

    def replace(match: re.Match[str]) -> str:
        kind = match.lastgroup
        if kind == "literal":
            return f"`{one_line(match['literal'])}`"
        if match["target"] is not None:
            return role_text(match["role"], one_line(match["target"]), labels)
        if match["interpreted"] is not None:
            return role_text(match["trailing_role"] or "", one_line(match["interpreted"]), labels)
        if match["substitution"] is not None:
            return substitutions.get(match["substitution"], match["substitution"])
        if match["footnote"] is not None:
            # A numbered mark is useless without its note; a citation key such as [Knuth1997] is a name.
            return f" [{match['footnote']}]" if match["footnote"][:1].isalpha() else ""
        if match["escaped"] is not None:
            return "" if match["escaped"].isspace() else match["escaped"]
        if match["emphasis"] is not None:
            return plain_words(match["emphasis"], substitutions, labels)
        if match["word"] is not None:
            return match["word"]
        return plain_words(match["strong"], substitutions, labels)

    plain = _with_strong(text, replace) if "**" in text else _INLINE_WITHOUT_STRONG.sub(replace, text)
    return _SPACE_BEFORE_PUNCTUATION.sub("", one_line(plain))


def _with_strong(text: str, replace: Callable[[re.Match[str]], str]) -> str:
    words: list[str] = []
    end = 0
    for match in _INLINE.finditer(text):
        words.append(text[end : match.start()])
        end = match.end()
        if match.lastgroup == "endless":
            return "".join(words) + "**" + _INLINE_WITHOUT_STRONG.sub(replace, text[end:])
        words.append(replace(match))
    return "".join(words) + text[end:]


def role_text(role: str, target: str, labels: Mapping[str, str] | None = None) -> str:
    """Return the text of a role: its title if it has one, else the target as Sphinx abbreviates it."""
    short = role.rsplit(":", 1)[-1]
    if short in _SILENT_ROLES:
        return ""
    if short == "math":
        return target
    if (address := _TARGET.search(target)) and (title := target[: address.start()].rstrip()):
        return title.replace("\\", "")
    name = target.strip().strip("<>")
    if name.startswith("!"):
        name = name[1:]
    elif name.startswith("~"):
        name = name[1:].rsplit(".", 1)[-1]
    name = name.lstrip(".") if role else name
    if short in ("ref", "doc", "numref"):
        # A title in another file is not known here; the words of the label are close to it.
        return (labels or {}).get(name.lower()) or " ".join(
            re.split(r"[-_:\s]+", _GALLERY.sub("", name.rsplit("/", 1)[-1]))
        ).strip()
    if short in _NUMBER_ROLES and name.isdigit():
        return f"#{name}"
    if short in _CALLABLE_ROLES and not name.endswith(")"):
        name += "()"
    return {"pep": f"PEP {name}", "rfc": f"RFC {name}", "cve": f"CVE-{name}"}.get(short, name)
