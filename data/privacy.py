"""Personal data to typed placeholders: e-mail and IP addresses."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

EMAIL = "<EMAIL>"
IP_ADDRESS = "<IP_ADDRESS>"

_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9](?:[\w.%+-]{0,62}[\w%+-])?@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
    r"(?![\w-]|\.\w|\()"
)
# A dotted quad after a letter, a comparison or another number is a version, a section or an object identifier.
_IPV4 = re.compile(r"(?<![\w.=<>~^-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)")
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:version|release|section|chapter|build|v|dotted string)|\boid\b[\w\s]{0,20})[\s.:=`'\"]*\Z", re.IGNORECASE
)
_CONTEXT = 36
"""Characters before a candidate in which the words above are looked for."""

_DOCUMENTATION: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")),  # RFC 5737
    *map(IPv6Network, ("2001:db8::/32", "3fff::/20")),  # RFC 3849, RFC 9637
)
_NETMASKS = IPv4Network("255.0.0.0/8")


def mask(text: str) -> tuple[str, dict[str, int]]:
    """The text with placeholders, and how many of each kind were put in.

    Addresses that name nobody stay: loopback, unspecified, netmasks, those reserved for documentation, version numbers.
    """
    counts = {EMAIL: 0, IP_ADDRESS: 0}

    def replace_email(_: re.Match[str]) -> str:
        counts[EMAIL] += 1
        return EMAIL

    def replace_address(match: re.Match[str]) -> str:
        if not _names_a_machine(match[0]) or _VERSION_BEFORE.search(
            match.string, max(0, match.start() - _CONTEXT), match.start()
        ):
            return match[0]
        counts[IP_ADDRESS] += 1
        return IP_ADDRESS

    if "@" in text:
        text = _EMAIL.sub(replace_email, text)
    text = _IPV4.sub(replace_address, text)
    if "::" in text or text.count(":") >= 7:
        text = _IPV6.sub(replace_address, text)
    return text, counts


def _names_a_machine(candidate: str) -> bool:
    try:
        address = ip_address(candidate)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, IPv4Address) and (address in _NETMASKS or address.packed[0] == 0):
        return False
    if isinstance(address, IPv6Address) and not _looks_like_ipv6(candidate):
        return False
    return not any(address in network for network in _DOCUMENTATION)


def _looks_like_ipv6(candidate: str) -> bool:
    """Python's slices (`[1::2]`) and C++ names (`dead::beef`) parse as addresses too."""
    groups = [group for group in candidate.split(":") if group]
    has_digit, has_letter = any(map(str.isdigit, candidate)), any(map(str.isalpha, candidate))
    return max(map(len, groups), default=0) >= 3 and has_digit and (has_letter or len(groups) >= 3)
