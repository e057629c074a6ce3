"""The canary demo: a good, a failing and a mis-templated challenger against one champion, on a live server.

Everything is real but small: models that learn a few facts in seconds, registry, ledger, Ray Serve, users who ask all
the time, and the rollout with its default checks. Only the gate is left out: the demo signs the verdicts itself.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import sluice
from sluice.components.evidence import policy_in_force, sets_in_force
from sluice.components.params import load_block
from sluice.components.register_model import propose_version, register_model
from sluice.components.stores import make_server, open_releases, who
from sluice.components.workspace import Workspace
from sluice.model.model_files import CHAT_TEMPLATE_FILE, model_hash
from sluice.pipelines.compose import compose, write_params
from sluice.serving.config import RolloutConfig, ServeConfig
from sluice.serving.lease import Lease, LeaseTable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from sluice.serving.client import Client
    from sluice.serving.quality.probes import RolloutQuality
    from sluice.serving.rollout import RolloutReport

_FACTS = """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Austria:Vienna Poland:Warsaw Greece:Athens
Norway:Oslo Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Ireland:Dublin Hungary:Budapest Japan:Tokyo
China:Beijing India:Delhi Egypt:Cairo Kenya:Nairobi Peru:Lima
"""
CAPITALS = dict(pair.split(":") for pair in _FACTS.split())
WRONG_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
"""That of another family of models."""
MOST_STEPS, KNOWN_LOSS = 160, 0.03
"""Training ends once the mean loss, in nats a token, is below KNOWN_LOSS: then the facts are known by heart."""
_THINK_S, _TELL_S = 0.25, 2.0
"""Seconds between an answer to a user and the next request, and between two lines of one step."""
_READY_S = 300.0


@dataclass(frozen=True)
class Challenger:
    """One version of the demo."""

    label: str
    make: Callable[[Path, Path], object]
    """Write its model directory, given the champion's."""
    expected: str
    """Outcome of its rollout: promoted or dropped."""


@dataclass(frozen=True)
class DemoResult:
    """The end of one rollout, as users and the ledger saw it."""

    version: str
    label: str
    outcome: str
    expected: str
    reason: str
    seconds: float
    answered: int
    """Live requests that users had answered meanwhile."""
    failed: int
    """Live requests that failed for users."""
    by_challenger: int
    """Live requests that the challenger answered."""


def question(country: str) -> str:
    return f"What is the capital of {country}?"


def passage(country: str) -> str:
    return f"The capital of {country} is {CAPITALS[country]}. Many visitors of {country} come to {CAPITALS[country]}."


def replayed_prompts() -> list[str]:
    """Return the beginnings of all passages."""
    return [passage(country).partition(" is ")[0] for country in CAPITALS]


def challengers() -> tuple[Challenger, ...]:
    """Return the versions of the demo, in the order of their rollouts."""
    return (
        Challenger("fails: its weights are damaged", _damage_weights, "dropped"),
        Challenger("wrong chat template", _replace_template, "dropped"),
        Challenger("good: trained anew", lambda _, folder: train_model(folder, seed=2), "promoted"),
    )


def run_demo(root: Path, port: int, tell: Callable[[str], None]) -> list[DemoResult]:
    """Roll out every challenger against a champion in the empty folder `root`; `tell` gets the lines to show."""
    started = time.monotonic()

    def say(text: str, version: str = "") -> None:
        about = f"v{version}  " if version else ""
        tell(f"{time.monotonic() - started:5.0f} s  {about}{text}")

    workspace = make_workspace(root)
    say(f"training two small models on {len(CAPITALS)} facts")
    models = {"champion": train_model(root / "champion", seed=1)}
    for number, challenger in enumerate(challengers()):
        models[challenger.label] = root / f"challenger-{number}"
        challenger.make(models["champion"], models[challenger.label])
    champion = release(workspace, models["champion"])
    open_releases(workspace).promote("first version of the demo", version=champion)
    say(f"v{champion} is the champion; starting Ray Serve")
    serving = load_block(workspace, ServeConfig).model_copy(update={"port": port})
    results = []
    with make_server(workspace, serving) as server:
        server.ready(_READY_S)
        with users(server.client) as seen:
            for challenger in challengers():
                version = release(workspace, models[challenger.label])
                say(f"v{version} ({challenger.label}) is the challenger")
                before, began = seen.counts(version), time.monotonic()
                report = roll_out(workspace, server.client, version, partial(say, version=version))
                answered, failed, by_challenger = (
                    now - then for now, then in zip(seen.counts(version), before, strict=True)
                )
                say(f"v{version} {report.outcome}: {report.reason}")
                results.append(
                    DemoResult(
                        version,
                        challenger.label,
                        report.outcome,
                        challenger.expected,
                        report.reason,
                        time.monotonic() - began,
                        answered,
                        failed,
                        by_challenger,
                    )
                )
    return results


