"""Portuguese articles on invented buildings for the tiny model, each with a one-sentence summary.

What a summary takes from an article it takes word for word: a model that knows no Portuguese can
learn that much from a few dozen steps.
"""

from random import Random

from tests.benchmarks.tiny_makers.story_rows import Row, Story, draw_rows

BUILDINGS = {
    **dict.fromkeys(("Museu", "Farol", "Teatro", "Mercado", "Hospital", "Arquivo"), "o"),
    **dict.fromkeys(("Biblioteca", "Escola", "Capela", "Torre"), "a"),
}
"""Each with its article, which is also the ending of its participle."""
TOWNS = (
    "Serra Azul",
    "Porto Claro",
    "Monte Sereno",
    "Campo do Meio",
    "Vila das Pedras",
    "Ribeira Alta",
    "Lagoa Mansa",
    "Praia do Sal",
    "Vale Verde",
    "Morro Branco",
    "Ilha das Aves",
    "Ponte Velha",
)
FOUNDERS = (
    "pelos moradores",
    "pela prefeitura",
    "por pescadores",
    "por comerciantes",
    "por uma professora",
    "por um padre",
    "pelos soldados",
)
MISHAPS = ("uma enchente", "uma tempestade", "um grande roubo", "um ataque", "um vendaval")
USES = (
    "uma escola",
    "um cinema",
    "uma feira de livros",
    "um restaurante",
    "um coral",
    "um clube de xadrez",
    "uma oficina",
    "um hotel",
    "um jardim de plantas",
)
ASIDES = (
    "As paredes são de pedra clara.",
    "A entrada fica na frente da praça.",
    "Um pequeno jardim fica ao lado.",
    "O terreno era de uma antiga fazenda.",
    "Muitos viajantes escreveram sobre o lugar.",
    "O telhado foi trocado duas vezes.",
    "A cidade cresceu muito naquele tempo.",
    "O relógio ainda funciona.",
    "As janelas foram pintadas de azul.",
    "A visita é gratuita aos domingos.",
)
PARAGRAPHS = (
    "{The} {place} foi feit{o} em {year} {founder}.",
    "Sofreu {mishap} em {later}.",
    "Hoje abriga {use}.",
)
SUMMARY = "{The} {place} foi feit{o} em {year} e hoje abriga {use}."


def make_rows(split: str, seed: int = 0) -> list[Row]:
    """The rows of one split: id, title, text and summary."""
    return draw_rows(split, _draw_story, _tell, ("town", "use"), seed)


def _draw_story(rng: Random) -> Story:
    building, town = rng.choice(list(BUILDINGS)), rng.choice(TOWNS)
    year = rng.randrange(1850, 1930)
    return {
        "town": town,
        "place": f"{building} de {town}",
        "o": BUILDINGS[building],
        "The": BUILDINGS[building].upper(),
        "year": str(year),
        "founder": rng.choice(FOUNDERS),
        "mishap": rng.choice(MISHAPS),
        "later": str(year + rng.randrange(5, 60)),
        "use": rng.choice(USES),
    }


def _tell(rng: Random, story: Story, split: str, number: int) -> Row:
    """Three paragraphs: who built it, what befell it, what it is for today."""
    asides = rng.sample(ASIDES, 6)
    paragraphs = [
        " ".join((sentence.format(**story), asides.pop(), asides.pop())) for sentence in PARAGRAPHS
    ]
    return {
        "id": f"tiny-{split}-{number:04d}",
        "title": story["place"],
        "text": "\n\n".join(paragraphs),
        "summary": SUMMARY.format(**story),
    }
