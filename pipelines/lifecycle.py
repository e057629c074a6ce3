"""The lifecycle as a KFP pipeline: text in, a served and watched model out. The same definition runs on a laptop and on
a cluster.

There is no `dsl.If` after the gate: register and rollout read the signed verdict themselves and say `skipped` where it
does not promote, because a condition of the graph must never be the only guard (a local run takes neither branch of a
malformed one and still reports success).
"""

from kfp import dsl

from sluice.pipelines import steps


@dsl.pipeline(name="sluice-lifecycle", description="Raw text to a served language model, with evidence at each gate.")
def lifecycle(workspace: str) -> None:
    raw = steps.ingest(workspace=workspace)
    clean = steps.refine(workspace=workspace, ingest=raw.outputs["Output"])
    vocabulary = steps.tokenizer(workspace=workspace, refine=clean.outputs["Output"])
    tokens = steps.pack(workspace=workspace, refine=clean.outputs["Output"], tokenizer=vocabulary.outputs["Output"])
    base = steps.pretrain(workspace=workspace, pack=tokens.outputs["Output"], tokenizer=vocabulary.outputs["Output"])
    tuned = steps.tune(workspace=workspace, pretrain=base.outputs["Output"], refine=clean.outputs["Output"])
    measured = steps.evaluate(workspace=workspace, tune=tuned.outputs["Output"], refine=clean.outputs["Output"])
    verdict = steps.gate(workspace=workspace, evaluate=measured.outputs["Output"])
    version = steps.register(workspace=workspace, gate=verdict.output)
    release = steps.rollout(workspace=workspace, register=version.output)
    watched = steps.monitor(workspace=workspace, rollout=release.output)
    for task in (raw, clean, vocabulary, tokens, base, tuned, measured, verdict, version, release, watched):
        # DVC decides what has to run; KFP's own cache does not see changes of our code.
        task.set_caching_options(False)
