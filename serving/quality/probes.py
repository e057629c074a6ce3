"""Probes of a rollout: requests with a known good answer, sent to both versions, and what their answers show.

`QualityProbes` decides what to send next and counts; `RolloutQuality` sends. Both versions get every probe, so that
they carry the same load while their times are compared.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ALL_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from sluice.model.evaluation.evaluated import AnswerRequest
from sluice.model.evaluation.parity import KeptAnswer
from sluice.monitoring.traffic.classify import JUDGED, AttemptClass
from sluice.serving.config import QualityConfig
from sluice.serving.evidence import Pairs, Quality
from sluice.serving.quality.text import AnswerText, TextTotals
from sluice.serving.routing import Arm

if TYPE_CHECKING:  # these import torch, and a rollout's status needs none
    from sluice.serving.quality.judge import ReplayJudge
    from sluice.serving.quality.known import KnownItem

ARMS: tuple[Arm, Arm] = ("champion", "challenger")
Surprisal = Callable[[str, Sequence[str]], Sequence[float]]
"""Prompt and answers -> mean nats per token of each answer under the champion."""


class Answered(Protocol):
    """One answered request (`sluice.serving.rollout.Completion`)."""

    @property
    def status(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def attempt_class(self) -> AttemptClass: ...
    @property
    def fell_back(self) -> bool: ...


class ProbeClient(Protocol):
    """The server as probes use it (`sluice.serving.client.Client`)."""

    def ask(self, request: AnswerRequest, arm: Arm) -> Answered:
        """Return an arm's answer; raise if the server does not answer."""


@dataclass(frozen=True)
class Probe:
    """One request to both versions."""

    kind: Literal["parity", "known"]
    place: int
    """Index of the kept answer, or of the known item."""
    request: AnswerRequest


class QualityProbes:
    """The probes of one rollout, and the totals of their answers."""

    def __init__(self, kept: Sequence[KeptAnswer], known: "Sequence[KnownItem]", notes: Sequence[str] = ()) -> None:
        self._kept, self._known, self._notes = kept, known, tuple(notes)
        parity = [
            Probe("parity", place, AnswerRequest(each.prompt, each.max_tokens)) for place, each in enumerate(kept)
        ]
        asked = [Probe("known", place, each.request) for place, each in enumerate(known)]
        self._waiting: deque[Probe] = deque()
        for turn in range(max(len(parity), len(asked))):
            self._waiting += [*parity[turn : turn + 1], *asked[turn : turn + 1]]
        self._left_out: Counter[str] = Counter()
        self._parity = [0, 0]
        """Answers that are the same, and different ones."""
        self._pairs = [0] * 4

    def next(self) -> Probe | None:
        """Return the next probe to send; None if none waits."""
        return self._waiting.popleft() if self._waiting else None

    def score(self, probe: Probe, champion: Answered, challenger: Answered) -> None:
        """Count the answers to a probe. One that judges a version not, such as a full queue, is asked again."""
        refused = [answer.attempt_class == "client_mistake" for answer in (champion, challenger)]
        if all(refused):
            # No version takes the request: it is too long for the server's settings.
            self._left_out[probe.kind] += 1
        elif not any(refused) and not all(answer.attempt_class in JUDGED for answer in (champion, challenger)):
            self._waiting.append(probe)
        elif probe.kind == "parity":
            self._parity[not self._is_kept(probe, challenger)] += 1
        else:
            scores = [self._goodness(probe, answer) for answer in (champion, challenger)]
            if None in scores:
                self._left_out[probe.kind] += 1
                return
            theirs, ours = (score or 0.0 for score in scores)
            both = ours == theirs and ours < 0.5
            self._pairs[(ours < theirs or both) + 2 * (theirs < ours or both)] += 1

    @property
    def totals(self) -> Quality:
        """The totals so far."""
        left_out = self._left_out
        notes = [f"{count} {kind} probes were refused by the server" for kind, count in sorted(left_out.items())]
        return Quality(
            parity_different=self._parity[1],
            parity_compared=sum(self._parity),
            parity_kept=len(self._kept) - left_out["parity"],
            known=Pairs(*self._pairs),
            known_items=len(self._known) - left_out["known"],
            notes=(*self._notes, *notes),
        )

    def _is_kept(self, probe: Probe, answer: Answered) -> bool:
        return _is_own(answer) and self._kept[probe.place].is_matched_by(answer.text)

    def _goodness(self, probe: Probe, answer: Answered) -> float | None:
        if not _is_own(answer):
            return 0.0
        text = answer.text
        ends = [at for stop in probe.request.stop if (at := text.find(stop)) >= 0]
        return self._known[probe.place].score(text[: min(ends)] if ends else text, answer.finish_reason)


