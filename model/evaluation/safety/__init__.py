"""Safety of a model: refusals, injected instructions, jailbreaks, personal data, memorized text, bias."""
