"""Personal data to placeholders, what must not be taken for it, and that no value gets out another way."""

import logging
import re
from importlib import import_module
from itertools import pairwise
from string import ascii_letters

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sluice.data.privacy.secrets
from sluice.data.privacy import KINDS, find, mask

# Built from parts, so that no scanner takes this file for a leak.
GITHUB = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fG3hJ5"
KEY_BODY = "MIIEpAIBAAKCAQEA7bq3l8mN0pQrStUvWx1yZ2aB3cD4eF5gH6iJ7kL8mN9oP0qR\nAAAA"


def private_key(body: str = KEY_BODY, footer: bool = True) -> str:
    kind = "RSA PRIV" + "ATE KEY"
    return f"-----BEGIN {kind}-----\n{body}" + (f"\n-----END {kind}-----" if footer else "")


@pytest.mark.parametrize(
    "text",
    [
        *("icon@2x.png", "logo@3x.webp", "lodash@4.17.21.tgz", "worker@2.err"),
        *("phone app version 10.15.7.2301", "mobile 17.10.2301", "phone: 115.0.5790.1704", "Call v2.34.5678.90"),
        *("PASSWORD: your_Password1!", "password = request.POST1", "password=Model.Password2(x)"),
    ],
)
def test_file_names_versions_and_code_are_kept(text: str):
    assert mask(text)[0] == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("PASSWORD: dY^5Ke76" + "gdSiF", "PASSWORD: <SECRET>"),
        ("testdata630-596-1111", "testdata<PHONE>"),
        ("联系user@例え.jp谢谢", "联系<EMAIL>谢谢"),
        ("mail 用户@例子.中国 now", "mail <EMAIL> now"),
        ("写信到 wang@公司.中国谢谢", "写信到 <EMAIL>谢谢"),
        ("jane@corp.com.txt.gz", "<EMAIL>.txt.gz"),
    ],
)
def test_values_that_touch_other_text_are_masked(text: str, masked: str):
    assert mask(text)[0] == masked


def only(**counts: int) -> dict[str, int]:
    return dict.fromkeys(KINDS, 0) | counts


@pytest.mark.parametrize(
    "email",
    ["jane@example.com", "j.doe+list@mail.example.co.uk", "o_o-1%x@sub.example.org", "JANE@EXAMPLE.COM", "tomáš@x.org"],
)
def test_emails_are_masked(email: str):
    assert mask(f"Write to <{email}>, please.") == ("Write to <<EMAIL>>, please.", only(EMAIL=1))
    assert mask(f"Write to {email}.")[0] == "Write to <EMAIL>."
    assert mask(f"請寫信至{email}謝謝")[0].endswith("<EMAIL>謝謝")


