"""Turkish travel videos for the tiny model: what is said in them, and a summary of one sentence.

Every word stands in the lists below with the suffixes that its sentences need. What a summary
takes from a video it takes word for word, and in letters that the tiny model has seen: a model that
knows no Turkish can learn that much from a few dozen steps.
"""
# ruff: noqa: RUF001 - Turkish has a dotless i

from random import Random

from tests.benchmarks.tiny_makers.story_rows import Row, Story, draw_rows

WORDS = {
    "name": ("Elif", "Deniz", "Mert", "Kerem", "Defne", "Selin", "Emre", "Nehir", "Melis", "Ferit"),
    "city": (
        *("Ankara'ya", "Bursa'ya", "Mardin'e", "Sinop'a", "Van'a", "Konya'ya", "Edirne'ye"),
        *("Antalya'ya", "Kars'a", "Amasya'ya", "Sivas'a", "Rize'ye"),
    ),
    "vehicle": ("trenle", "bisikletle", "taksiyle", "gemiyle", "kamyonetle"),
    "companion": ("annesiyle", "dedesiyle", "kuzeniyle", "ninesiyle", "teyzesiyle", "ekibiyle"),
    "visit": (
        "kaleyi gezdi",
        "eski kenti gezdi",
        "gemileri seyretti",
        "deniz fenerini inceledi",
        "bir sergiyi gezdi",
        "denize girdi",
        "evleri resmetti",
        "bir festivale gitti",
        "kedileri besledi",
        "bir konseri dinledi",
    ),
    "meal": (
        "pilav yedi",
        "simit yedi",
        "peynir ekmek yedi",
        "kebap yedi",
        "incir yedi",
        "dondurma yedi",
        "tost yedi",
    ),
    "ending": (
        "denizi seyretti",
        "bir otelde dinlendi",
        "son treni bekledi",
        "telefonunu kaybetti",
        "eski dostunu ziyaret etti",
        "bir film izledi",
        "evine geri geldi",
    ),
}
GREETINGS = (
    "Merhaba arkadaşlar, kanala hoş geldiniz.",
    "Herkese selam, yine birlikteyiz.",
    "Selam dostlar, yeni videoya hoş geldiniz.",
)
ASIDES = (
    "Hava güneşli ama biraz rüzgârlıydı.",
    "Sabah yağmur vardı, sonra güneş geldi.",
    "Hava sıcaktı, herkes su içti.",
    "Yorumların hepsini okuyorum.",
    "Videoyu beğenmeyi unutmayın.",
    "Kamera yeni, görüntü net.",
    "Bu yolu daha önce hiç görmedik.",
    "İnsanlar çok iyi davrandı.",
    "Sokaklar sessiz ve temizdi.",
    "Yolda kısa bir mola verdik.",
    "Her şeyi tek tek anlatacağım.",
)
FAREWELLS = (
    "Bir sonraki videoda görüşmek üzere.",
    "İzlediğiniz için teşekkürler, hoşça kalın.",
    "Kendinize iyi bakın.",
)
MATTER = (
    "{name}, {companion} {city} {vehicle} gitti.",
    "Önce {visit}.",
    "Sonra {meal}.",
    "Akşam {ending}.",
)
SUMMARY = "{name} {city} gitti, {visit} ve {meal}."
TITLE = "{name} {city} Gidiyor | {number}. Bölüm"


def make_rows(split: str, seed: int = 0) -> list[Row]:
    """The rows of one split, in the dataset's columns."""
    return draw_rows(split, _draw_story, _tell, ("city", "visit"), seed)


def _draw_story(rng: Random) -> Story:
    return {fact: rng.choice(words) for fact, words in WORDS.items()}


def _tell(rng: Random, story: Story, split: str, number: int) -> Row:
    asides = rng.sample(ASIDES, 7)
    sentences = [rng.choice(GREETINGS), asides.pop(), asides.pop()]
    for sentence in MATTER:
        sentences += [sentence.format(**story), asides.pop()]
    sentences[-1:] = [*asides, rng.choice(FAREWELLS)]
    return {
        "id": f"tiny-{split}-{number:04d}",
        "title": TITLE.format(**story, number=f"{split} {number + 1}"),
        "category": "travel/vlog",
        "channel": f"{story['name']} Yollarda",
        "duration": f"0:{rng.randrange(3, 25):02d}:{rng.randrange(60):02d}",
        "url": f"https://example.org/watch?v={split}{number:04d}",
        "text": " ".join(sentences),
        "summary": SUMMARY.format(**story),
    }
