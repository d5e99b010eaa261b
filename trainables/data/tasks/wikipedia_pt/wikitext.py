"""Wikitext as plain text: markup, tables, references, files and categories removed."""

import re

import mwparserfromhell
from mwparserfromhell.nodes import Wikilink

_REMOVED_TAGS = ("ref", "table", "gallery", "math", "timeline", "style")
_REMOVED_LINKS = re.compile(r"\s*(ficheiro|arquivo|imagem|file|image|categoria|category)\s*:", re.I)
_CATEGORY = re.compile(r"\[\[\s*(?:categoria|category)\s*:\s*([^\]|]+)", re.I)


def plain_text(wikitext: str) -> str:
    """The text that a reader sees, with a blank line between paragraphs."""
    code = mwparserfromhell.parse(wikitext)
    unwanted = [
        *code.filter_tags(recursive=True, matches=lambda tag: str(tag.tag) in _REMOVED_TAGS),
        *code.filter_wikilinks(matches=_is_removed),
    ]
    for node in unwanted:
        if code.contains(node):  # not within one that went already
            code.remove(node)
    text: str = code.strip_code()
    lines = (" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


def _is_removed(link: Wikilink) -> bool:
    return _REMOVED_LINKS.match(str(link.title)) is not None


def categories_of(wikitext: str) -> tuple[str, ...]:
    """Names of the article's categories."""
    return tuple(name.strip() for name in _CATEGORY.findall(wikitext))
