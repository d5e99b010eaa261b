"""Dialogues of the tiny data in which somebody has news, needs help or does business."""

from tests.benchmarks.tiny_makers.grammar import Scenario, part, scenario

FAVOURS: tuple[Scenario, ...] = (
    scenario(
        part(
            "a: I'm away {day}. Who can feed my {pet}? | Could you look after my {pet} {day}?",
            gist="{a} needs someone to look after the {pet} {day}.",
            told="{a} went away and left a {pet} behind | the {pet} was alone {day}",
        ),
        part(
            "b: I can. Where is the key? | Happy to. How do I get in?",
            "a: The key is at {place}. | I'll leave the key at {place}.",
            gist="{b} will do it and get the key at {place}.",
            told="{b} fetched the key from {place} | thanks to a key at {place}, {b} got in",
        ),
        part(
            "b: I'm allergic, sorry. Ask {c}. | Not me, but {c} loves animals.",
            "a: Good idea, I'll ask {c}. | Right, {c} is perfect.",
            gist="{b} can't, so {a} will ask {c}.",
            told="{c} came and fed it | {b} was no help but {c} was",
        ),
        part(
            "b: Bring it to my flat {time}. | It can live with me. Come {time}.",
            "a: Wonderful, thank you! | You save my holiday!",
            gist="{a} will bring it to {b}'s flat {time}.",
            told="it moved in with {b} {time} | {a} carried it to {b} {time}",
        ),
    ),
    scenario(
        part(
            "a: My {machine} stopped working. | Help, my {machine} is making strange noises!",
            gist="{a}'s {machine} is broken.",
            told="{a} had trouble with the {machine} | the {machine} gave up",
        ),
        part(
            "b: I can look at it {day} {time}. | Let me come over {day} {time}.",
            "a: That would be great. | Thanks, I'll make coffee.",
            gist="{b} will come and look at it {day} {time}.",
            told="{b} came with tools {day} | {day} {time} {b} worked on it",
        ),
        part(
            "b: Call {c}, a good {job}. | {c} the {job} knows about that.",
            "a: What does it cost? | Is {c} expensive?",
            "b: About {price}. | I paid {price}.",
            gist="{b} recommends {c}, who takes about {price}.",
            told="{c} came and got {price} | for {price}, {c} did the work",
        ),
        part(
            "b: Buy a new one. They sell them for {price}. | New ones are just {price}.",
            "a: Where? | Which shop?",
            "b: Near {place}. | Right next to {place}.",
            gist="{b} tells {a} to buy a new one for {price} near {place}.",
            told="a new one was bought for {price} | {a} paid {price} in a shop by {place}",
        ),
    ),
    scenario(
        part(
            "a: I'm coming to {city} {day}! | Guess who is visiting {city} {day}? Me!",
            "b: How do you get here? | Really? How are you travelling?",
            "a: I'm coming {transport}. | {transport}.",
            gist="{a} is travelling to {city} {transport} {day}.",
            told="{a} went to {city} {transport} | {city} saw {a} arrive {day}",
        ),
        part(
            "b: I'll pick you up {time}. | I'll be there to meet you {time}.",
            gist="{b} will pick {a} up {time}.",
            told="{b} stood there waiting {time} | {time} {b} and {a} hugged",
        ),
        part(
            "b: I'm not here then. Stay with {c}. | I'll be gone, but {c} has a sofa.",
            "a: Could you ask {c} for me? | Will you tell {c}?",
            gist="{b} will be away and will ask {c} to host {a}.",
            told="{a} slept on {c}'s sofa | {c} opened the door since {b} was gone",
        ),
        part(
            "b: Shall we {activity}? | Then we must {activity}!",
            "a: Yes, and I want to eat {food}. | Sure, and have {food} after that.",
            gist="They want to {activity} and eat {food} there.",
            told="the two had {food} in town | they went to {activity} and had {food}",
        ),
    ),
    scenario(
        part(
            "a: I'm selling my {item} for {price}. | Does anyone want my {item}? Only {price}.",
            gist="{a} is selling a {item} for {price}.",
            told="{a} did not need the {item} any more | {a} wanted {price} for the {item}",
        ),
        part(
            "b: I'll take it. Can I get it {day}? | Deal! I'll come {day}.",
            "a: Yes, meet me at {place}. | I'll be at {place} then.",
            gist="{b} will buy it and collect it at {place} {day}.",
            told="{b} got it at {place} {day} | {day}, {b} walked away with it",
        ),
        part(
            "b: Too much. I'd give you {price2}. | How about {price2}?",
            "a: Fine, {price2} it is. | All right, since it's you.",
            gist="They agree on {price2} instead.",
            told="{b} paid {price2} for it | it went to {b}, and the cost was {price2}",
        ),
        part(
            "b: I have one. But {c} needs it. | Not for me, {c} is looking for one.",
            "a: Can I have {c}'s number? | I'll write to {c}.",
            gist="{b} doesn't need it but {c} might.",
            told="{c} heard of it from {b} | {b} thought of {c} at once",
        ),
    ),
    scenario(
        part(
            "a: I signed up for a {course} course. | I'm starting a {course} course!",
            "b: When is it? | Nice, when does it start?",
            "a: {day} {time}. | It starts {day} {time}.",
            gist="{a} is starting a {course} course {day} {time}.",
            told="{a} learned {course} {day} | the {course} teacher met {a} {day}",
        ),
        part(
            "b: Can I join? | I want to come too!",
            "a: Yes, it costs {price}. | Sure, just pay {price}.",
            gist="{b} will join for {price}.",
            told="{b} went as well and paid {price} | for {price}, {b} came too",
        ),
        part(
            "b: That's the day of my {course2} class. | I have {course2} then, sadly.",
            gist="{b} has a {course2} class at that time.",
            told="{b} was busy with {course2} | {b} liked {course2} more",
        ),
        part(
            "b: {c} did that and hated it. | {c} quit it after a month.",
            "a: I'll try anyway. | Well, I'm not {c}.",
            gist="{c} didn't like it but {a} will try anyway.",
            told="{a} did not listen to what {c} said | {c} had been bored there",
        ),
    ),
    scenario(
        part(
            "a: The {subject} results are here. | I got my {subject} mark today.",
            "b: And? | Tell me!",
            gist="{a} got the {subject} results.",
            told="{a} had written a {subject} paper | there was news about {subject} for {a}",
        ),
        part(
            "a: I passed! | Best mark in class!",
            "b: We must celebrate {day} at {place}! | Cake at {place} {day}!",
            gist="{a} did well and {b} wants to celebrate at {place} {day}.",
            told="they had a party at {place} | there was cake at {place} {day}",
        ),
        part(
            "a: I failed. | It went badly.",
            "b: I can study with you {day} {time}. | Come over {day} {time}, I'll help.",
            gist="{a} failed and {b} will help {day} {time}.",
            told="{b} taught {a} {day} | they sat over books {day} {time}",
        ),
        part(
            "a: I failed. | It went badly.",
            "b: {c} gives lessons for {price}. | Take lessons from {c}, they cost {price}.",
            gist="{a} failed and {b} suggests lessons from {c} for {price}.",
            told="{c} gave lessons for {price} | {a} went to {c} to learn",
        ),
    ),
    scenario(
        part(
            "a: I got the job! I'll be a {job}! | They took me as a {job}!",
            gist="{a} got a job as a {job}.",
            told="{a} was a {job} from then on | somebody needed a {job} and took {a}",
        ),
        part(
            "b: Bravo! When do you start? | That's great! From when?",
            "a: {day}, in {city}. | I start {day} in {city}.",
            gist="{a} will start {day} in {city}.",
            told="it began {day} in {city} | {a} moved to {city} for it",
        ),
        part(
            "b: Let me invite you to {food}. | I'll buy you {food} to celebrate!",
            "a: Yes please, {day}. | I'm free {day}.",
            gist="{b} will treat {a} to {food} {day}.",
            told="{b} paid for {food} {day} | there was {food} for the two {day}",
        ),
        part(
            "b: Weren't you a {job2}? | I thought you liked being a {job2}.",
            "a: It paid too little. | I was tired of it.",
            gist="{a} no longer wants to be a {job2}.",
            told="the time as a {job2} was over | {a} had had enough of being a {job2}",
        ),
    ),
    scenario(
        part(
            "a: I can't work {day} because of {reason}. | I need {day} off, there is {reason}.",
            "b: Did you ask {c}? | What does {c} say?",
            gist="{a} can't work {day} because of {reason}.",
            told="{a} was missing at work {day} | {reason} kept {a} from work",
        ),
        part(
            "a: {c} is away. Could you do it? | {c} said no. Can you?",
            "b: If you take my shift {day2}. | Yes, and you do mine {day2}.",
            gist="{b} will step in and {a} will work {day2}.",
            told="{b} did the work and had {day2} free | they swapped, and {a} worked {day2}",
        ),
        part(
            "a: {c} will do it. | {c} said yes.",
            "b: Then all is fine. | Good to hear.",
            gist="{c} will step in.",
            told="{c} did all the work | it was {c} who worked",
        ),
        part(
            "a: {c} is angry with me. | {c} doesn't answer.",
            "b: I'll talk to {c} {time}. | Let me call {c} {time}.",
            gist="{b} will talk to {c} about it {time}.",
            told="{b} and {c} had a talk {time} | {c} listened to {b}",
        ),
    ),
)
