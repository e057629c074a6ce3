"""Chat templates of model directories: Jinja, in the sandbox and with the functions that transformers gives them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class ChatTemplate:
    """Template of a model's conversations."""

    source: str
    special: Mapping[str, str]
    """Texts of special tokens by the names that templates use, such as `bos_token`."""

    def render(self, messages: Sequence[PromptMessage]) -> str:
        """Text of a conversation up to the assistant's turn. Raises ValueError with the template's own words."""
        from jinja2 import TemplateError

        try:
            return _compiled(self.source).render(
                messages=[asdict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self.special,
            )
        except (RecursionError, MemoryError):
            raise ValueError("the model's chat template refuses this conversation: it does not end") from None
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise ValueError(f"the model's chat template refuses this conversation: {error}") from error


def chat_template(settings: Mapping[str, Any], file: str | None) -> ChatTemplate | None:
    """Template of a model with this tokenizer_config.json, and this chat_template.jinja, which comes first."""
    source = settings.get("chat_template") if file is None else file
    if isinstance(source, list):
        # Several by name.
        named = (each for each in source if isinstance(each, dict) and each.get("name") == "default")
        source = next(named, {}).get("template")
    return ChatTemplate(source, special_texts(settings)) if isinstance(source, str) else None


def special_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the special tokens in a tokenizer_config.json, which has each as text or as an object."""
    values = {name: value for name, value in settings.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in values.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _compiled(source: str) -> "Template":
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """The tag around an answer of the assistant, which training uses: here its content alone."""

        tags = {"generation"}

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class SafeNamespace(Namespace):
        """Namespace without attributes that begin with an underscore, through which templates left the sandbox."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            Namespace.__init__(*args, **{_public(name): value for name, value in kwargs.items()})

        def __setitem__(self, name: str, value: Any) -> None:
            super().__setitem__(_public(name), value)

    def _public(name: str) -> str:
        if name.startswith("_"):
            raise SecurityError(f"a namespace has no attribute {name!r}")
        return name

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    # Not Jinja's own filter, which escapes for HTML.
    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "dict": lambda **values: values,
        "namespace": SafeNamespace,
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().astimezone().strftime(form),
    }
    return environment.from_string(source)
