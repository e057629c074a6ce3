"""Special tokens: ours first, others of one form, none that text could write."""

import pytest

from sluice.data.config import TokenizerConfig
from sluice.data.tokenization.special import SPECIAL_TOKENS, special_tokens


def test_ours_come_first():
    assert special_tokens(TokenizerConfig(special_tokens=["<|tool|>", "<|fim_1|>"])) == (
        *SPECIAL_TOKENS,
        "<|tool|>",
        "<|fim_1|>",
    )


@pytest.mark.parametrize("token", ["", "tool", "<|Tool|>", "<|_|>", "<||>", "<|a b|>", "[PAD]"])
def test_another_form_is_refused(token: str):
    with pytest.raises(ValueError, match=r"a special token is <\|name\|>"):
        special_tokens(TokenizerConfig(special_tokens=[token]))


def test_a_token_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"\['<\|end\|>', '<\|x\|>'\] are listed twice"):
        special_tokens(TokenizerConfig(special_tokens=["<|x|>", "<|x|>", "<|end|>"]))
