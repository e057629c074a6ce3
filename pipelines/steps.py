"""The KFP components. A content step has DVC bring one stage up to date; an effect step calls one function. Nothing
else is in here.

KFP sends only a component's own source to where it runs, so each body imports what it needs. `settings` is the text of
params.yaml; the parameters named after steps carry the content hashes that make the graph's edges, and a step refuses
artifacts that another run has put in their place.
"""

from kfp import dsl

IMAGE = "sluice:0.1.0"
"""The image of infra/container, which holds the locked tree; nothing is installed when a step starts. `sluice compile`
names the one of a registry.
"""

component = dsl.component(base_image=IMAGE, install_kfp_package=False)


@component
def ingest(workspace: str, settings: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce
    from sluice.components.task import enter_task

    done = reproduce(enter_task(workspace, settings, "ingest"), "ingest")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def refine(workspace: str, settings: str, ingest: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce
    from sluice.components.task import enter_task

    entered = enter_task(workspace, settings, "refine", {"ingest": ingest})
    done = reproduce(entered, "refine")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def tokenizer(workspace: str, settings: str, refine: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce
    from sluice.components.task import enter_task

    entered = enter_task(workspace, settings, "tokenizer", {"refine": refine})
    done = reproduce(entered, "tokenizer")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def pack(workspace: str, settings: str, refine: str, tokenizer: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce
    from sluice.components.task import enter_task

    entered = enter_task(workspace, settings, "pack", {"refine": refine, "tokenizer": tokenizer})
    done = reproduce(entered, "pack")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def pretrain(workspace: str, settings: str, pack: str, tokenizer: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce
    from sluice.components.task import enter_task

    entered = enter_task(workspace, settings, "pretrain", {"pack": pack, "tokenizer": tokenizer})
    done = reproduce(entered, "pretrain")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def tune(workspace: str, settings: str, pretrain: str, refine: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce
    from sluice.components.task import enter_task

    entered = enter_task(workspace, settings, "tune", {"pretrain": pretrain, "refine": refine})
    done = reproduce(entered, "tune")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def evaluate(workspace: str, settings: str, tune: str, refine: str, metrics: dsl.Output[dsl.Metrics]) -> str:
    from sluice.components.reproduce import reproduce
    from sluice.components.task import enter_task

    entered = enter_task(workspace, settings, "evaluate", {"tune": tune, "refine": refine})
    done = reproduce(entered, "evaluate")
    metrics.metadata.update(done.numbers)
    return done.content_hash


@component
def gate(workspace: str, settings: str, evaluate: str) -> str:
    from sluice.components.gate import gate
    from sluice.components.task import enter_task

    return gate(enter_task(workspace, settings, "gate", {"evaluate": evaluate}))


@component
def register(workspace: str, settings: str, gate: str) -> str:
    from sluice.components.register import register
    from sluice.components.task import enter_task

    return register(enter_task(workspace, settings, "register"))


@component
def rollout(workspace: str, settings: str, register: str) -> str:
    from sluice.components.rollout import rollout
    from sluice.components.task import enter_task

    return rollout(enter_task(workspace, settings, "rollout"), register)


@component
def monitor(workspace: str, settings: str, rollout: str) -> str:
    from sluice.components.monitor import monitor
    from sluice.components.task import enter_task

    return monitor(enter_task(workspace, settings, "monitor"))