class RolloutQuality:
    """Sends the probes of a rollout beside its replays, and compares the replays' texts.

    What takes time, a judge or the champion's likelihood, reads the answers to each prompt once, in a thread of its
    own; pairs that come meanwhile are not read.
    """

    def __init__(
        self,
        client: ProbeClient,
        probes: QualityProbes,
        config: QualityConfig,
        *,
        judge: "ReplayJudge | None" = None,
        surprisal: Surprisal | None = None,
    ) -> None:
        self._client, self._probes, self._config = client, probes, config
        self._judge, self._surprisal = judge, surprisal
        self._text = TextTotals()
        self._pool = ThreadPoolExecutor(len(ARMS) * config.probes_at_once, thread_name_prefix="probe")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-answers")
        self._in_flight: dict[tuple[Future[Answered], ...], Probe] = {}
        self._reading: Future[tuple[float, float] | None] | None = None
        self._prompts_read: set[str] = set()

    @property
    def totals(self) -> Quality:
        """The totals so far."""
        found = replace(self._probes.totals, text=self._text.pairs)
        if self._judge is None:
            return found
        return replace(found, judged=self._judge.pairs, notes=(*found.notes, *self._judge.notes))

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Count the answers that came within `timeout_s` and send further probes; return whether any is in flight.

        Raises the error of a client that did not get an answer.
        """
        for pair in list(self._in_flight):
            if not wait(pair, timeout_s, ALL_COMPLETED).not_done:
                self._probes.score(self._in_flight.pop(pair), *(future.result() for future in pair))
        while len(self._in_flight) < self._config.probes_at_once and (probe := self._probes.next()):
            self._in_flight[tuple(self._pool.submit(self._client.ask, probe.request, arm) for arm in ARMS)] = probe
        if self._reading is not None and not wait([self._reading], timeout_s).not_done:
            if surprisals := self._reading.result():
                self._text.add_surprisals(*surprisals)
            self._reading = None
        return bool(self._in_flight or self._reading)

    def add_replay(self, prompt: str, champion: Answered, challenger: Answered) -> None:
        """Compare the texts of both versions' own answers to a replayed prompt; other pairs count as errors do."""
        if not (_is_own(champion) and _is_own(challenger)):
            return
        if self._config.text != "off":
            self._text.add(prompt, *(AnswerText(each.text, each.finish_reason) for each in (champion, challenger)))
        is_wanted = self._judge is not None or self._surprisal is not None
        # Answers to one prompt are alike, so another pair of them would be no further evidence.
        if is_wanted and self._reading is None and prompt not in self._prompts_read:
            self._prompts_read.add(prompt)
            self._reading = self._reader.submit(self._read, prompt, champion.text, challenger.text)

    def _read(self, prompt: str, champion: str, challenger: str) -> tuple[float, float] | None:
        """Have the judge compare two answers; return their surprisals under the champion if they are measured."""
        if self._judge is not None and len(self._prompts_read) <= self._config.judged_pairs:
            self._judge.judge(prompt, champion, challenger)
        if self._surprisal is None or not (champion and challenger):
            return None
        theirs, ours = self._surprisal(prompt, (champion, challenger))
        return (theirs, ours) if math.isfinite(theirs) and math.isfinite(ours) else None

    def close(self) -> None:
        """Cancel the probes that wait for a thread."""
        for pool in (self._pool, self._reader):
            pool.shutdown(wait=False, cancel_futures=True)


def _is_own(answer: Answered) -> bool:
    """Return whether the version that was asked answered, and no fallback."""
    return answer.status == 200 and not answer.fell_back
