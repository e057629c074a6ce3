"""How each directive of reStructuredText and Sphinx becomes plain text."""

import re
from enum import Enum, auto


class Treatment(Enum):
    """How the content of a directive is converted."""

    DROP = auto()
    """No prose: navigation, pictures, generated or hidden text."""
    CODE = auto()
    PROSE = auto()
    """The content alone; the argument is a style or a condition."""
    TABBED = auto()
    """The content after the argument, which is its label."""
    LABELLED = auto()
    """The content after the directive's label, as rendered (`Note: ...`)."""
    TITLED = auto()
    """A signature or a title that becomes a heading over the content."""
    LIST_TABLE = auto()


_LABELS = {
    "versionadded": "New in version",
    "version-added": "New in version",
    "versionchanged": "Changed in version",
    "version-changed": "Changed in version",
    "deprecated": "Deprecated since version",
    "version-deprecated": "Deprecated since version",
    "versionremoved": "Removed in version",
    "deprecated-removed": "Deprecated since version",
    "seealso": "See also",
    "warning": "Warning",
    "danger": "Danger",
    "caution": "Caution",
    "important": "Important",
    "attention": "Attention",
    "error": "Error",
    "note": "Note",
    "tip": "Tip",
    "hint": "Hint",
}
_NAMES = {
    Treatment.CODE: (
        "code code-block code-tab sourcecode doctest testcode testoutput parsed-literal console prompt ipython literal "
        "command productionlist math"
    ),
    Treatment.TITLED: (
        "class function method attribute data exception classmethod staticmethod decorator decoratormethod property "
        "describe object type var macro member struct enum enumerator option cmdoption envvar confval setting "
        "templatetag templatefilter fieldlookup django-admin django-admin-option signal event fixture hook reqmeta "
        "stat directive role directive:option opcode rubric topic admonition sidebar dropdown"
    ),
    Treatment.PROSE: (
        "only container compound epigraph highlights pull-quote glossary rst-class cssclass div hlist table tabs "
        "tab-set grid grid-item flat-table ifconfig"
    ),
    Treatment.TABBED: "tab tab-item group-tab card grid-item-card collapse details centered",
    Treatment.LIST_TABLE: "list-table",
    Treatment.LABELLED: " ".join(_LABELS),
}
_TREATMENT_OF = {name: treatment for treatment, names in _NAMES.items() for name in names.split()}
_DOMAIN = re.compile(r"\A(?:py|c|cpp|js|rst|std|salt|rst:):")


def treatment_of(name: str) -> Treatment:
    """Return the treatment of the directive `name` (lower case, domain included); unknown ones are dropped.

    Unknown directives are mostly generators (autodoc and the like), whose argument is no prose.
    """
    return _TREATMENT_OF.get(_DOMAIN.sub("", name).lstrip(":"), Treatment.DROP)


def label_of(name: str, argument: str) -> str:
    """Return what Sphinx prints before the content of an admonition: `Note`, or `New in version 3.1`."""
    label = _LABELS[_DOMAIN.sub("", name)]
    return f"{label} {argument}" if label.endswith("version") else label


def argument_is_version(name: str) -> bool:
    return _LABELS.get(name, "").endswith("version")
