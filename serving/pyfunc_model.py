"""MLflow model of a registered version, as code that MLflow loads: no pickle, and no second copy of the weights.

MLflow copies this file beside the version's model directory and runs it in `mlflow.pyfunc.load_model`.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from sluice.model.evaluation.evaluated import AnswerRequest
from sluice.model.evaluation.model_folder import ModelFolder


class SluiceModel(PythonModel):  # type: ignore[misc, unused-ignore]
    """Completes prompts as `POST /v1/completions` does."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model directory, after comparing its files with the hashes in lineage.json."""
        self._model = ModelFolder(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the column `text` with the completion of every row's `prompt`.

        `params`: `max_tokens`, `temperature` (0 is greedy) and `seed`. Raises ValueError for a prompt that cannot be
        completed, such as one that fills the context.
        """
        options = {"max_tokens": 64, **(params or {})}
        # MLflow makes one row, with a list in it, of {"prompt": [..]}.
        prompts = [str(prompt) for prompt in model_input["prompt"].explode()]
        answers = self._model.generate([AnswerRequest(prompt, **options) for prompt in prompts])
        for row, answer in enumerate(answers):
            if answer.finish_reason == "error":
                raise ValueError(f"prompt of row {row}: {answer.error}")
        return pd.DataFrame({"text": [answer.text for answer in answers]})


mlflow.models.set_model(SluiceModel())
