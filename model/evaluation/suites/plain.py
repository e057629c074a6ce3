"""Suites of chats, asked of a model without a chat template."""

from collections.abc import Sequence
from dataclasses import replace

from sluice.model.evaluation.suites.suite import Suite

NOTE = "asked as plain text: the model has no chat template"


def suites_for(suites: Sequence[Suite], name: str, *, has_chat: bool) -> tuple[Suite, ...]:
    """Return the suites as the model `name` can be asked them.

    Of a model that cannot read conversations, a suite that leaves `chat` open is asked as text to continue, as
    lm-evaluation-harness does without a chat template. ValueError for one that says `chat: true`.
    """
    if has_chat:
        return tuple(suites)
    for suite in suites:
        if suite.settings.chat and "chat" in suite.settings.model_fields_set:
            raise ValueError(
                f"suite {suite.settings.name} says chat: true, and {name} has no chat template: write chat: false in "
                "the suite, to have its prompts continued as plain text, or add chat_template.jinja to the model"
            )
    return tuple(
        replace(suite, settings=suite.settings.model_copy(update={"chat": False})) if suite.settings.chat else suite
        for suite in suites
    )
