"""Names by which web pages call what is not their content: words in class and id, roles and tags."""

import re

from sluice.data.extraction.dom import Element

_ROLES = re.compile(
    r"alertdialog|banner|complementary|contentinfo|dialog|menu|menubar|navigation|search|toolbar|tooltip"
)
_NAMES = re.compile(
    r"ad|ads|adslot|advert|advertisement|advertising|akismet|authorbox|banner|blogroll|breadcrumb|breadcrumbs"
    r"|captcha|catlinks|cb|colophon|consent|cookie|cookiebanner|cookies|copyright|cta|disqus|editsection"
    r"|feedback|footer|gdpr|likes|linklist|login|masthead|menu|menus|modal|nav|navbar|navbox|navi|navibar"
    r"|navigation|newsletter|noprint|outbrain|pager|pagination|paywall|popup|postmetadata|printfooter|promo"
    r"|promotion|readnext|recirculation|recommendation|recommendations|recommended|related|rhf|share|sharedaddy"
    r"|sharing|shoutbox|sidebar|sidenav|signup|similar|skip|skiplink|sociable|social|sponsor|sponsored|subnav"
    r"|subscribe|subscription|taboola|tagcloud|taglist|tags|taxonomy|teaser|teasers|toc|tocify|toolbar|topbar"
    r"|topnav|tooltip|trackbacks|trending|widget|widgets"
)
_COMMENTS = re.compile(r"comment|comments|commentlist|commentform|replies|reply|respond")
_PHRASES = re.compile(
    r"(?:^|[ _-])(?:foot|ft)(?:$|[ _-])|about.?(?:the.?)?author|action.?bar|also.?like"
    r"|author.?(?:bio|box|info|desc|card)|back.?to.?top|bottom.?(?:bar|links|nav)|jump.?to|lire.?aussi"
    r"|more.?(?:from|stories|news|events|posts)|most.?(?:read|popular|viewed|recent)|next.?prev"
    r"|page.?(?:info|bottom|header$)|post.?(?:nav|tags)|post.?profile|prev.?next|read.?(?:next|more|also)"
    r"|site.?(?:top|bottom|title)|site.?name|skip.?to|tag.?list|you.?(?:may|might)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NEVER_NAMED = re.compile(r"html|body|main|article|h1|h2|h3|p|pre|code|table|tbody|tr")
COMMENTS = "comments"


def furniture_name(element: Element) -> str | None:
    """Return the tag, role or name by which an element is furniture; COMMENTS of what readers add under a text."""
    tag = element.tag
    if tag in ("nav", "menu", "dialog", "form"):
        return str(tag)
    if _ROLES.fullmatch(element.get("role", "")):
        return str(element.get("role"))
    if _NEVER_NAMED.fullmatch(tag):
        return None
    named = f"{element.get('class', '')} {element.get('id', '')}"
    words = [word.lower() for word in _WORD.findall(named)]
    if tag == "a" and not {"btn", "button"}.isdisjoint(words):
        return "button"
    if any(map(_COMMENTS.fullmatch, words)):
        return COMMENTS
    phrase = next(filter(None, map(_NAMES.fullmatch, words)), None) or _PHRASES.search(named)
    return phrase[0].lower() if phrase else None
