"""Words that fill the slots of the templates, and the small talk around a dialogue's matter."""


def _parse(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(","))


NAMES = _parse("""
    Ada, Alba, Amir, Anton, Asha, Bea, Boris, Bruno, Carla, Cem, Clara, Dario, Dina, Edda, Elif,
    Emil, Enzo, Esra, Fatma, Felix, Flora, Gino, Greta, Hana, Hugo, Ida, Igor, Ines, Ivo, Jana,
    Joel, Jonas, Kaya, Kira, Lara, Leon, Lina, Luca, Mara, Milo, Mina, Nadia, Nico, Nina, Noah,
    Olga, Omar, Oscar, Paula, Pavel, Petra, Rana, Remy, Rosa, Rui, Sami, Selma, Sofia, Stella,
    Tara, Theo, Tomas, Uma, Vera, Viktor, Wanda, Yara, Yusuf, Zara, Zoe
""")

WORDS: dict[str, tuple[str, ...]] = {
    "item": _parse("""
        tent, ladder, drill, guitar, camera, suitcase, raincoat, sleeping bag, tripod, blender,
        toolbox, bike pump, projector, lawn mower, hammock, sewing machine, backpack, lantern,
        telescope, speaker, waffle iron, paddle, sledge, dictionary, microphone, hand saw,
        picnic blanket, cool box, skateboard, violin, tennis racket, drum kit, label printer
    """),
    "small": _parse("""
        wallet, phone, scarf, watch, notebook, keyring, passport, bus card, water bottle,
        lunch box, ring, hat, jacket, charger, diary, tablet, purse, swimsuit, calculator
    """),
    "place": _parse("""
        the library, the station, the bakery, the old bridge, the town hall, the harbour,
        the museum, the bus stop, the corner shop, the park gate, the gym, the cinema, the post
        office, the school yard, the market, the pharmacy, the theatre, the book shop, the lake,
        the car park, the church, the fountain, the pizza place, the tea house, the stadium,
        the hospital, the castle, the ice rink, the garden centre, the ferry pier
    """),
    "day": _parse("""
        on Monday, on Tuesday, on Wednesday, on Thursday, on Friday, on Saturday, on Sunday,
        tomorrow, next week, this weekend
    """),
    "time": _parse("""
        at noon, at one, at two, at half past two, at three, at four, at half past four, at five,
        at six, at half past six, at seven, at eight, at half past eight, at nine, at ten
    """),
    "minutes": _parse("""
        five minutes, ten minutes, fifteen minutes, twenty minutes, half an hour, forty minutes,
        an hour, two hours
    """),
    "reason": _parse("""
        a flat tyre, the snow, a late train, a bad cold, a dentist visit, a power cut, a sore
        throat, a family dinner, a long meeting, the storm, a broken lift, a school trip,
        a night shift, a missed bus, heavy traffic, a lost key, a sick child, a maths test,
        the road works, a piano lesson
    """),
    "food": _parse("""
        lasagne, mushroom soup, fish curry, pancakes, bean stew, dumplings, roast chicken,
        vegetable pie, noodles, rice salad, tacos, potato gratin, lentil soup, meatballs,
        stuffed peppers, risotto
    """),
    "extra": _parse("""
        orange juice, lemonade, a cake, fresh bread, ice cream, a fruit salad, cheese, grapes,
        apple pie, a green salad, mint tea, olives, biscuits, a melon, cherries, ginger beer
    """),
    "activity": _parse("""
        play chess, go swimming, see the new film, go for a run, ride bikes, visit the zoo,
        play tennis, practise dancing, go climbing, paint the fence, bake bread, watch the match,
        go fishing, look at the stars, play cards, pick berries, go skating, study together
    """),
    "gift": _parse("""
        a teapot, a plant, a puzzle, a vase, a cook book, a wool hat, a board game, a photo album,
        a candle, a necklace, a kite, a pair of gloves, a desk lamp, a mug, a bird house, a ukulele
    """),
    "event": _parse("""
        birthday, wedding, graduation, farewell party, anniversary, new flat, name day, new job
    """),
    "subject": _parse("""
        maths, history, biology, physics, French, geography, chemistry, music, Latin, economics
    """),
    "city": _parse("""
        Lisbon, Oslo, Vienna, Izmir, Porto, Krakow, Dublin, Ghent, Naples, Riga, Bergen, Seville,
        Prague, Turin, Zurich, Malmo
    """),
    "transport": _parse("by train, by bus, by plane, by car, by ferry, on the night train"),
    "pet": _parse("cat, dog, parrot, rabbit, hamster, turtle, goldfish, canary, ferret, pony"),
    "machine": _parse("""
        washing machine, boiler, fridge, dishwasher, oven, heater, laptop, printer, vacuum cleaner,
        coffee machine, doorbell, radio
    """),
    "job": _parse("""
        nurse, baker, teacher, pilot, plumber, gardener, librarian, cook, tailor, tram driver,
        reporter, painter, vet, postman
    """),
    "price": _parse("10 euros, 15 euros, 20 euros, 30 euros, 40 euros, 60 euros, 80 euros"),
    "course": _parse("""
        pottery, yoga, chess, swimming, cooking, judo, drawing, salsa, sailing, photo, choir,
        first aid
    """),
}

# A summary must leave the small talk out.
GREETINGS: tuple[tuple[str, ...], ...] = (
    ("a: Hi {b}! | Hey {b}! | Hello {b}.", "b: Hi {a}! | Hey, how are you?"),
    ("b: Good morning! | Morning {a}.", "a: Morning! | Hi {b}, nice to hear from you."),
    ("a: Are you there? | Got a minute?", "b: Yes. | Sure, what's up?"),
    ("a: Hi! | Hey!",),
    (),
)

ASIDES: tuple[tuple[str, ...], ...] = (
    ("a: How was {place8}? | Did you like {place8}?", "b: Full of people. | Boring."),
    ("b: I met {d} at {place8}. | {d} says hello.", "a: Oh nice. | How is {d}?"),
    ("a: It rained all day. | What weather!", "b: I stayed in. | I know, terrible."),
    ("b: I had {food8} for lunch. | I ate too much {food8}.", "a: Lucky you. | Yummy!"),
    ("a: My {pet8} woke me up. | My {pet8} is so funny.", "b: Haha. | Send a photo!"),
    ("b: I still have {subject8} homework. | I hate {subject8}.", "a: Me too. | Poor you."),
    ("a: Did you see the match? | What a match!", "b: I fell asleep. | Yes, amazing."),
    ("b: Can you summarize the news for me? | Any news?", "a: Later. | No time, sorry."),
    ("a: {d} got a {item8}. | {d} bought a {item8}.", "b: Why? | Typical {d}."),
    ("b: My {machine8} is so loud. | I cleaned my {machine8}.", "a: Haha. | Well done."),
    ("a: Was it you at {place8} {day8}? | I saw you at {place8} {day8}.", "b: No! | Maybe."),
    ("b: {d} lives in {city8} now. | {d} moved to {city8}.", "a: I know. | So far away!"),
)

FAREWELLS: tuple[tuple[str, ...], ...] = (
    ("a: Bye! | See you! | Talk soon!",),
    ("b: Bye {a}! | Take care!", "a: You too! | Bye {b}!"),
    ("a: Have a nice day! | I must go now.", "b: Bye! | Same to you."),
    ("b: Great. | Perfect. | OK!",),
    (),
)
