"""Names of languages: codes of those that are identified, and two names for documents that are in none."""

UNDETERMINED = "undetermined"
"""Language of a document that is too short or too strange to be identified."""
CODE = "code"
"""Language of a document that is program code as a whole."""

IDENTIFIED = frozenset(
    """
    ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo
    fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km
    kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt
    qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa
    wuu xh yo yue zh zu
    """.split()  # noqa: SIM905
)
"""ISO 639 codes of the languages that py3langid knows."""


def is_wanted(language: str, wanted: list[str]) -> bool:
    """Return whether `refine.languages` keeps a document: code is kept beside any language, having none."""
    return language in wanted or language == CODE
