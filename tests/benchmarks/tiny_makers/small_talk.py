"""Chatter that surrounds a tiny dialogue's matter, so that a summary must leave something out."""

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
