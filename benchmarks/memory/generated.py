"""Seeded dialogues of two people, hundreds of turns long, with questions whose turns are known.

Half of the facts are told outright; the other half come as the short answer to what the other one asked, so that the
turn that holds the fact does not hold the words of the question. Used by memory_recall.py.
"""

import random
from dataclasses import dataclass

PAIRS = (("Elif", "Jonas"), ("Maria", "Dev"), ("Aiko", "Samuel"), ("Ruth", "Pavel"), ("Zoe", "Malik"), ("Ines", "Karl"))

# (kind) → how it is told, how it is asked about and answered in the dialogue, how it is asked about later, values
FACTS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[str, ...], tuple[str, ...]]] = {
    "pet": (
        ("We adopted {v} from the shelter last weekend.", "Did I tell you? There's {v} living with us now."),
        (("Any animals at your place these days?", "Yes, {v}, and my sofa shows it."),),
        ("What pet does {who} have?", "Which animal lives with {who}?"),
        ("a three-legged cat", "two guinea pigs", "an old greyhound", "a talkative parrot", "a tortoise"),
    ),
    "food": (
        ("I can't eat {v}, my throat swells up.", "The doctor says it's {v} that makes me ill."),
        (("Is there anything I should leave out when I cook for you?", "Only {v}, otherwise I end up in hospital."),),
        ("What is {who} allergic to?", "Which food must {who} avoid?"),
        ("peanuts", "prawns", "kiwi", "sesame", "celery"),
    ),
    "city": (
        ("We're moving to {v} in the spring.", "I signed the lease for a place in {v}."),
        (("So where will you two live after the wedding?", "Most likely {v}, the rents are bearable there."),),
        ("To which city is {who} relocating?", "Where is {who} going to live?"),
        ("Porto", "Leipzig", "Osaka", "Winnipeg", "Trieste"),
    ),
    "job": (
        ("I start as {v} next month!", "They hired me, I'm going to be {v}."),
        (("What came of all those applications?", "Ha, they took me: {v}, full time."),),
        ("What is {who}'s new occupation?", "As what will {who} work?"),
        ("a tram driver", "a zookeeper", "a court interpreter", "a sound engineer", "a beekeeper"),
    ),
    "instrument": (
        ("I finally began lessons, I'm learning the {v}.", "My fingers hurt from practising the {v}."),
        (("What's that noise your neighbours complain about?", "Me and my {v}, two hours an evening."),),
        ("Which musical instrument does {who} play?", "What instrument is {who} learning?"),
        ("oboe", "banjo", "harp", "trombone", "sitar"),
    ),
    "injury": (
        ("I broke my {v} on the ice yesterday.", "The X-ray shows that the {v} is fractured."),
        (("Why are you limping around like a pirate?", "Slipped in the shower. The {v} is in plaster."),),
        ("Which part of the body did {who} injure?", "What did {who} break?"),
        ("ankle", "left wrist", "collarbone", "big toe", "elbow"),
    ),
    "book": (
        ("I couldn't put down {v}, read it in one night.", "You have to read {v}, it's wonderful."),
        (("Got anything good on the bedside table?", "{v}, for the second time even."),),
        ("Which novel did {who} enjoy?", "What has {who} been reading?"),
        ("The Left Hand of Darkness", "Middlemarch", "Beloved", "The Summer Book", "Kafka on the Shore"),
    ),
    "trip": (
        ("We spent our holidays in {v}, it rained every day.", "Just got back from two weeks in {v}."),
        (("You look so tanned, where have you been?", "In {v}, with my cousins and far too many mosquitoes."),),
        ("Where did {who} go on vacation?", "What destination did {who} travel to?"),
        ("Corsica", "the Azores", "Georgia", "Lapland", "Oaxaca"),
    ),
    "sport": (
        ("I joined a {v} club, training is on Wednesdays.", "Since September I do {v} with people from work."),
        (("How do you stay so fit with that desk of yours?", "Twice a week, {v}. You should come along."),),
        ("What sport does {who} do?", "Which kind of exercise has {who} taken up?"),
        ("fencing", "water polo", "curling", "bouldering", "table tennis"),
    ),
    "gift": (
        ("For my mother's birthday I ordered {v}.", "I'm giving my mum {v}, she'll be thrilled."),
        (("Have you got something for your mum's sixtieth yet?", "Yes, {v}. It was not cheap."),),
        ("What present did {who} get for the mother?", "What will {who}'s mother receive?"),
        ("a hot-air balloon ride", "a fountain pen", "a rose bush", "an opera ticket", "a hammock"),
    ),
    "vehicle": (
        ("I sold the old thing and got {v}.", "Guess what stands in front of my door: {v}!"),
        (("How do you get to the lake without a bus?", "With {v}, since last week. Second-hand, of course."),),
        ("What means of transport did {who} buy?", "Which vehicle does {who} own?"),
        ("a cargo bike", "a red Vespa", "an electric van", "a camper", "a unicycle"),
    ),
    "fear": (
        ("I still can't stand {v}, I start to shake.", "Since I was small I've been terrified of {v}."),
        (("Why did you run out of the room like that?", "{v}! I can't help it, I panic."),),
        ("What is {who} afraid of?", "Which phobia does {who} have?"),
        ("moths", "lifts", "thunder", "clowns", "deep water"),
    ),
    "course": (
        ("I enrolled in an evening course on {v}.", "On Tuesdays I study {v} at the community college."),
        (("You're never home on Tuesdays any more.", "I sit in a classroom and learn {v}, at my age!"),),
        ("What subject is {who} studying?", "Which class does {who} attend?"),
        ("pottery", "Portuguese", "bookbinding", "astronomy", "welding"),
    ),
    "money": (
        ("The repair of the roof will cost us {v}.", "The roofer wants {v}, I nearly fainted."),
        (("And what does the man say about your roof?", "{v}, and he can only come in autumn."),),
        ("How much must {who} pay for the roof?", "What is the price of {who}'s roof repair?"),
        ("nine thousand euros", "four thousand two hundred", "twelve thousand", "seven and a half thousand"),
    ),
    "relative": (
        ("My {v} is staying with us until the end of the month.", "We have a guest: my {v} came to visit."),
        (("Who was that singing in your kitchen?", "My {v}! Three weeks already, and no return ticket."),),
        ("Who is visiting {who}?", "Which relative is {who} hosting?"),
        ("uncle from Chile", "grandmother", "half-brother", "godfather", "niece"),
    ),
}
FILLER = (
    "Haha, that's so true.", "I know what you mean.", "Really? I had no idea!", "How was your weekend?",
    "Not bad, a bit tired, you know how it is.", "The weather has been awful, hasn't it?", "Tell me about it.",
    "I'm so happy for you!", "We should meet for coffee again soon.", "Let me check my calendar and get back to you.",
    "Work has been crazy lately.", "Same here, one meeting after the other.", "Oh, that sounds exciting.",
    "Thanks, that means a lot to me.", "Good night, talk to you tomorrow!", "Morning! Did you sleep well?",
    "I saw your photos, they're beautiful.", "What are you up to tonight?", "Nothing special, laundry and a film.",
    "You always know how to cheer me up.", "Can you believe it's already that time of the year?", "Fingers crossed!",
    "I forgot my umbrella again.",
    "That reminds me of school.", "Don't worry, it will be fine.", "Sorry, I was driving.",
    "Did you watch the match?", "My phone died in the middle of it.", "Sounds like a plan.", "Take care of yourself!",
)  # fmt: skip


