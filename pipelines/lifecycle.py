"""The lifecycle as a KFP pipeline: text in, a served and watched model out. The same definition runs on a laptop and on
a cluster.

There is no `dsl.If` after the gate: register and rollout read the signed verdict themselves and say `skipped` where it
does not promote, because a condition of the graph must never be the only guard (a local run takes neither branch of a
malformed one and still reports success).
"""

from collections.abc import Callable

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from sluice.pipelines import steps


def lifecycle(place: Callable[[dsl.PipelineTask], object] | None = None) -> GraphComponent:
    """The graph; `place` says of each task where and with what it runs, which a local run has no use for."""

    @dsl.pipeline(
        name="sluice-lifecycle", description="Raw text to a served language model, with evidence at each gate."
    )
    def graph(workspace: str, settings: str) -> None:
        given = {"workspace": workspace, "settings": settings}
        raw = steps.ingest(**given)
        clean = steps.refine(**given, ingest=raw.outputs["Output"])
        vocabulary = steps.tokenizer(**given, refine=clean.outputs["Output"])
        tokens = steps.pack(**given, refine=clean.outputs["Output"], tokenizer=vocabulary.outputs["Output"])
        base = steps.pretrain(**given, pack=tokens.outputs["Output"], tokenizer=vocabulary.outputs["Output"])
        tuned = steps.tune(**given, pretrain=base.outputs["Output"], refine=clean.outputs["Output"])
        measured = steps.evaluate(**given, tune=tuned.outputs["Output"], refine=clean.outputs["Output"])
        verdict = steps.gate(**given, evaluate=measured.outputs["Output"])
        version = steps.register(**given, gate=verdict.output)
        release = steps.rollout(**given, register=version.output)
        watched = steps.monitor(**given, rollout=release.output)
        for task in (raw, clean, vocabulary, tokens, base, tuned, measured, verdict, version, release, watched):
            # DVC decides what has to run; KFP's own cache does not see changes of our code.
            task.set_caching_options(False)
            if place is not None:
                place(task)

    return graph
