"""Sentences and words of English, Turkish and Portuguese."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import Language
from trainables.metrics.sentences import sentences_of
from trainables.metrics.words import words_of

LANGUAGES: tuple[Language, ...] = ("english", "turkish", "portuguese")
SENTENCES: dict[Language, list[str]] = {
    "english": [
        'Ann left.|Bob asked "Why?" and stayed.|She said 3.5 is fine!|Ok',
        "Dr. Smith met J. R. Brown at 5 p.m. on Hanover St. 12.|Ann came at 6 p.m.|She sang.",
        "Buy eggs, milk etc. at no. 7.|Is it far?|No.|Ben is taller than I.|He runs 3.5 km.",
        "1. Milk is bought.|2. Mum is called.|It starts at 5.|Bob waits... and waits.",
        "Then (at last.) he goes.",
        "So ... no.|(He left.)|“Fine.”|Go to example.com!|U.S. troops left.",
    ],
    "turkish": [
        "Dr. Umut Yıldız 19. yüzyılı anlatıyor.|II. Mahmud ile 3. Selim'den söz ediyor.",
        "Elma, armut vb. meyveler aldı.|Çilek, kiraz vb.|Sonra eve döndü.",
        "Film 1995 yapımı, puanı 8.5 oldu.|Yıl 2023.|M. Kemal 1. sıradaydı.",
        '"Neden?" diye sordu.|T.C. vatandaşı mı?|Evet!',
    ],
    "portuguese": [
        "O Sr. Silva e a Dra. Ana chegaram.|A sra. concorda?|Sim.",
        "Comprou pão, leite etc. na Av. Paulista.|Pagou R$ 3.500,00 no total.",
        "Veja o art. 5 da lei, pág. 12.|George W. Bush falou [...] pouco.|É arte.|1. Fim",
    ],
}
TURKISH = st.text(alphabet="aeıiöüçşğIİÖÜÇŞĞ ", max_size=30)


@pytest.mark.parametrize(
    ("language", "marked"), [(name, text) for name, texts in SENTENCES.items() for text in texts]
)
def test_sentences_end_where_a_reader_ends_them(language: Language, marked: str) -> None:
    assert sentences_of(marked.replace("|", " "), language) == marked.split("|")


def test_newlines_always_end_a_sentence() -> None:
    assert sentences_of("hi Dr.\n\n 1.\r\nok  ", "english") == ["hi Dr.", "1.", "ok"]


@given(st.text(max_size=80), st.sampled_from(LANGUAGES))
def test_splitting_neither_loses_nor_cuts_a_word(text: str, language: Language) -> None:
    parts = [word for part in sentences_of(text, language) for word in words_of(part, language)]
    assert parts == words_of(text, language)


def test_letters_stay_in_their_words() -> None:
    assert words_of("Çocuklar ŞİMDİ çalışıyor.", "turkish") == ["çocuklar", "şimdi", "çalışıyor"]
    assert words_of("IŞIK ılık, İyi", "turkish") == ["ışık", "ılık", "iyi"]
    text = "São João não virá à reunião amanhã"
    assert words_of(text, "portuguese") == text.lower().split()


def test_dot_of_a_lowered_capital_i_splits_no_word() -> None:
    for language in LANGUAGES:
        assert words_of("İzmir i̇zmir izmir", language) == ["izmir"] * 3


@given(TURKISH)
def test_capitals_do_not_matter_in_turkish(text: str) -> None:
    capitals = text.replace("i", "İ").upper()
    assert words_of(capitals, "turkish") == words_of(text, "turkish")


@given(TURKISH, st.sampled_from(LANGUAGES), st.sampled_from(["NFC", "NFD"]))
def test_composed_and_decomposed_letters_are_one(text: str, language: Language, form: str) -> None:
    other = unicodedata.normalize(form, text)
    assert words_of(other, language) == words_of(text, language)


def test_marks_and_unseen_characters_split_no_word() -> None:
    assert words_of("x̌y in\N{SOFT HYPHEN}for\N{ZERO WIDTH NON-JOINER}mal", "turkish") == [
        "x̌y",
        "informal",
    ]


@pytest.mark.parametrize("apostrophe", ["'", "’", "ʼ", "`"])
def test_apostrophes_part_a_name_from_its_suffix(apostrophe: str) -> None:
    words = words_of(f"Ankara{apostrophe}da snake_case", "turkish")
    assert words == ["ankara", "da", "snake", "case"]


def test_only_english_is_stemmed() -> None:
    assert words_of("running cats", "english") == ["run", "cat"]
    assert words_of("running cats", "portuguese") == ["running", "cats"]
