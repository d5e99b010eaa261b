"""The licence that a model card states: the base's, as its own card says, or the user's word."""

import re
from collections.abc import Mapping

from huggingface_hub import ModelCard

from sweeps.publish.usage_code import is_hub_id
from trainables.errors import SweepAborted
from trainables.models.model_files import list_tokenizer_files

CARD_FILE = "README.md"
OTHER = "other"
"""What the Hub calls a licence that it has no identifier for."""
NOT_STATED = "Licence: not stated; neither the base's card nor the publisher names one."
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LINE = re.compile(r"^- Licence: .*$", re.M)


def read_license(base: str) -> dict[str, str]:
    """What the YAML of a folder's or a Hub model's card says: license, the Hub's identifier, e.g.
    apache-2.0, or "other" with license_name and license_link. Nothing where it says nothing.

    Nothing is guessed from a model's name.
    """
    for path in list_tokenizer_files(base, (CARD_FILE,)):
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
        fields = {"license": identifier, "license_name": name, "license_link": link}
        return {field: value for field, value in fields.items() if value is not None}
    return {}


def describe_base_license(license: Mapping[str, str]) -> str:
    """The card's line on a licence that only the base's card tells, as read_license has it."""
    if not license:
        return NOT_STATED
    name = license.get("license_name", license["license"])
    return (
        f"Licence: {name}, the base's own, as its card says. What the data's owners ask is not "
        "known here."
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