@dataclass(frozen=True)
class Dialogue:
    """Lines, and questions with the numbers (from 1) of the lines that hold the answer."""

    name: str
    lines: list[str]
    questions: list[tuple[str, list[int]]]


def generate(seed: int, turns: int = 400) -> Dialogue:
    """A dialogue of about so many turns."""
    chance = random.Random(seed)
    pair = PAIRS[seed % len(PAIRS)]
    facts = [(kind, who) for kind in FACTS for who in pair]
    chance.shuffle(facts)
    lines: list[str] = []
    questions: list[tuple[str, list[int]]] = []
    speaker = 0
    pause = max(2, turns // len(facts) - 2)
    for kind, who in facts:
        for _ in range(chance.randrange(1, 2 * pause)):
            lines.append(f"{pair[speaker]}: {chance.choice(FILLER)}")
            speaker = 1 - speaker
        told, asked, later, values = FACTS[kind]
        value = chance.choice(values)
        other = pair[1] if who == pair[0] else pair[0]
        if chance.random() < 0.5:
            lines.append(f"{who}: {chance.choice(told).format(v=value)}")
        else:
            question, answer = chance.choice(asked)
            lines.append(f"{other}: {question}")
            text = answer.format(v=value)
            lines.append(f"{who}: {text[0].upper()}{text[1:]}")
        questions.append((chance.choice(later).format(who=who), [len(lines)]))
        lines.append(f"{other}: {chance.choice(FILLER)}")
        speaker = pair.index(who)
    return Dialogue(f"generated {seed}", lines, questions)
