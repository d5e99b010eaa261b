"""Dialogues of the tiny data in which two friends plan something together."""

from tests.benchmarks.tiny_makers.grammar import Scenario, part, scenario

PLANS: tuple[Scenario, ...] = (
    scenario(
        part(
            "a: Could you lend me your {item} {day}? | Can I borrow your {item} {day}?",
            gist="{a} wants to borrow {b}'s {item} {day}.",
            told="{a} asked {b} for the {item} | {a} was looking for a {item}",
        ),
        part(
            "b: Sure, I'll bring it to {place} {time}. | Of course. Come to {place} {time}.",
            "a: You are the best! | Thanks a lot!",
            gist="{b} will hand it over at {place} {time}.",
            told="{b} went to {place} with it {time} | {b} took the {item} to {place}",
        ),
        part(
            "b: Sorry, mine is broken. | It fell down the stairs, it doesn't work any more.",
            "a: Oh no. I'll ask {c} then. | Never mind, {c} may have one.",
            gist="It is broken, so {a} will ask {c}.",
            told="the thing did not work, and {c} was asked | {c} had to help because it broke",
        ),
        part(
            "b: Only if I get it back {day2}. | Yes, but I need it again {day2}.",
            "a: Promised. | No problem at all.",
            gist="{b} agrees but needs it back {day2}.",
            told="{b} got it back {day2} | {b} said yes and had it again {day2}",
        ),
    ),
    scenario(
        part(
            "a: Do you want to {activity} {day}? | How about we {activity} {day}?",
            gist="{a} invites {b} to {activity} {day}.",
            told="{a} had the idea to {activity} | {a} asked if {b} wanted to {activity} {day}",
        ),
        part(
            "b: I'd love to. Where do we meet? | Great idea! Where and when?",
            "a: At {place}, {time}. | Let's say {place} {time}.",
            "b: See you there. | Perfect.",
            gist="They will meet at {place} {time}.",
            told="both of them were at {place} {time} | they found each other at {place} {time}",
        ),
        part(
            "b: I can't because of {reason}. | No chance, I have to stay home because of {reason}.",
            "a: What a pity. | Too bad, another time.",
            gist="{b} can't come because of {reason}.",
            told="{b} stayed home because of {reason} | with {reason}, {b} had to say no",
        ),
        part(
            "b: I'd rather {activity2}. | Hm, could we {activity2} instead?",
            "a: Fine, let's do that {time}. | All right, {time} then.",
            gist="{b} prefers to {activity2}, so they will do that {time}.",
            told="{b} had another wish, and they went to {activity2} | they chose to {activity2}",
        ),
    ),
    scenario(
        part(
            "a: I'm going to be {minutes} late. | Don't wait outside, I need {minutes} more.",
            "b: What happened? | Why is that?",
            "a: It's {reason}. | There is {reason}, sorry.",
            gist="{a} will be {minutes} late because of {reason}.",
            told="{a} came {minutes} after the rest | {a} lost {minutes} because of {reason}",
        ),
        part(
            "b: I'll wait for you at {place}. | Fine, I'm sitting at {place}.",
            gist="{b} will wait at {place}.",
            told="{b} sat at {place} all that while | {b} did not leave {place}",
        ),
        part(
            "b: Then I'll start without you. | I'm hungry, I'll begin on my own.",
            "a: That's fair. | Yes, go ahead.",
            gist="{b} will start without {a}.",
            told="{b} did not wait and began alone | {a} missed the beginning",
        ),
        part(
            "b: Let's move it to {day} {time}. | Shall we meet {day} {time} instead?",
            "a: Yes, that's better. | Good, see you then.",
            gist="They will meet {day} {time} instead.",
            told="it all happened {day} {time} | they put it off, and it took place {day}",
        ),
    ),
    scenario(
        part(
            "a: I can't find my {small}! | Have you seen my {small}? It's gone.",
            gist="{a} lost a {small}.",
            told="{a} had no {small} any more | the {small} of {a} was gone",
        ),
        part(
            "b: I saw it at {place}. | You left it at {place}, I think.",
            "a: I'll go there {time}. | I'll pick it up {time}.",
            gist="{b} saw it at {place} and {a} will go there {time}.",
            told="it lay at {place}, and {a} went for it {time} | {b} knew it was at {place}",
        ),
        part(
            "b: {c} has it. | I gave it to {c} to keep.",
            "a: What luck! I'll call {c}. | I'll write to {c} now.",
            gist="{c} has it and {a} will get in touch.",
            told="{c} kept it safe | {c} was the one who had it",
        ),
        part(
            "b: No. Did you look at {place}? | No idea. Maybe at {place}?",
            "a: Twice. I'll buy a new one {day}. | Yes. I'll get a new one {day}.",
            gist="It is not at {place}, so {a} will buy a new one {day}.",
            told="nobody found it and {a} bought another {day} | {place} was searched for nothing",
        ),
    ),
    scenario(
        part(
            "a: What do we get {c} for the {event}? | We need something for {c}'s {event}.",
            gist="{a} and {b} need a present for {c}'s {event}.",
            told="{a} thought of {c}'s {event} | {a} and {b} talked about {c}'s {event}",
        ),
        part(
            "b: What about {gift}? | I saw {gift} that {c} would like.",
            "a: Lovely. I'll order it. | Yes! I'll pay and you wrap it.",
            gist="They choose {gift} and {a} will buy it.",
            told="{a} went and bought {gift} | {c} was given {gift}, which {a} paid",
        ),
        part(
            "b: Maybe {gift}? | {gift} would be nice.",
            "a: {c} has that already. Rather {gift2}. | I prefer {gift2}.",
            "b: Good. I'll get it {day}. | Agreed, I'll go to the shop {day}.",
            gist="They choose {gift2} and {b} will buy it {day}.",
            told="{b} went shopping {day} for {gift2} | {c} was given {gift2} by the two",
        ),
        part(
            "b: I already bought {gift}. | {gift} is here on my table, from both of us.",
            "a: I owe you {price} then. | Let me give you {price} for it.",
            gist="{b} has bought {gift} and {a} will pay {price}.",
            told="{b} had been quick and had {gift} | {a} gave {b} {price} for {gift}",
        ),
    ),
    scenario(
        part(
            "a: I'm making {food} tonight. Are you in? | Come over, I'm cooking {food} tonight!",
            gist="{a} is cooking {food} tonight and invites {b}.",
            told="{a} stood in the kitchen and made {food} | there was {food} at {a}'s table",
        ),
        part(
            "b: Yes! I'll bring {extra}. | Gladly. Shall I bring {extra}?",
            "a: Come {time}. | Good, dinner is {time}.",
            gist="{b} will come {time} and bring {extra}.",
            told="{b} came {time} with {extra} | {extra} came from {b}",
        ),
        part(
            "b: I can't eat that. | Sorry, {food} makes me ill.",
            "a: Then I'll make {food2}. | Would {food2} be better?",
            "b: Much better! | That's kind of you.",
            gist="{b} can't eat that, so {a} will make {food2}.",
            told="{b} was served {food2} | {a} changed the plan and made {food2}",
        ),
        part(
            "b: I'm with {c} tonight. | {c} is visiting me today.",
            "a: Bring {c} along, {time}. | Come together {time}!",
            gist="{b} will come {time} together with {c}.",
            told="{b} and {c} both sat down to eat {time} | {c} came too",
        ),
    ),
)
