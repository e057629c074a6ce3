"""Find keys, tokens and passwords.

Tokens are found with the patterns of detect-secrets' plugins, read from each plugin: their `analyze_string` returns
only the prefix of a token whose pattern has a group (`ghp` of GitHub's), and scanning with its settings may verify a
secret over the network. Not used are the plugins that match ordinary words of documentation (Artifactory's
`APEnvironment..`, the keyword plugin's `password="secret"`), any hash (the entropy plugins) or any value of one name
(IBM, Azure, npm): instead, a value is masked if the name before it is that of a secret AND it looks random.

Stand-ins for secrets (`<password>`, `your-api-key`, `AKIA..EXAMPLE`) are kept.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from math import log2
from typing import NamedTuple

from sluice.data.privacy.addresses import Range

_SHORTEST = 16
# Of a run of 16 characters or more, any digit has 8 or more on one side.
_DIGIT_IN_RUN = re.compile(r"[0-9](?:\S{8}|(?<=\S{9}))")
_LONGEST = 2048  # So that no pattern is quadratic in more than this.
_RUN = re.compile(rf"\S{{1,{_LONGEST}}}")


class _Tokens(NamedTuple):
    """One plugin of detect-secrets."""

    module: str
    plugin: str
    sign: str
    """Pattern that every token of the plugin contains; cheaper than the plugin's own."""
    is_exact: bool = False
    """Whether anything longer than the plugin's pattern is something else, such as a hash or base64."""
    is_signed: bool = True
    """Whether the beginning identifies the token; if not, a token must have a digit."""


