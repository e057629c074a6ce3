"""Personal data to placeholders, and what must not be taken for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.privacy import EMAIL, IP_ADDRESS, mask


@pytest.mark.parametrize(
    "email",
    ["jane@example.com", "j.doe+list@mail.example.co.uk", "o_o-1%x@sub.example.org", "JANE@EXAMPLE.COM"],
)
def test_emails_are_masked(email: str):
    assert mask(f"Write to <{email}>, please.") == (f"Write to <{EMAIL}>, please.", {EMAIL: 1, IP_ADDRESS: 0})
    assert mask(f"Write to {email}.")[0] == f"Write to {EMAIL}."


@pytest.mark.parametrize(
    "text", ["@decorator", "user@host", "a @ b.com", "X@y.shape(2)", "pkg@1.2.3", "git@", "@app.route"]
)
def test_at_signs_that_are_no_emails_stay(text: str):
    assert mask(text)[0] == text


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "192.168.1.10",
        "10.0.0.5",
        "93.184.216.34",
        "2606:2800:220:1:248:1893:25c8:1946",
        "fe80::1",
        "2a02:42fe::4",
    ],
)
def test_addresses_are_masked(address: str):
    assert mask(f"from ({address}) came") == (f"from ({IP_ADDRESS}) came", {EMAIL: 0, IP_ADDRESS: 1})


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.0",
        "::1",
        "255.255.255.0",
        "192.0.2.7 and 203.0.113.9 and 2001:db8::1",
        "version 1.2.3.4",
        "v3.7.15.2",
        "numpy==1.2.3.4",
        "package-1.2.3.4.tar.gz",
        "1.2.3",
        "1.2.3.4.5",
        "999.1.1.1",
        "12:30:45",
        "std::vector::iterator",
        "test_module.py::test_name",
        "aa:bb:cc:dd:ee:ff",
        "rows[1::2] and rows[1000::2] and rows[::-1]",
        "the dotted string `2.5.29.31`",
    ],
)
def test_numbers_that_name_nobody_stay(text: str):
    assert mask(text)[0] == text


def test_counts_every_occurrence():
    text, counts = mask("a@b.org, c@d.org at 1.1.1.1")
    assert text == f"{EMAIL}, {EMAIL} at {IP_ADDRESS}"
    assert counts == {EMAIL: 2, IP_ADDRESS: 1}


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str):
    once = mask(text)[0]
    assert mask(once)[0] == once
