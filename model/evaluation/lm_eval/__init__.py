"""Stock tasks of lm-evaluation-harness on a model under evaluation, offline; the library is the extra `eval`."""

from sluice.model.evaluation.lm_eval.run import run_task

__all__ = ["run_task"]
