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

    `git@host` is a service and is kept.
    """
    for domain in _AT_DOMAIN.finditer(text):
        at = domain.start()
        local = _LOCAL_PART.search(text, max(0, at - _LONGEST_LOCAL_PART), at)
        if local is None or local[0] == "git" or _URL_PASSWORD_BEFORE.search(text, max(0, at - 132), local.start()):
            continue
        yield local.start(), domain.end()


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
