"""The licence that a model card states: the base's, as its own card says, or the user's word."""

import re
from dataclasses import dataclass

from huggingface_hub import ModelCard

from sweeps.publish.usage_code import is_hub_id
from trainables.errors import SweepAborted
from trainables.models.model_files import tokenizer_files

CARD_FILE = "README.md"
OTHER = "other"
"""What the Hub calls a licence that it has no identifier for."""
NOT_STATED = "Licence: not stated; neither the base's card nor the publisher names one."
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LINE = re.compile(r"^- Licence: .*$", re.M)


@dataclass(frozen=True, kw_only=True)
class License:
    """As the Hub's metadata has it."""

    identifier: str
    """The Hub's, e.g. apache-2.0; "other" with a name and a link."""
    name: str | None = None
    link: str | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """Fields of a card's YAML."""
        fields = {"license": self.identifier, "license_name": self.name, "license_link": self.link}
        return {name: value for name, value in fields.items() if value is not None}


def read_license(base: str) -> License | None:
    """What the card of a folder or of a Hub model says; None if it has none or says nothing.

    Nothing is guessed from a model's name.
    """
    for path in tokenizer_files(base, (CARD_FILE,)):
        try:
            data = ModelCard(path.read_text(encoding="utf-8")).data
        except Exception:  # yaml and huggingface_hub raise many kinds; a stranger's card may be odd
            continue
        identifier, name, link = (
            value if isinstance(value := data.get(field), str) else None
            for field in ("license", "license_name", "license_link")
        )
        if identifier is None or not _IDENTIFIER.fullmatch(identifier):
            continue
        if link is not None and "://" not in link:  # a file beside that card
            link = f"https://huggingface.co/{base}/blob/main/{link}" if is_hub_id(base) else None
        return License(identifier=identifier, name=name, link=link)
    return None


def describe_base_license(license: License | None) -> str:
    """The card's line on a licence that only the base's card tells."""
    if license is None:
        return NOT_STATED
    return (
        f"Licence: {license.name or license.identifier}, the base's own, as its card says. What "
        "the data's owners ask is not known here."
    )


def check_identifier(identifier: str) -> None:
    """Refuses what cannot be the Hub's identifier of a licence."""
    if not _IDENTIFIER.fullmatch(identifier):
        raise SweepAborted(
            f"--license {identifier!r} is no identifier of a licence",
            "give one of https://huggingface.co/docs/hub/repositories-licenses, e.g. "
            "--license apache-2.0",
        )


def state_license(card: str, identifier: str) -> str:
    """The card with the licence that its publisher states in place of the base's."""
    read = ModelCard(card)
    for field in ("license_name", "license_link"):
        read.data.pop(field, None)
    read.data["license"] = identifier
    body = _LINE.sub(f"- Licence: {identifier}, as stated by who published this.", read.text, 1)
    return f"---\n{read.data.to_yaml()}\n---\n{body}"
