"""Find e-mail and IP addresses."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

Range = tuple[int, int]
"""Start and end in characters."""

# Latin, Greek and Cyrillic: internationalized addresses (RFC 6531) are written in them. Letters of other scripts may
# be adjacent to an address, because these scripts have no spaces between words.
_L = r"A-Za-z\u00c0-\u024f\u0370-\u052f"
# Searched from the `@`, which is rare, to both sides.
_AT_DOMAIN = re.compile(
    rf"@(?:[{_L}0-9](?:[{_L}0-9-]{{0,61}}[{_L}0-9])?\.)+[{_L}]{{2,24}}(?![{_L}0-9_-]|\.[{_L}0-9_]|\()",
)
# Domains with letters of other scripts, such as 例え.jp; the local part may be in such a script too.
_AT_OTHER_DOMAIN = re.compile(
    r"@((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+)([A-Za-z]{2,24}(?![A-Za-z0-9_-])|[^\W\d_a-zA-Z]{2,24})"
)
_OTHER_LOCAL_PART = re.compile(r"(?<![\w.%+-])[^\W_](?:[\w.%+-]{0,62}[\w%+-])?\Z")
_NUMBERS = re.compile(r"(?:[0-9]+\.){2,}")
"""The number of a version before a suffix, as in `package@1.2.tar`."""
_SPECIAL_USE = frozenset(
    {"example", "test", "invalid", "localhost", "local", "internal", "home", "lan", "corp", "intranet"}
)
"""Top-level domains that no registry has and that people use (RFC 2606, RFC 6762, RFC 8375)."""
_LOCAL_PART = re.compile(rf"(?<![{_L}0-9_.%+-])[{_L}0-9_](?:[\w.%+-]{{0,62}}[\w%+-])?\Z")
_LONGEST_LOCAL_PART = 64
# `://user:password@host`: before the `@` is a password, which sluice.data.privacy.secrets handles.
_URL_PASSWORD_BEFORE = re.compile(r"://[^\s/@:]{0,64}:\Z")

# The look-behind is after the first digit, so that the search jumps from digit to digit. A dotted quad after a letter,
# a comparison or another number is a version, a section or an object identifier.
_IPV4 = re.compile(r"[0-9](?<![\w.<>~^-][0-9])(?<![=<>~!]=[0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.\w)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)")
_IPV6_GROUP = re.compile(r":[0-9A-Fa-f]{0,4}:")
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:versions?|release|section|chapter|build|v|dotted string)(?:\s(?:after|before|since|from|until))?"
    r"|\boid\b[\w\s]{0,20}|[<>~]=)[\s.:=`'\"]*\Z",
    re.IGNORECASE,
)
_CONTEXT = 36
"""Characters before a candidate that are searched for the words above."""

_DOCUMENTATION: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")),  # RFC 5737
    *map(IPv6Network, ("2001:db8::/32", "3fff::/20")),  # RFC 3849, RFC 9637
)
_NETMASKS = IPv4Network("255.0.0.0/8")


def emails(text: str) -> Iterator[Range]:
    """Yield e-mail addresses of any domain, even example.com, since invented and real people share it.

    `git@host` is a service and is kept, and so are names of files such as `icon@2x.png`: a domain ends with a top-level
    domain of the public suffix list, or of the special ones.
    """
    domains = list(_AT_DOMAIN.finditer(text))
    if not text.isascii():
        domains += [match for match in _AT_OTHER_DOMAIN.finditer(text) if not match[1].isascii()]
    for domain in domains:
        at = domain.start()
        first = max(0, at - _LONGEST_LOCAL_PART)
        local = _LOCAL_PART.search(text, first, at) or _OTHER_LOCAL_PART.search(text, first, at)
        if local is None or local[0] == "git" or _URL_PASSWORD_BEFORE.search(text, max(0, at - 132), local.start()):
            continue
        if end := _domain_end(domain[0]):
            yield local.start(), at + end


def _domain_end(domain: str) -> int:
    """Return the length of `@` and a domain, or 0 if none of its labels is a top-level domain.

    The suffix of a file may follow the top-level domain (`jane@corp.com.txt`), and text of a script without spaces.
    """
    from tld import is_tld

    while (dot := domain.rfind(".")) > 0 and not _NUMBERS.fullmatch(domain[1 : dot + 1]):
        last = domain[dot + 1 :].lower()
        if last in _SPECIAL_USE or is_tld(last):
            return len(domain)
        for end in range(len(last) - 1, 1, -1) if not last.isascii() else ():
            if is_tld(last[:end]):
                return dot + 1 + end
        domain = domain[:dot]
    return 0


def ip_addresses(text: str) -> Iterator[Range]:
    """Yield IPv4 and IPv6 addresses of machines.

    Addresses that identify nobody are kept: loopback, unspecified, multicast, netmasks, those reserved for
    documentation, version numbers.
    """
    candidates = [_IPV4.finditer(text)]
    if _IPV6_GROUP.search(text):
        candidates.append(_IPV6.finditer(text))
    for matches in candidates:
        for match in matches:
            start = match.start()
            if _names_a_machine(match[0]) and not _VERSION_BEFORE.search(text, max(0, start - _CONTEXT), start):
                yield match.span()


def _names_a_machine(candidate: str) -> bool:
    if ":" in candidate:
        # A Python slice (`[1::2]`) or a C++ name (`dead::beef`) also parses as an address.
        groups = [group for group in candidate.split(":") if group]
        has_digit, has_letter = any(map(str.isdigit, candidate)), any(map(str.isalpha, candidate))
        if max(map(len, groups), default=0) < 3 or not has_digit or not (has_letter or len(groups) >= 3):
            return False
    try:
        address = ip_address(candidate)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, IPv4Address) and (address in _NETMASKS or address.packed[0] == 0):
        return False
    return not any(address in network for network in _DOCUMENTATION)