@pytest.mark.parametrize(
    "text",
    [
        *("@decorator", "user@host", "a @ b.com", "X@y.shape(2)", "pkg@1.2.3", "git@", "@app.route"),
        *("git@github.com:owner/name.git", "postgres://user:password@db.example.com/x"),
    ],
)
def test_at_signs_that_are_no_emails_stay(text: str):
    assert mask(text)[0] == text


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "192.168.1.10", "10.0.0.5", "93.184.216.34"),
        *("2606:2800:220:1:248:1893:25c8:1946", "fe80::1", "2a02:42fe::4"),
    ],
)
def test_addresses_are_masked(address: str):
    assert mask(f"from ({address}) came") == ("from (<IP_ADDRESS>) came", only(IP_ADDRESS=1))
    assert mask(f"HOST={address}")[0] == "HOST=<IP_ADDRESS>"


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "0.0.0.0", "::1", "255.255.255.0", "192.0.2.7 and 203.0.113.9 and 2001:db8::1"),
        *("version 1.2.3.4", "v3.7.15.2", "numpy==1.2.3.4", "numpy >= 1.2.3.4", "package-1.2.3.4.tar.gz"),
        *("1.2.3", "1.2.3.4.5", "999.1.1.1", "12:30:45", "std::vector::iterator", "test_module.py::test_name"),
        *("aa:bb:cc:dd:ee:ff", "rows[1::2] and rows[1000::2] and rows[::-1]", "the dotted string `2.5.29.31`"),
    ],
)
def test_numbers_that_name_nobody_stay(text: str):
    assert mask(text)[0] == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("paid with 4242 4242 4242 4242 12/27", "paid with <CARD> 12/27"),
        ("Smith,378282246310005,123", "Smith,<CARD>,123"),
        ("DE89 3704 0044 0532 0130 00 BIC COBADEFFXXX", "<IBAN> BIC COBADEFFXXX"),
        ("iban=GB82WEST12345698765432.", "iban=<IBAN>."),
        ("+1 202-555-0143, 2024", "<PHONE>, 2024"),
        ("Ring +49 (0)30 901820 ext. 12!", "Ring <PHONE>!"),
        ("(202) 555-0143 or 1-800-356-9377", "<PHONE> or <PHONE>"),
        ("Tel.: 030 901820", "Tel.: <PHONE>"),
        ("rooms 030 901820", "rooms 030 901820"),
        ("Phone: 2024-01-15 10:22", "Phone: 2024-01-15 10:22"),
        (f"token={GITHUB};", "token=<SECRET>;"),
        (f"https://ghp.example.com/?key={GITHUB}", "https://ghp.example.com/?key=<SECRET>"),
        ("postgres://me:s3cr%40t!@db.example.com/x", "postgres://me:<SECRET>@db.example.com/x"),
        ("api_key = '9944b09199c62bcf9418ad846dd0e4bb'", "api_key = '<SECRET>'"),
        ("commit 9944b09199c62bcf9418ad846dd0e4bb", "commit 9944b09199c62bcf9418ad846dd0e4bb"),
        (f"Use\n{private_key()}\nhere", "Use\n<SECRET>\nhere"),
        (f"Use {private_key().replace(chr(10), ' ')} here", "Use <SECRET> here"),
        (f"Use\n{private_key(footer=False)}\nThe prose goes on.", "Use\n<SECRET>\nAAAA\nThe prose goes on."),
        (private_key("..."), private_key("...")),
    ],
)
def test_numbers_and_secrets(text: str, masked: str):
    assert mask(text)[0] == masked


def test_counts_every_occurrence():
    text, counts = mask("a@b.org, c@d.org at 1.1.1.1")
    assert text == "<EMAIL>, <EMAIL> at <IP_ADDRESS>"
    assert counts == only(EMAIL=2, IP_ADDRESS=1)


def test_only_the_kinds_asked_for():
    assert mask("a@b.org at 1.1.1.1", ["IP_ADDRESS"]) == ("a@b.org at <IP_ADDRESS>", {"IP_ADDRESS": 1})
    assert mask("a@b.org", []) == ("a@b.org", {})
    with pytest.raises(ValueError, match=r"masks ADDRESS is no kind .* SECRET, EMAIL, IBAN, CARD, PHONE, IP_ADDRESS$"):
        mask("a@b.org", ["EMAIL", "ADDRESS"])


