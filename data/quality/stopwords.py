"""Stop words: small words that hardly a page of running text of their language does without.

Gopher's eight for English (arXiv 2112.11446, appendix A), and as many of their kind for languages that put spaces
between words. Lists are short on purpose: the rule asks whether there are sentences, not what they say.
"""

from collections.abc import Collection

from sluice.data.config import UNDETERMINED

STOP_WORDS: dict[str, frozenset[str]] = {
    "en": frozenset({"the", "be", "to", "of", "and", "that", "have", "with"}),
    "cs": frozenset({"a", "je", "se", "na", "že", "to", "které", "pro", "do", "jako"}),
    "da": frozenset({"og", "det", "som", "ikke", "til", "med", "af", "er", "på", "for"}),
    "de": frozenset({"der", "die", "das", "und", "ist", "nicht", "mit", "von", "zu", "ein"}),
    "es": frozenset({"el", "la", "de", "que", "y", "en", "los", "con", "para", "una"}),
    "fi": frozenset({"ja", "on", "ei", "että", "se", "joka", "kun", "myös", "mutta", "tai"}),
    "fr": frozenset({"le", "la", "les", "de", "et", "est", "que", "dans", "pour", "une"}),
    "it": frozenset({"il", "la", "di", "che", "e", "per", "non", "con", "una", "sono"}),
    "nl": frozenset({"de", "het", "een", "van", "en", "is", "niet", "met", "dat", "voor"}),
    "nn": frozenset({"og", "det", "som", "ikkje", "til", "med", "av", "er", "på", "for"}),
    "no": frozenset({"og", "det", "som", "ikke", "til", "med", "av", "er", "på", "for"}),
    "pl": frozenset({"i", "w", "na", "nie", "się", "jest", "że", "do", "z", "to"}),
    "pt": frozenset({"o", "a", "de", "que", "e", "não", "para", "com", "uma", "os"}),
    "ru": frozenset({"и", "в", "не", "на", "что", "с", "как", "это", "по", "для"}),
    "sv": frozenset({"och", "det", "som", "inte", "till", "med", "av", "är", "på", "för"}),
    "tr": frozenset({"ve", "bir", "bu", "için", "ile", "de", "da", "olarak", "daha", "olan"}),
    "uk": frozenset({"і", "в", "не", "на", "що", "з", "як", "це", "та", "для"}),
}
"""ISO 639-1 code, as returned by language identification -> its stop words."""

WITHOUT_LANGUAGE = frozenset({UNDETERMINED})

APPLICABLE = frozenset(STOP_WORDS) | WITHOUT_LANGUAGE
"""Languages that the stop-word rule applies to. Text without linguistic content has no stop words, and fails."""


def stop_words(vocabulary: Collection[str], language: str) -> int:
    """Count the different stop words: of the language, or of English where these are more.

    Terse English pages are often identified as a related language, and must not be dropped for that.
    """
    present = set(vocabulary)
    return max(len(STOP_WORDS.get(code, frozenset()) & present) for code in ("en", language))
