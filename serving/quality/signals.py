"""The signals of a rollout that read the answers. Pure.

| signal | bad answer | shown by | effect |
|---|---|---|---|
| parity | greedy text other than the gate's, but for ties | share above `max_parity_difference` | drop |
| known answers | wrong where the champion is right | more often than the reverse | drop |
| text differences | empty, cut, repeated, .. where the champion's is not | more often than the reverse | hold or drop |
| votes | bad vote | more of the bad votes than the part of the traffic | drop |
| judge | worse than the champion's answer, in both orders | more often than the reverse | drop |

Only parity has to show that it is below the unacceptable before a challenger may advance, and only if the gate kept
answers. A text difference says "look", not "bad".
"""

from collections.abc import Mapping

from sluice.monitoring.sequential import log_e_above, log_e_below, log_e_uneven
from sluice.serving.config import QualityConfig
from sluice.serving.evidence import LiveCounts, Pairs, Quality
from sluice.serving.signals import Signal, Test, percent

KINDS: Mapping[str, str] = {
    "empty": "empty answers",
    "cut": "answers that max_tokens cut",
    "repeated": "answers that repeat themselves",
    "refused": "answers that refuse",
    "language": "answers in another language",
    "longer": "answers over 1.5 times as long as the other version's",
    "shorter": "answers under 2/3 as long as the other version's",
    "surprising": "answers that the champion finds unlikely",
}
"""Kind of text difference -> its share in words; `sluice.serving.quality.text` counts them."""
PAIRED_LEVEL = 0.2
"""Level of known answers, votes and judge, in multiples of alpha. They only ever drop, so a challenger that is as good
as the champion is dropped at most as often as this, and each comes on top of the errors and times.
"""


def quality_signals(quality: Quality, live: tuple[LiveCounts, ...], config: QualityConfig) -> list[Signal]:
    """Return a signal for everything that was measured."""
    found = []
    if quality.parity_kept:
        found.append(_parity(quality, config))
    if quality.known_items:
        lacks = quality.known.n < quality.known_items
        missing = f"need {quality.known_items - quality.known.n} more of {quality.known_items} items" if lacks else ""
        found.append(_paired("known_answers", "wrong known answers", quality.known)._replace(missing=missing))
    if config.text != "off":
        for kind, label in KINDS.items():
            if (pairs := quality.text.get(kind, Pairs())).n:
                # Any of them may hold the rollout, so all of them share one level.
                signal = _paired(f"text_{kind}", label, pairs, levels=1 / len(KINDS))
                found.append(signal._replace(policy=config.text))
    if quality.judged.n:
        found.append(_paired("judge", "answers judged worse", quality.judged))
    if min(_votes(live, "challenger")[1], _votes(live, "champion")[1]) >= config.least_votes:
        found.append(_voted(live))
    return found


def _parity(quality: Quality, config: QualityConfig) -> Signal:
    bad, n = quality.parity_different, quality.parity_compared
    limit, unacceptable = config.max_parity_difference, config.unacceptable_parity_difference
    advances = Test("parity_below", log_e_below(bad, n, unacceptable), f"below {unacceptable:.1%}")
    # There is nothing to infer once every kept answer was compared.
    is_known = n >= quality.parity_kept and bad <= limit * n
    return Signal(
        metric="parity",
        label=f"greedy answers other than the gate's {percent(bad, n)}",
        value=bad / n if n else None,
        n=n,
        limit=limit,
        drops=(Test("parity", log_e_above(bad, n, limit), f"above {limit:.1%}"),),
        advances=None if is_known else advances,
    )


def _paired(metric: str, label: str, pairs: Pairs, levels: float = PAIRED_LEVEL) -> Signal:
    """Return the signal that drops once the challenger alone is bad oftener than the champion alone."""
    bad, champion, n = pairs.challenger + pairs.both, pairs.champion + pairs.both, pairs.n
    log_e = log_e_uneven([(pairs.challenger, pairs.champion, 0.5)])
    return Signal(
        metric=metric,
        label=f"{label} {percent(bad, n)} (champion {percent(champion, n)})",
        value=bad / n if n else None,
        n=n,
        limit=champion / n if n else 0.0,
        drops=(Test(metric, log_e, "more often than the champion's", levels),),
        advances=None,
    )


def _voted(live: tuple[LiveCounts, ...]) -> Signal:
    """Return the signal of votes: under equal quality, bad votes of a step are split as its traffic is."""
    splits = [
        (step.challenger_bad_votes, step.champion_bad_votes, step.weight / 100)
        for step in live
        if 0 < step.weight < 100
    ]
    (bad, n), (champion_bad, champion) = _votes(live, "challenger"), _votes(live, "champion")
    return Signal(
        metric="votes",
        label=f"bad votes {percent(bad, n)} (champion {percent(champion_bad, champion)})",
        value=bad / n,
        n=n,
        limit=champion_bad / champion,
        drops=(Test("votes", log_e_uneven(splits), "more than its part of the traffic", PAIRED_LEVEL),),
        advances=None,
    )


def _votes(live: tuple[LiveCounts, ...], arm: str) -> tuple[int, int]:
    """Return an arm's bad votes, and all of its votes."""
    return (
        sum(getattr(step, f"{arm}_bad_votes") for step in live),
        sum(getattr(step, f"{arm}_votes") for step in live),
    )