def test_no_error_or_log_holds_a_value(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys):
    caplog.set_level(logging.DEBUG)
    text = f"{GITHUB} jane@example.com 4242 4242 4242 4242 +1 202-555-0143 1.1.1.1 DE89370400440532013000"
    assert sum(mask(text)[1].values()) == len(KINDS)

    def broken(text: str) -> None:
        raise OSError(f"cannot judge {text}")

    monkeypatch.setitem(import_module("sluice.data.privacy.mask")._FINDERS, "SECRET", broken)
    with pytest.raises(RuntimeError) as raised:
        mask(text)
    assert str(raised.value) == "looking for SECRET failed with OSError"
    assert raised.value.__suppress_context__
    assert caplog.text == "" == "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "part",
    [
        "hf_" + "aBcDe" * 7,
        "\u200b",
        "_a",
        "-----BEGIN PRIV" + "ATE KEY-----",
        "sk-",
        "a.",
        "1",
        "eyJ.",
        "1-",
        "x@",
        "://a:",
        "+1 ",
    ],
)
def test_no_text_is_expensive(part: str):
    """Patterns are bounded: a hostile text of a megabyte ends. A quadratic one would not in the life of a test run."""
    masked, counts = mask(part * (1_000_000 // len(part)))
    assert masked and set(counts) == set(KINDS), "every kind was looked for"


FRAGMENTS = [
    *(
        "jane@example.com",
        "10.1.2.3",
        "2a02:42fe::4",
        "4242424242424242",
        "4242 4242 4242 4242",
        "+1 202-555-0143",
        GITHUB,
    ),
    *("DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "Tel. 030 901820", "(202) 555-0143", "password="),
    *("9944b09199c62bcf9418ad846dd0e4bb", "https://me:Tr0ub4dor@", "example.com", "phone", "version ", "git", "://"),
    *(
        "-----BEGIN PRIV" + "ATE KEY-----",
        KEY_BODY,
        "-----END PRIV" + "ATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.x9",
    ),
    *(f"<{kind}>" for kind in KINDS),
    *(" ", "\n", ".", ":", "-", "@", "/", "=", "'", "1", "a", "+", "::", "", "é", "中"),
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))


@settings(max_examples=400, deadline=None)
@given(text=texts, kinds=st.none() | st.sets(st.sampled_from(KINDS)))
def test_masking_twice_changes_nothing_more(text: str, kinds: set[str] | None):
    once = mask(text, kinds)[0]
    assert mask(once, kinds) == (once, dict.fromkeys(KINDS if kinds is None else [k for k in KINDS if k in kinds], 0))


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_exactly_the_findings_are_masked(text: str):
    found = find(text)
    assert all(left.end <= right.start for left, right in pairwise(found))
    assert all(item.start < item.end for item in found)
    assert (mask(text)[0] == text) == (not found)


@settings(max_examples=200, deadline=None)
@given(before=st.text(alphabet="ab \n"), kind=st.sampled_from(KINDS), after=st.text(alphabet="ab \n"))
def test_placeholders_survive(before: str, kind: str, after: str):
    text = f"{before}<{kind}>{after}"
    assert mask(text)[0] == text


@pytest.mark.parametrize("tokens", sluice.data.privacy.secrets._PLUGINS, ids=lambda tokens: tokens.plugin)
def test_detect_secrets_has_every_plugin(tokens: sluice.data.privacy.secrets._Tokens):
    assert sluice.data.privacy.secrets._patterns(tokens.module, tokens.plugin)
    assert re.compile(tokens.sign)


@settings(max_examples=200, deadline=None)
@given(
    letters=st.text(alphabet=ascii_letters, min_size=34, max_size=34), after=st.sampled_from(["", "\n", "'", ")", ", "])
)
def test_a_token_of_letters_alone_is_a_secret(letters: str, after: str):
    assume(len(set(letters)) >= 12)
    assert mask(f"export HF_TOKEN=hf_{letters}{after}")[0] == f"export HF_TOKEN=<SECRET>{after}"


@pytest.mark.parametrize("unseen", ["\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff"])
def test_characters_of_no_width_hide_nothing(unseen: str):
    assert mask(f"to {unseen.join('jane@corp.io')}, and")[0] == "to <EMAIL>, and"
    assert mask(f"{unseen}jane@corp.io{unseen} and{unseen}on")[0] == f"{unseen}<EMAIL>{unseen} and{unseen}on"
    assert mask(f"{unseen.join('8.8.8.8')}")[0] == "<IP_ADDRESS>"
    assert mask(f"nothing{unseen}here") == (f"nothing{unseen}here", only())
