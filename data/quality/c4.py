"""C4's scores (arXiv 1910.10683, section 2.2), over prose. C4 removes lines; here they are only counted."""

import re

from sluice.data.quality.prose import Prose
from sluice.data.quality.rule import QualityRule

RULES = (
    QualityRule("few_sentences", "sentences", True, "min_sentences"),
    QualityRule("curly_brackets", "curly_brackets", False, "max_curly_brackets"),
    QualityRule("placeholder_text", "placeholder_texts", False, "max_placeholder_texts"),
    QualityRule("javascript_lines", "javascript_lines", False, "max_javascript_lines"),
    QualityRule("policy_lines", "policy_lines", False, "max_policy_lines"),
)

POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)

# A stop inside a name or a number ends no sentence, and neither do the first dots of an ellipsis.
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)|[。！？]")


def scores(prose: Prose) -> dict[str, float]:
    """Count sentences, curly brackets outside literals, placeholder texts, and lines about scripts and policies."""
    return {
        "sentences": len(_SENTENCE_END.findall(prose.text)),
        "curly_brackets": prose.spoken.count("{"),
        "placeholder_texts": prose.lowered.count("lorem ipsum"),
        "javascript_lines": _lines_with(prose, ("javascript",)),
        "policy_lines": _lines_with(prose, POLICY_PHRASES),
    }


def _lines_with(prose: Prose, phrases: tuple[str, ...]) -> int:
    present = [phrase for phrase in phrases if phrase in prose.lowered]
    if not present:
        return 0
    return sum(any(phrase in line for phrase in present) for line in prose.lowered.split("\n"))