_PLUGINS = (
    _Tokens("aws", "AWSKeyDetector", "AKIA|ASIA|ABIA|ACCA|A3T", is_exact=True),
    _Tokens("github_token", "GitHubTokenDetector", "gh[pousr]_"),
    _Tokens("gitlab_token", "GitLabTokenDetector", "gl[a-z]{2,5}-|GR1348941"),
    _Tokens("slack", "SlackDetector", "xox|hooks[.]slack"),
    _Tokens("stripe", "StripeDetector", "k_live_"),
    _Tokens("sendgrid", "SendGridDetector", "SG[.]"),
    _Tokens("discord", "DiscordBotTokenDetector", r"[.][\w-]{6}[.][\w-]{27}", is_exact=True, is_signed=False),
    _Tokens("telegram_token", "TelegramBotTokenDetector", r":[\w-]{35}", is_exact=True, is_signed=False),
    _Tokens("openai", "OpenAIDetector", "T3BlbkFJ"),
    _Tokens("pypi_token", "PypiTokenDetector", "pypi-AgE"),
    _Tokens("square_oauth", "SquareOAuthDetector", "sq0csp-"),
    _Tokens("mailchimp", "MailchimpDetector", "-us[0-9]", is_exact=True, is_signed=False),
    _Tokens("twilio", "TwilioKeyDetector", "AC[a-z0-9]{32}|SK[a-z0-9]{32}", is_exact=True, is_signed=False),
)
# Younger than detect-secrets 1.5: GitHub, npm, Google, Hugging Face, Docker and Anthropic.
_YOUNGER = re.compile(
    r"github_pat_\w{50,255}|npm_[A-Za-z0-9]{36}|AIza[\w-]{35}|hf_[A-Za-z0-9]{34}|dckr_pat_[\w-]{27}|sk-ant-[\w-]{40,200}"
)
_YOUNGER_SIGN = re.compile("github_pat_|npm_|AIza|hf_|dckr_pat_|sk-ant-")
# Beginnings of the tokens above that may continue in letters alone; Hugging Face's always do (gitleaks' rule).
_BEGINNINGS = (
    *("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "npm_", "dckr_pat_", "sk_live_", "rk_live_"),
    *("sk-ant-", "glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "glcbt-", "glimt-", "glptt-", "glagent-", "gloas-"),
    *("sq0csp-", "AKIA", "ASIA", "ABIA", "ACCA", "AIza", "SG."),
)
_LONGEST_BEGINNING = max(map(len, _BEGINNINGS))


def _after(sign: str) -> re.Pattern[str]:
    """Return a pattern of letters alone after a beginning that ends with `sign`. The search jumps from sign to sign:
    all beginnings at once take seven times as long.
    """
    ends = "|".join(f"(?<={re.escape(each)})" for each in _BEGINNINGS if each.endswith(sign))
    return re.compile(rf"{re.escape(sign)}(?=[A-Za-z_.-]{{16}})(?:{ends})[A-Za-z_.-]{{16,{_LONGEST}}}")


_LETTERS_ALONE = (
    *map(_after, "_-"),
    *(re.compile(rf"{beginning}[A-Za-z_.-]{{16,{_LONGEST}}}") for beginning in ("A(?:[KSB]IA|CCA|Iza)", "SG[.]")),
)
# snake_case, kebab-case and CamelCase.
_NAME = re.compile(
    r"\W?(?:(?:[a-z]+|[A-Z]+|[A-Z][a-z]+)(?:[_.-]+(?:[a-z]+|[A-Z]+|[A-Z][a-z]+))+|[a-z]*(?:[A-Z][a-z]{2,}){2,})[_.-]*"
)
_WEB_TOKEN = re.compile(r"eyJ[\w=-]{4,}\.[\w=-]{4,}(?:\.[\w=-]*)?")
_REST = re.compile(r"[A-Za-z0-9_-]*")

_NAME_BEFORE = re.compile(
    r"(?:secret|token|passw(?:or)?d|passphrase|pwd|credential|"
    r"(?:api|access|auth|private|account|client|signing|encryption)[_-]?key)s?"
    r"(?:[_-]?(?:access|key|id|value|secret|token|prod|dev|test|[0-9]{1,2})){0,2}"
    r"(?:[\"'`\]]{0,2}\s{0,3}(?:=>|:=|={1,2}|:|\bis\b)\s{0,3}|\s)"
    r"(?:Bearer |Token |Basic |[rbu](?=[\"']))?[\"'`(]{0,2}\Z"
    r"|\bBearer [\"'`]?\Z",
    re.IGNORECASE,
)
_PASSWORD_NAMES = (
    *("password", "passwd", "passphrase", "passwort", "pwd"),
    *("mot de passe", "contraseña", "密码", "パスワード"),
)
_PASSWORD_NAME = re.compile(
    rf"(?:{'|'.join(_PASSWORD_NAMES)})s?"
    r"[\"'`]?\s{0,3}(?:=>|:=|={1,2}|[:：]|\bis\b)\s{0,3}[\"'`]?",
    re.IGNORECASE,
)
# Marks that end a sentence or a quotation may follow it, so they do not end it.
_PASSWORD = re.compile(r"[\w!@#$%^&*+=?~-]{7,63}[\w!@#$%^&*+=~-]")
_VALUE = re.compile(r"[A-Za-z0-9](?<![\w$/+.-].)[A-Za-z0-9+/_-]{15,511}={0,2}(?![\w(]|\.\w)")
# Alternating letters and digits, unlike a word with its version.
_MIXED = re.compile(r"(?=[A-Za-z0-9]*?(?:[A-Za-z][0-9]+[A-Za-z]|[0-9][A-Za-z]+[0-9]))[A-Za-z0-9]{8,}")
_CHANGE = re.compile(r"[a-z](?=[A-Z0-9])|[A-Z](?=[a-z0-9])|[0-9](?=[A-Za-z])")
_LEAST_CHANGES = 0.45
"""Changes per character: random letters and digits have 0.6, names in camel case 0.3."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LEAST_ENTROPY = 3.0
"""Bits per character: detect-secrets' limit for hexadecimal strings. `deadbeef` repeated has 2.3."""

_STAND_IN = re.compile(
    r"example|your|placeholder|dummy|sample|redacted|changeme|xxxx|0123456|1234567|abcdef|\.\.\.|\A[<{\[$%*]",
    re.IGNORECASE,
)
# The pattern of detect-secrets excludes passwords with `!` or `$`, which RFC 3986 allows.
_URL_PASSWORD = re.compile(r"://([^\s/@:]{0,64}):([^\s/@]{1,128})@")
_STAND_IN_PASSWORD = re.compile(
    r"(?:[a-z]+[_-])*(?:my|user|the|your)?(?:password|passwd|passw0rd|pass|pwd|pw|secret|token|key|apikey|test)\d?|x{1,3}",
    re.IGNORECASE,
)

_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(r"(?:(?:\\[nr]|[\s\"'+,]){0,12}[A-Za-z0-9+/=]{16,128})*")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/]{40}")
_LONGEST_KEY = 20_000


def secrets(text: str) -> Iterator[Range]:
    """Yield private keys in PEM, passwords in URLs, tokens, and random values with a secret's name."""
    if "PRIVATE KEY" in text:
        yield from _private_keys(text)
    for match in _URL_PASSWORD.finditer(text) if "://" in text else ():
        user, password = match.groups()
        if password != user and not _STAND_IN_PASSWORD.fullmatch(password) and not _STAND_IN.search(password):
            yield match.span(2)
    lowered = text.lower()
    if any(name in lowered for name in _PASSWORD_NAMES):
        yield from _passwords(text)
    ranges = list(_runs(text))
    for pattern in _LETTERS_ALONE:
        # Letters alone that begin like a token, including their beginning.
        ranges += [(max(run.start() - _LONGEST_BEGINNING, 0), run.end()) for run in pattern.finditer(text)]
    runs = "\n".join(text[start:end] for start, end in ranges)
    finders: list[Callable[[str, int, int], Iterator[Range]]] = [
        partial(_whole, pattern=pattern, is_exact=tokens.is_exact, is_signed=tokens.is_signed)
        for tokens in _PLUGINS
        if re.search(tokens.sign, runs)
        for pattern in _patterns(tokens.module, tokens.plugin)
    ]
    if _YOUNGER_SIGN.search(runs):
        finders.append(partial(_whole, pattern=_YOUNGER))
    if "eyJ" in runs:
        finders.append(_web_tokens)
    if any(_is_random(match[0]) for match in _VALUE.finditer(runs)):
        finders.append(_named_values)
    for start, end in ranges if finders else ():
        for finder in finders:
            yield from finder(text, start, end)


def _passwords(text: str) -> Iterator[Range]:
    """Yield values with a password's name that mix cases and digits with each other or with marks."""
    for name in _PASSWORD_NAME.finditer(text):
        match = _PASSWORD.match(text, name.end())
        if match is None or _STAND_IN.search(match[0]) or text[match.end() : match.end() + 1] in {"(", "[", "."}:
            continue
        value = match[0]
        is_mixed = all(re.search(kind, value) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
        if is_mixed and (re.search(r"[^\w-]", value) or _is_random(value)) and _entropy(value) >= _LEAST_ENTROPY:
            yield match.span()


def _runs(text: str) -> Iterator[Range]:
    """Yield long runs without white space and with a digit, as all tokens have; most texts have few. Very long ones are
    split.
    """
    place = 0
    while digit := _DIGIT_IN_RUN.search(text, place):
        start, least = digit.start(), max(place, digit.start() - _LONGEST + 1)
        while start > least and not text[start - 1].isspace():
            start -= 1
        run = _RUN.match(text, start)
        assert run is not None, "it contains the digit"
        place = run.end()
        if place - start >= _SHORTEST:
            yield start, place


def _private_keys(text: str) -> Iterator[Range]:
    """Yield whole blocks; one without an end extends as far as its lines are a key's. A header alone is no secret."""
    for header in _PRIVATE_KEY.finditer(text):
        start, end = header.span()
        closing = text.find("-----", end, end + _LONGEST_KEY)
        footer = _KEY_END.match(text, closing) if closing >= 0 else None
        if footer is None:
            footer = _KEY_BODY.match(text, end, end + _LONGEST_KEY)
            assert footer is not None, "the body may be empty"
        if _KEY_LINE.search(text, end, footer.end()):
            yield start, footer.end()


def _whole(  # noqa: PLR0917
    text: str, start: int, end: int, pattern: re.Pattern[str], is_exact: bool = False, is_signed: bool = True
) -> Iterator[Range]:
    """Yield matches at the beginning of a word, up to its end; with `is_exact`, only whole words. No stand-ins."""
    for match in pattern.finditer(text, start, end):
        first, last = match.span()
        rest = _REST.match(text, last, end)
        assert rest is not None, "it may be empty"
        is_inside = first > 0 and (text[first - 1].isalnum() or text[first - 1] in "_-")
        if is_inside or (is_exact and rest[0]) or _STAND_IN.search(match[0]):
            continue
        # Letters alone after a token's beginning must be no compound of words and no stand-in (`hf_AAAA..`).
        beginning = next((each for each in _BEGINNINGS if each in match[0]), "")
        letters = match[0].partition(beginning)[2] if beginning else match[0]
        is_no_name = is_signed and not _NAME.fullmatch(letters) and _entropy(letters) >= _LEAST_ENTROPY
        if is_no_name or re.search("[0-9]", match[0]):
            yield first, rest.end()


def _web_tokens(text: str, start: int, end: int) -> Iterator[Range]:
    """Yield JSON Web Tokens. The plugin's own pattern stops before the signature, so it only validates."""
    from detect_secrets.plugins.jwt import JwtTokenDetector

    for match in _WEB_TOKEN.finditer(text, start, end):
        if JwtTokenDetector.is_formally_valid(match[0]):
            yield match.span()


def _named_values(text: str, start: int, end: int) -> Iterator[Range]:
    for match in _VALUE.finditer(text, start, end):
        first = match.start()
        if _is_random(match[0]) and _NAME_BEFORE.search(text, max(0, first - 64), first):
            yield match.span()


def _is_random(value: str) -> bool:
    """Return whether a value alternates between letters and digits, or cases, unlike words, versions and slugs.

    Stand-ins do not count.
    """
    is_mixed = bool(_MIXED.search(value) or _UUID.fullmatch(value)) and sum(map(str.isdigit, value)) >= 2
    if not is_mixed and sum(1 for _ in _CHANGE.finditer(value)) < _LEAST_CHANGES * len(value):
        return False
    return _entropy(value) >= _LEAST_ENTROPY and not _STAND_IN.search(value)


def _entropy(value: str) -> float:
    """Return the entropy in bits per character."""
    shares = [value.count(character) / len(value) for character in set(value)]
    return -sum(share * log2(share) for share in shares)


@cache
def _patterns(module: str, plugin: str) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of one plugin, without AWS's second, a quoted value with a name (see `_named_values`)."""
    patterns = tuple(getattr(import_module(f"detect_secrets.plugins.{module}"), plugin).denylist)
    return patterns[:1] if plugin == "AWSKeyDetector" else patterns
