"""Messages about wrong settings: values as they are typed, keys without the names of classes."""

from collections.abc import Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_KINDS = {float: "number", int: "whole number", str: "text", bool: "true or false", NoneType: "null"}
_SHOWN_INPUT = 80  # characters


def spelled(value: Any) -> str:
    """A value as it is typed after `key=`: null, true, 0.5, [en], {weight: 2}."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(spelled, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {spelled(held)}' for name, held in value.items())}}}"
    return str(value)


def mistake(model: type[BaseModel], errors: ValidationError, prefix: Sequence[str] = ()) -> str:
    """One line about the first mistake: the key, with `prefix` before it, its value, and what is allowed."""
    # A key that is not known explains one that is missing, and not the other way round.
    error = min(errors.errors(), key=lambda each: each["type"] != "extra_forbidden")
    place, at = _place(model, error["loc"])
    key = ".".join([*prefix, *place])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = get_close_matches(place[-1], at.model_fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"unknown key '{key}': allowed are {', '.join(sorted(at.model_fields))}{hint}"
    if not place:
        return f"{key}: {message}" if key else message
    if error["type"] == "missing":
        held = spelled(error["input"])
        # A whole document, and a long part of one, would hide the message.
        return f"{key} is missing in {held}" if len(place) > 1 and len(held) <= _SHOWN_INPUT else f"{key} is missing"
    if _is_model(at) and error["type"] == "value_error":
        return f"{key}: {message}"
    if _is_model(at) or (error["type"] == "dict_type" and get_origin(at) is dict):
        return f"{key}: must be {_kind(at)}, and is {spelled(error['input'])}"
    said = f"{message[:1].lower()}{message[1:]}"
    if error["type"] == "list_type" and not isinstance(error["input"], dict):
        said += f", such as [{spelled(error['input'])}]"
    return f"{key}={spelled(error['input'])}: {said}"


def _place(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[str], Any]:
    """A pydantic location less the names of classes in it, and the model or annotation that the error is about.

    For a key that is not known, that is the model that should have known it.
    """
    at: Any = model
    place: list[str] = []
    for part in location:
        at = _without_null(at)
        if get_origin(at) in {Union, UnionType}:
            # pydantic names the member that it tried.
            tags = {getattr(get_origin(each) or each, "__name__", str(each)): each for each in get_args(at)}
            at = tags.get(str(part).partition("[")[0], Any)
            continue
        place.append(str(part))
        if _is_model(at):
            at = at.model_fields[part].annotation if part in at.model_fields else at
        elif get_origin(at) in {list, dict}:
            at = get_args(at)[-1]
    return place, _without_null(at)


def _without_null(annotation: Any) -> Any:
    if get_origin(annotation) in {Union, UnionType}:
        rest = [each for each in get_args(annotation) if each is not NoneType]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind(annotation: Any) -> str:
    """The values that an annotation allows: number, text or null, {weight: number}, {NAME: whole number}."""
    if _is_model(annotation):
        fields = annotation.model_fields.items()
        return f"{{{', '.join(f'{name}: {_kind(field.annotation)}' for name, field in fields)}}}"
    if get_origin(annotation) in {Union, UnionType}:
        return " or ".join(map(_kind, get_args(annotation)))
    if get_origin(annotation) is dict:
        return f"{{NAME: {_kind(get_args(annotation)[-1])}}}"
    return _KINDS.get(annotation, "a list" if get_origin(annotation) is list else "a value of its own")
