"""The words and patterns of the synthetic corpus: mild insults, and what a polite person would write instead.

Each pattern is a toxic sentence and its neutral rewrites; slots in braces are filled alike on both sides. Three kinds
are mixed, so that neither copying nor deleting words is the best answer: an insult is dropped, replaced, or the phrase
around it is said another way. Words are chosen so that a profanity classifier tells the two sides apart.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """One way to be rude, and one or two ways to say the same without it."""

    name: str
    toxic: str
    neutral: tuple[str, ...]


PATTERNS = (
    # Dropped: the insult carries nothing.
    Pattern("adjective", "the {adjective} {thing} {state}", ("the {thing} {state}",)),
    Pattern("vocative", "you {noun}, the {thing} {state}", ("the {thing} {state}",)),
    Pattern("what_the", "what the hell is wrong with this {adjective} {thing}?", ("what is wrong with this {thing}?",)),
    Pattern("asked", "nobody asked your {adjective} ass about the {thing}", ("nobody asked you about the {thing}",)),
    Pattern(
        "damn", "{person} forgot the damn {thing} again like an {vowel_noun}", ("{person} forgot the {thing} again",)
    ),
    # Replaced: the sentence needs another word in its place.
    Pattern("plural", "these {nouns} {failing}", ("these people {failing}",)),
    Pattern("this_noun", "this {noun} never wanted to {act}", ("this person never wanted to {act}",)),
    Pattern(
        "sucks",
        "the {adjective} {thing} sucks, {person} should {act}",
        ("the {thing} is not good, {person} should {act}",),
    ),
    Pattern(
        "crap",
        "this {adjective} {thing} is a piece of crap and it {flaw}",
        ("this {thing} is of poor quality and it {flaw}",),
    ),
    Pattern(
        "bullshit",
        "that is {amount} bullshit, the {thing} {state}",
        ("that is not true, the {thing} {state}", "this is wrong, the {thing} {state}"),
    ),
    Pattern("who", "{person} is a pathetic {noun} who {habit}", ("{person} is someone who {habit}",)),
    Pattern("no_damn", "i don't give a damn about your {adjective} {thing}", ("i don't care about your {thing}",)),
    Pattern(
        "talks", "{person} talks {adjective} crap about the {thing}", ("{person} says bad things about the {thing}",)
    ),
    # Said another way.
    Pattern("such_a", "{person} is such a {noun}, trying to {act}", ("{person} made a mistake by trying to {act}",)),
    Pattern("only", "only a {adjective} {noun} would {act}", ("it is not a good idea to {act}", "nobody should {act}")),
    Pattern("shut_up", "shut up about the {thing}, you {noun}", ("please stop talking about the {thing}",)),
    Pattern("how", "how {adjective} do you have to be to {act}?", ("why would you {act}?",)),
    Pattern("stop_being", "stop being an {vowel_noun} and {act}", ("please be reasonable and {act}",)),
    Pattern("go_to_hell", "go to hell with your {adjective} {thing}", ("i don't want to see your {thing}",)),
    Pattern("so_are_you", "your {thing} is {adjective} and so are you", ("i do not like your {thing}",)),
    Pattern("must_be", "you must be {adjective} if you {act}", ("you should think again before you {act}",)),
    Pattern("get_out", "get your {adjective} ass out of the {place}", ("please leave the {place}",)),
)

NOUNS = ("moron", "stupid jerk", "damn loser", "jackass", "dumbass", "stupid moron", "shitty jerk")
VOWEL_NOUNS = ("idiot", "imbecile", "ass", "idiotic jerk", "idiotic loser")
NOUN_PLURALS = ("idiots", "morons", "stupid jerks", "damn losers", "dumb morons", "stupid clowns")
ADJECTIVES = ("stupid", "idiotic", "moronic", "dumb ass", "pathetic damn", "crappy damn", "damn stupid", "shitty")
AMOUNTS = ("complete", "total", "pure", "just")

THINGS = (
    "game", "film", "car", "phone", "report", "bridge", "recipe", "update", "song", "coffee", "meeting", "printer",
    "team", "ticket", "garden", "kitchen", "website", "laptop", "homework", "lecture", "train", "camera", "keyboard",
    "article", "contract", "weather app", "new menu", "old bike", "second season", "last episode", "training plan",
    "parking lot", "bus line", "front door", "exam", "password", "budget", "schedule", "salad", "playlist",
)  # fmt: skip
PLACES = (
    "kitchen",
    "office",
    "garden",
    "car",
    "library",
    "meeting room",
    "stadium",
    "train",
    "classroom",
    "parking lot",
)
PERSONS = (
    "anna", "the coach", "my neighbour", "the driver", "mark", "your brother", "the manager", "our teacher", "lena",
    "the new guy", "this player", "the editor", "sam", "the reporter", "my boss", "the waiter", "tom", "the captain",
)  # fmt: skip
STATES = (
    "was late again", "is already sold", "cost 40 dollars", "starts at 9", "broke twice last week",
    "is still too slow", "looks better in blue", "was fine in 2019", "needs 3 more days", "never worked on monday",
    "is on the second floor", "was moved to friday", "has a new owner", "went up by 15 percent",
    "is longer than before", "was cancelled today",
)  # fmt: skip
FLAWS = (
    "breaks every week", "takes 2 hours to start", "smells of old coffee", "stops after 10 minutes", "has no manual",
    "fails when it rains", "costs more than it should", "makes too much noise",
)  # fmt: skip
FAILINGS = (
    "can't drive on snow", "never read the manual", "forgot to lock the door", "left the lights on all night",
    "always park in my spot", "don't know the rules", "can't count to 20", "never pay for lunch",
    "missed the last bus", "want to close the library", "wrote 12 pages about nothing", "can't park a car",
)  # fmt: skip
HABITS = (
    "never answers the phone", "eats lunch at 3", "talks during every film", "forgets the tickets", "leaves at noon",
    "blames the weather", "arrives late on monday", "reads my messages", "sleeps in every meeting",
    "parks on the grass",
)  # fmt: skip
ACTS = (
    "drive home in the rain", "pay 50 dollars for lunch", "sell the house now", "wait 4 hours for a table",
    "write the report at night", "move to another city", "buy the first model", "call the office on sunday",
    "skip the training", "paint the kitchen green", "leave before the end", "park on the bridge",
    "read the whole article", "change the rules again", "close the window in july", "walk to the station",
    "cancel the contract", "ask for more money", "cook rice without water", "trust that website",
)  # fmt: skip
OPENERS = (
    "", "", "", "", "honestly, ", "look, ", "i think ", "come on, ", "as always, ", "well, ", "sorry but ",
    "listen, ",
)  # fmt: skip
TAILS = (
    "", "", "", "", "", " and that is all i have to say", ", ask {other}", ", as {other} said",
    " and everybody knows it", ", see page {number}", ", that was {number} days ago", " since last summer",
    ", and {other} agrees with me",
)  # fmt: skip
CLEAN = (
    "the {thing} {state}", "i think the {thing} {state}", "{person} should {act}",
    "thanks, {person} told me about the {thing}", "does anybody know if the {thing} {state}?",
    "i would not {act}, ask {person}", "{person} is right, the {thing} {state}", "where can i find the {thing}?",
    "we want to {act} next week", "{person} and {other} {failing}", "is it a good idea to {act}?",
    "the people in the {place} {failing}", "i like the {thing}", "please tell {person} that the {thing} {state}",
)  # fmt: skip
"""What most of a real dump is: comments that need no rewriting."""

SLOTS = {
    "noun": NOUNS,
    "vowel_noun": VOWEL_NOUNS,
    "nouns": NOUN_PLURALS,
    "adjective": ADJECTIVES,
    "amount": AMOUNTS,
    "thing": THINGS,
    "place": PLACES,
    "person": PERSONS,
    "state": STATES,
    "flaw": FLAWS,
    "failing": FAILINGS,
    "habit": HABITS,
    "act": ACTS,
    "other": PERSONS,
    "number": tuple(str(number) for number in range(2, 60)),
}
INSULT_SLOTS = ("noun", "vowel_noun", "nouns", "adjective", "amount")
"""Slots of the rude side; the first that a pattern has is its insult."""
TOPIC_SLOTS = ("thing", "act", "failing", "habit", "place")
"""Slots that both sides share; the first that a pattern has is its topic."""
