"""The KFP components. A content step has DVC bring one stage up to date; an effect step calls one function. Nothing
else is in here.

KFP sends only a component's own source to where it runs, so each body imports what it needs. The parameters named after
steps carry the content hashes that make the graph's edges.
"""

from kfp import dsl

IMAGE = "sluice:0.1.0"
"""The image of infra/container, which holds the locked tree; nothing is installed when a step starts."""

component = dsl.component(base_image=IMAGE, install_kfp_package=False)


@component
def ingest(workspace: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce

    done = reproduce(workspace, "ingest")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def refine(workspace: str, ingest: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce

    done = reproduce(workspace, "refine")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def tokenizer(workspace: str, refine: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce

    done = reproduce(workspace, "tokenizer")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def pack(workspace: str, refine: str, tokenizer: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce

    done = reproduce(workspace, "pack")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def pretrain(workspace: str, pack: str, tokenizer: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce

    done = reproduce(workspace, "pretrain")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def tune(workspace: str, pretrain: str, refine: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce

    done = reproduce(workspace, "tune")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def evaluate(workspace: str, tune: str, refine: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce

    done = reproduce(workspace, "evaluate")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def gate(workspace: str, evaluate: str) -> str:
    from sluice.components.gate import gate

    return gate(workspace)


@component
def register(workspace: str, gate: str) -> str:
    from sluice.components.register import register

    return register(workspace)


@component
def rollout(workspace: str, register: str) -> str:
    from sluice.components.rollout import rollout

    return rollout(workspace)


@component
def monitor(workspace: str, rollout: str) -> str:
    from sluice.components.monitor import monitor

    return monitor(workspace)
