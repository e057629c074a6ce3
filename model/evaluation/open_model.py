"""Open what is to be evaluated: a model directory, or the URL of a server with OpenAI's API."""

from pathlib import Path

from sluice.model.evaluation.evaluated import EvaluatedModel


def open_model(name: str | Path, *, key: str | None = None) -> EvaluatedModel:
    """Return the model at a directory, trained here or imported, or behind an http(s) URL.

    `key` is the server's, SLUICE_API_KEY by default. Raises ValueError for a directory that is damaged or no decoder's,
    and for a server that does not answer.
    """
    if isinstance(name, str) and name.startswith(("http://", "https://")):
        from sluice.model.evaluation.served_model import ServedModel

        return ServedModel.connect(name, key=key)
    from sluice.model.evaluation.model_folder import ModelFolder

    return ModelFolder(Path(name))
