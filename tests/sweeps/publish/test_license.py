"""The licence on a card is the base's own word or the publisher's, never a guess."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from sweeps.publish.license import check_identifier, read_license, state_license
from sweeps.publish.model_card import render
from tests.sweeps.example_facts import facts
from trainables.errors import SweepAborted
from trainables.tiny import MODEL_DIR


def write_card(folder: Path, yaml: str) -> str:
    (folder / "README.md").write_text(f"---\n{yaml}\n---\n# A base\n", encoding="utf-8")
    return str(folder)


def test_licence_of_a_folder_is_what_its_card_says(tmp_path: Path) -> None:
    base = write_card(tmp_path, "license: apache-2.0\nlanguage: en")
    assert read_license(base) == {"license": "apache-2.0"}
    write_card(tmp_path, "license: other\nlicense_name: qwen\nlicense_link: LICENSE")
    assert read_license(base) == {"license": "other", "license_name": "qwen"}
    write_card(tmp_path, "license: other\nlicense_name: qwen\nlicense_link: https://q.org/L")
    linked = {"license": "other", "license_name": "qwen", "license_link": "https://q.org/L"}
    assert read_license(base) == linked


@pytest.mark.parametrize("yaml", ["", "language: en", "license: [a, b]", "license: 'A B'", "a: ["])
def test_nothing_is_made_of_a_card_that_names_none(tmp_path: Path, yaml: str) -> None:
    assert read_license(write_card(tmp_path, yaml)) == {}


def test_base_without_a_card_has_no_licence() -> None:
    assert read_license(str(MODEL_DIR)) == {}


def test_publishers_word_takes_the_place_of_the_bases() -> None:
    link = "https://q.org/L"
    base = {"license": "other", "license_name": "qwen-research", "license_link": link}
    card = state_license(render(facts(license=base)), "cc-by-4.0")
    assert ModelCard(card).data.to_dict()["license"] == "cc-by-4.0"
    assert "qwen-research" not in card and "license_link" not in card
    assert card.count("- Licence: cc-by-4.0, as stated by who published this.") == 1
    assert ModelCard(card).text == ModelCard(render(facts())).text.replace(
        "- Licence: not stated; neither the base's card nor the publisher names one.",
        "- Licence: cc-by-4.0, as stated by who published this.",
    )


def test_words_that_are_no_identifier_are_refused() -> None:
    with pytest.raises(SweepAborted) as refused:
        check_identifier("My Licence")
    assert "--license apache-2.0" in refused.value.fix
