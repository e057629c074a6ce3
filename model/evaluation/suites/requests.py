"""From a suite's samples to the prompts that a model gets: template, few-shot examples, perturbations."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from sluice.core.canonical import canonical_json
from sluice.model.evaluation.evaluated import Message, Prompt
from sluice.model.evaluation.suites.samples import LETTERED_CHOICES, SuiteSample
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.suite import Suite, SuiteSettings

_LENGTHS = ((100, "under 100"), (500, "100 to 499"), (2_000, "500 to 1999"))
"""Buckets of a prompt's length in characters, for slices."""


def question(settings: SuiteSettings, sample: SuiteSample) -> str:
    """Fill the template with the fields of a sample."""
    listed = "\n".join(f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(sample.choices))
    return settings.prompt.format_map({**sample.fields, LETTERED_CHOICES: listed})


def prompts(suite: Suite, change: Callable[[str, str], str] | None = None) -> list[Prompt]:
    """Return the prompt of each sample; `change` perturbs a question, given the sample's id as its seed.

    ValueError where there are not enough samples for the examples.
    """
    settings = suite.settings
    found: list[Prompt] = []
    examples = _examples(suite)
    for sample, before in zip(suite.samples, examples, strict=True):
        asked = question(settings, sample)
        if change is not None:
            asked = change(asked, sample.id)
        if settings.chat:
            turns = [
                message
                for each in before
                for message in (Message("user", question(settings, each)), Message("assistant", shown(settings, each)))
            ]
            found.append((*turns, Message("user", asked)))
        else:
            shots = [f"{question(settings, each)}{settings.choice_prefix}{shown(settings, each)}" for each in before]
            found.append("\n\n".join([*shots, asked]))
    return found


def shown(settings: SuiteSettings, sample: SuiteSample) -> str:
    """Return the right answer of a sample as an example shows it."""
    if sample.targets:
        return sample.targets[0]
    is_letter = any(SCORERS[name].reads == "text" for name in settings.scorers)
    return chr(ord("A") + sample.key) if is_letter else sample.choices[sample.key]


def _examples(suite: Suite) -> Sequence[Sequence[SuiteSample]]:
    """Return the examples of each sample: the first ones in the order of a hash, less itself and what is alike."""
    settings, count = suite.settings, suite.settings.few_shot
    if not count:
        return [()] * len(suite.samples)
    asked = {sample.id: question(settings, sample) for sample in suite.samples}
    order = sorted(suite.samples, key=lambda each: hashlib.sha256(f"{settings.name}:{each.id}".encode()).digest())
    chosen = []
    for sample in suite.samples:
        others = (
            each
            for each in order
            if each.id != sample.id
            and asked[each.id] != asked[sample.id]
            and not (sample.cluster and each.cluster == sample.cluster)
        )
        found = [each for each, _ in zip(others, range(count), strict=False)]
        if len(found) < count:
            raise ValueError(
                f"suite {settings.name}: sample {sample.id} has {len(found)} others of another prompt and cluster, and "
                f"few_shot={count} examples are wanted: lower few_shot, or add samples"
            )
        chosen.append(found)
    return chosen


def plain_prompt(prompt: Prompt) -> object:
    """Return a prompt as JSON holds it: a text, or a list of turns where there are several."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return [{"role": message.role, "content": message.content} for message in prompt]


def item_id(suite: Suite, sample: SuiteSample, prompt: Prompt) -> str:
    """Hash what a sample asks and accepts: rows of two models pair only where both got the same."""
    asked = [suite.settings.chat, plain_prompt(prompt), sample.id, sample.targets, sample.choices, sample.key]
    limits = [suite.settings.max_tokens, suite.settings.stop, suite.settings.choice_prefix, suite.settings.alone_prompt]
    return hashlib.sha256(canonical_json([asked, limits])).hexdigest()[:32]


def properties(suite: Suite, sample: SuiteSample, prompt: Prompt) -> dict[str, str]:
    """Return the metadata of an item: task, language, length of the prompt, and the sample's own."""
    settings = suite.settings
    characters = len(prompt) if isinstance(prompt, str) else sum(len(message.content) for message in prompt)
    length = next((name for limit, name in _LENGTHS if characters < limit), "2000 or more")
    found = {"task": settings.task or settings.name, "prompt_length": length}
    return {**found, **({"language": settings.language} if settings.language else {}), **sample.metadata}


def prompt_hashes(settings: SuiteSettings, asked: Sequence[Prompt]) -> Mapping[str, str]:
    """Return the sha256 of the template and of all prompts."""
    return {
        "template": hashlib.sha256(settings.prompt.encode()).hexdigest(),
        "prompts": hashlib.sha256(canonical_json([plain_prompt(prompt) for prompt in asked])).hexdigest(),
    }
