"""Recognise program code by its lines, without naming the language.

A text is code if at least half of its characters are in lines that look like code, at least LEAST_LINES of them. A line
looks like code if it ends or begins with a bracket, an operator or a mark of a comment, is an assignment, a call or a
tag, or begins with a keyword and what follows that keyword in a program. Blank lines, `#` before a text (a heading in
some files, a comment in others), the content of docstrings and of `/* */`, and fenced code, which stands in a text, do
not count. A long line, such as the one of a minified script, is judged by its brackets and operators.
"""

import re

_INDENT = "    "
_LOOKED_AT = 20_000
LEAST_LINES = 2
LEAST_SHARE = 0.5

_ANYTHING = r"[\s\S]{0,4000}?"
"""A longer quotation counts line by line. Without a limit, each `/*` that is never closed costs a search to the end."""
_QUOTED = re.compile(
    rf'"""{_ANYTHING}"""|\'\'\'{_ANYTHING}\'\'\'|/\*{_ANYTHING}\*/|^ {{0,3}}```{_ANYTHING}^ {{0,3}}```', re.MULTILINE
)
_COMMENT = re.compile(r"#{1,6}(?:\s|\Z)")
_ENDS = re.compile(r"(?:[{}(\[;\\=]|[)\]}]\s*[:,]|=>|->|&&|/>|\*/|[\"'],)\Z")
_BEGINS = re.compile(
    r"[{})\]]|//|/\*|\*/|#!|#\s*(?:include|define|ifn?def|if|else|elif|endif|undef|pragma)\b|--\s|@\w|\$\s|>>>\s"
    r"|</?[A-Za-z][^<>]*>(?!\s\w)|<[!?]|[a-z][\w./-]*(?:\s[\w.-]+)?\s--?[A-Za-z][\w-]*(?:[\s=]|\Z)"
)
_ASSIGNS = re.compile(
    r"""[\w.$@*>'"\[\]-]+(?:\s*:\s*[\w.\[\], |]+)?\s*(?:[-+*/%&|^:?]|\*\*|//|<<|>>)?=(?![=>])\s*\S"""
    r"""|"[\w.$ -]+"\s*:\s"""
)
_CALLS = re.compile(r"[\w$]+(?:(?:\.|->|::)[\w$]+)*\(.*\)?[,;]?\Z")
_KEYWORDS = re.compile(
    r"""(?:
      (?:async\s+)?(?:def|fn|func|function|class|struct|interface|trait|impl|enum|module|namespace)\s+[\w$]+\s*(?:[(:{<]|\Z)
    | from\s+[\w.]+\s+import\b | import\s+[\w.*{}"'/, ]+(?:\Z|\s(?:as|from)\s) | package\s+[\w.]+\Z | use\s+[\w:]+\Z
    | (?:return|yield|raise|throw|await|assert|del|goto|export|const|let|var|public|private|static)\s\S
    | (?:if|elif|while|for|switch|with|except|catch|case|match|until)\b.*(?:[:{)]|\bthen|\bdo)\Z
    | (?:else|try|finally|default|begin|fi|done|esac|end|pass|break|continue|return)\s*:?\Z
    | (?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|CREATE|ALTER|DROP|FROM|WHERE|JOIN|GROUP\s+BY|ORDER\s+BY)\s
    )""",
    re.VERBOSE,
)
_LONG_LINE = 200
_SYMBOL = re.compile(r"[{}()\[\]=;<>&!$\\]")
LEAST_SYMBOL_SHARE = 0.08
"""Share of the characters of a long line of code."""
_SIGNS = (_ENDS.search, _BEGINS.match, _ASSIGNS.match, _CALLS.match, _KEYWORDS.match)


def code_share(text: str) -> float:
    """Share of the characters of telling lines that are in lines that look like code; 0 for fewer than LEAST_LINES."""
    stripped = map(str.strip, _QUOTED.sub('""', text).split("\n"))
    lines = [line for line in stripped if line and (_BEGINS.match(line) or not _COMMENT.match(line))]
    code = [line for line in lines if _looks_like_code(line)]
    is_enough = len(code) >= LEAST_LINES or any(len(line) > _LONG_LINE for line in code)
    return sum(map(len, code)) / sum(map(len, lines)) if is_enough else 0.0


def is_code(text: str) -> bool:
    """Return whether a document is code as a whole, not a text with blocks of code; its beginning decides."""
    return code_share("\n".join(prose_lines(text[:_LOOKED_AT].split("\n")))) >= LEAST_SHARE


def prose_lines(lines: list[str]) -> list[str]:
    """Return the lines outside of blocks of code, or all if there are no others.

    Such a block is indented by four and follows a blank line: an indented line right after a line of text is text.
    """
    kept: list[str] = []
    begins = True
    for line in lines:
        if not (begins and line.startswith(_INDENT)):
            kept.append(line)
            begins = not line or line.isspace()
    return kept if any(map(str.strip, kept)) else lines


def _looks_like_code(line: str) -> bool:
    if len(line) > _LONG_LINE:
        return len(_SYMBOL.findall(line)) >= LEAST_SYMBOL_SHARE * len(line)
    return any(sign(line) for sign in _SIGNS)