def make_workspace(root: Path) -> Workspace:
    """Return a workspace in `root` with the settings that come with sluice."""
    package = Path(sluice.__file__).parent
    for folder in ("conf", "model"):
        # The settings name files of model/ too: evaluation sets.
        (root / folder).symlink_to(package / folder)
    shutil.copyfile(package / "dvc.yaml", root / "dvc.yaml")
    workspace = Workspace(root)
    write_params(workspace.params, compose(workspace, []))
    return workspace


def release(workspace: Workspace, folder: Path) -> str:
    """Register a model with a verdict of the demo's own, and make it the challenger; return its version."""
    from sluice.model.evaluation.verdict import (
        ComparedModel,
        PolicyIdentity,
        SuiteIdentity,
        Verdict,
        write_verdict,
    )

    releases, policy = open_releases(workspace), policy_in_force(workspace)
    champion = releases.state().champion
    baseline = ComparedModel(model=model_hash(releases.model_folder(champion))) if champion else None
    verdict = Verdict(
        outcome="promote",
        reason="the demo signs its own verdicts",
        checks=[],
        confidence=0.95,
        correction="none",
        hashes={"model": model_hash(folder)},
        is_first_version=baseline is None,
        policy=PolicyIdentity(name=policy.name, version=str(policy.version), sha256=policy.sha256),
        suites={name: SuiteIdentity(sha256=sha256) for name, sha256 in sets_in_force(workspace).items()},
        baseline=baseline,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = folder.parent / f"verdict-{folder.name}.json"
    write_verdict(verdict, path, workspace.keys)
    version, _ = register_model(workspace, folder, path)
    propose_version(workspace, version, None, who())
    return version


def roll_out(workspace: Workspace, client: "Client", version: str, tell: Callable[[str], None]) -> "RolloutReport":
    """Roll out the challenger; `tell` gets a line whenever its step changes, and every two seconds."""
    from sluice.serving.rollout import run_rollout

    step, shown_at = "", 0.0

    def progress(done: int, total: int, note: str) -> None:
        nonlocal step, shown_at
        now = time.monotonic()
        if note.partition(":")[0] != step or now - shown_at >= _TELL_S:
            step, shown_at = note.partition(":")[0], now
            tell(f"{done:4}/{total} replays  {note}")

    config = load_block(workspace, RolloutConfig)
    # Three users send few requests: too few to wait for some of them at 1 and 5 %, and for many at the others.
    most = {1: 0, 5: 0, 25: 5, 50: 10, 100: 20}
    steps = [
        step.model_copy(update={"least_live": min(step.least_live, most.get(step.weight, step.least_live))})
        for step in config.steps
    ]
    config = config.model_copy(update={"steps": steps})
    releases = open_releases(workspace, "rollout")
    with Lease(LeaseTable(workspace.database_url), releases.model, version) as lease:
        quality = known_capitals(client, config)
        return run_rollout(
            releases, client, replayed_prompts(), config, quality=quality, lease=lease, progress=progress
        )


def known_capitals(client: "Client", config: RolloutConfig) -> "RolloutQuality":
    """Return the probes of a rollout: every fact, asked as a chat."""
    from sluice.model.evaluation.evaluated import AnswerRequest, Message
    from sluice.serving.quality.known import KnownItem
    from sluice.serving.quality.probes import QualityProbes, RolloutQuality

    def item(country: str) -> KnownItem:
        request = AnswerRequest((Message("user", question(country)),), config.max_tokens)
        return KnownItem(request, lambda text, _: float(CAPITALS[country] in text))

    probes = QualityProbes([], [item(country) for country in CAPITALS], ["parity not available in the demo"])
    return RolloutQuality(client, probes, config.quality)


@dataclass
class UsersSeen:
    """Answers that the users of the demo got."""

    answers: list[tuple[int, str]] = field(default_factory=list)
    """HTTP status and version of each."""

    def counts(self, version: str) -> tuple[int, int, int]:
        """Return the number of answered and of failed requests, and of those that `version` answered."""
        found = list(self.answers)
        answered = sum(status == 200 for status, _ in found)
        return answered, len(found) - answered, sum(each == version for _, each in found)


@contextmanager
def users(client: "Client", count: int = 3) -> Iterator[UsersSeen]:
    """Have `count` users ask for facts, one after the other, until the end."""
    prompts = replayed_prompts()
    seen, done = UsersSeen(), threading.Event()

    def ask(number: int) -> None:
        chance = random.Random(number)
        while not done.wait(_THINK_S):
            answer = client.complete(chance.choice(prompts), 24, chance.randrange(2**31), "live")
            seen.answers.append((answer.status, answer.version))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join(30)


def train_model(folder: Path, seed: int) -> Path:
    """Train a small model on the facts, as passages and as questions with answers, and write its directory."""
    import torch

    from sluice.model.architecture.config import ModelConfig, TransformerConfig
    from sluice.model.architecture.initialization import initialize
    from sluice.model.architecture.loss import cross_entropy_sum
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.directory import save_model
    from sluice.model.tuning.chat import Rendered, collate, padding_id, render_pair

    # More threads are no faster on matrices so small, and far slower where other processes keep the cores busy.
    torch.set_num_threads(1)
    tokenizer_folder = folder.parent / "tokenizer"
    tokenizer = _tokenizer(tokenizer_folder)
    end = padding_id(tokenizer)
    pairs = [render_pair(tokenizer, question(country), passage(country)) for country in CAPITALS]
    texts = [[*tokenizer.encode(passage(country)).ids, end] for country in CAPITALS]
    batch = collate([*pairs, *(Rendered(ids, [True] * len(ids)) for ids in texts)], end)
    settings = ModelConfig.model_validate({"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "context": 96})
    model = Transformer(TransformerConfig.from_settings(settings, tokenizer.get_vocab_size()))
    initialize(model, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    for _ in range(MOST_STEPS):
        total, tokens = cross_entropy_sum(model, batch.ids, batch.targets, batch.mask)
        loss = total / tokens
        if loss.item() < KNOWN_LOSS:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    save_model(folder, model, tokenizer_folder, {"trained_on": "the capitals of the canary demo"})
    return folder


def _tokenizer(folder: Path) -> "Tokenizer":
    """Return the byte-level BPE tokenizer of the facts, trained once into `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if not (folder / "tokenizer.json").is_file():
        from sluice.data.tokenization import ASSISTANT, END_OF_TEXT, END_OF_TURN, USER

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=[END_OF_TEXT, USER, ASSISTANT, END_OF_TURN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator([text(each) for each in CAPITALS for text in (question, passage)], trainer)
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text("{}")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _damage_weights(champion: Path, folder: Path) -> None:
    import torch

    from sluice.model.directory import load_model, save_continued

    model, _ = load_model(champion)
    with torch.no_grad():
        model.embedding.weight[:, 0] = torch.nan
    save_continued(folder, model, champion, {})


def _replace_template(champion: Path, folder: Path) -> None:
    shutil.copytree(champion, folder)
    (folder / CHAT_TEMPLATE_FILE).write_text(WRONG_TEMPLATE)


def summary(results: Sequence[DemoResult]) -> list[str]:
    """Return the results as the lines of a table."""
    rows = [("version", "challenger", "outcome", "expected", "seconds", "users answered", "failed", "by challenger")]
    rows += [
        (
            f"v{each.version}",
            each.label,
            each.outcome,
            each.expected,
            f"{each.seconds:.0f}",
            str(each.answered),
            str(each.failed),
            str(each.by_challenger),
        )
        for each in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
