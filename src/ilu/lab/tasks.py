"""Six downstream tasks, modelled on six common benchmarks, and one for validation only.

sums    GSM8K        topics  AG News        mood  SST-2
owner   WinoGrande   entail  MNLI           same  QQP
next    (validation: settings may be chosen on it, results are never reported on it)
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from ilu.types import Question

Problem = tuple[str, str]
"""A prompt and its right label."""
Maker = Callable[[random.Random], Problem]

CHILDREN = ("Tom", "Ann", "Ben", "Eve")
THINGS = ("apples", "coins", "books", "shells", "buttons", "stamps", "pencils", "stones")
OBJECTS = ("lamp", "ring", "kite", "drum", "coat", "ball", "map", "bell")
TOPICS = {
    "sports": ("team", "goal", "match", "coach", "race", "medal", "league", "runner"),
    "business": ("bank", "market", "price", "profit", "trade", "shares", "firm", "sales"),
    "science": ("planet", "atom", "telescope", "fossil", "virus", "rocket", "laser", "gene"),
    "world": ("border", "treaty", "election", "minister", "embassy", "protest", "senate", "army"),
}
MOODS = {
    "good": ("lovely", "charming", "brilliant", "funny", "touching", "clever", "splendid", "warm"),
    "bad": ("boring", "clumsy", "awful", "shallow", "noisy", "dreary", "silly", "tiresome"),
}
OPPOSITES = (("long", "short"), ("wet", "dry"), ("open", "closed"), ("full", "empty"),
             ("hot", "cold"), ("clean", "dirty"), ("old", "new"), ("loud", "quiet"))  # fmt: skip
PLACES = ("road", "house", "box", "river", "garden", "shop", "tower", "boat")
SAME = (("begin", "start"), ("buy", "purchase"), ("repair", "fix"), ("choose", "pick"),
        ("find", "locate"), ("finish", "end"), ("hide", "conceal"), ("help", "assist"))  # fmt: skip
SERIES = (
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    ("January", "February", "March", "April", "May", "June", "July", "August"),
)


@dataclass(frozen=True)
class Task:
    """A downstream task: its name, its labels and its problems."""

    name: str
    labels: tuple[str, ...]
    make: Maker


def sums(rng: random.Random) -> Problem:
    """Addition or subtraction of small numbers in a word problem."""
    a, b, who, what = rng.randint(1, 6), rng.randint(1, 6), rng.choice(CHILDREN), rng.choice(THINGS)
    if a > b and rng.random() < 0.5:
        return f"{who} has {a} {what} and loses {b}. How many {what} remain? Answer:", str(a - b)
    return f"{who} has {a} {what} and gets {b} more. How many {what} now? Answer:", str(a + b)


def topics(rng: random.Random) -> Problem:
    """The newspaper section of a headline."""
    topic = rng.choice(list(TOPICS))
    one, two, three = rng.sample(TOPICS[topic], 3)
    return f"Headline: {one} and {two} before the {three}. Topic:", topic


def mood(rng: random.Random) -> Problem:
    """Whether a review is positive."""
    label = rng.choice(list(MOODS))
    one, two = rng.sample(MOODS[label], 2)
    what = rng.choice(("film", "play", "novel", "song", "show"))
    return f"Review: a {one} {what}, so {two}. Mood:", label


def owner(rng: random.Random) -> Problem:
    """The owner of an object after it changed hands."""
    (one, two), thing = rng.sample(CHILDREN, 2), rng.choice(OBJECTS)
    if rng.random() < 0.5:
        return f"{one} gave the {thing} to {two}. Who has the {thing}? Answer:", two
    return f"{one} took the {thing} from {two}. Who has the {thing}? Answer:", one


def entail(rng: random.Random) -> Problem:
    """Whether a second sentence follows from the first."""
    (pair, other), place = rng.sample(OPPOSITES, 2), rng.choice(PLACES)
    word = rng.choice(pair)
    label = rng.choice(("yes", "no", "maybe"))
    opposite = pair[1 - pair.index(word)]
    second = {"yes": f"not {opposite}", "no": opposite, "maybe": rng.choice(other)}[label]
    return f"The {place} is {word}. So the {place} is {second}? Answer:", label


def same(rng: random.Random) -> Problem:
    """Whether two questions have the same meaning."""
    (pair, other), what = rng.sample(SAME, 2), rng.choice(OBJECTS)
    label = rng.choice(("yes", "no"))
    second = pair[1] if label == "yes" else rng.choice(other)
    return f"How do I {pair[0]} a {what}? How do I {second} a {what}? Same:", label


def following(rng: random.Random) -> Problem:
    """The continuation of a well-known series."""
    series = rng.choice(SERIES)
    start = rng.randrange(len(series) - 3)
    who = rng.choice(CHILDREN)
    shown = ", ".join(series[start : start + 3])
    return f"{who} says {shown}. Then comes:", series[start + 3]


TASKS = (
    Task("sums", tuple(str(n) for n in range(1, 13)), sums),
    Task("topics", tuple(TOPICS), topics),
    Task("mood", tuple(MOODS), mood),
    Task("owner", CHILDREN, owner),
    Task("entail", ("yes", "no", "maybe"), entail),
    Task("same", ("yes", "no"), same),
)
VALIDATION = Task("next", tuple(w for s in SERIES for w in s[3:]), following)


def task(name: str) -> Task:
    """Return the task called ``name``."""
    every = {t.name: t for t in (*TASKS, VALIDATION)}
    if name not in every:
        raise ValueError(f"unknown lab task {name!r}; the lab has: {', '.join(every)}")
    return every[name]


def problems(task: Task, part: str, count: int) -> list[Problem]:
    """``count`` problems of the ``train`` or the ``test`` part; no prompt is in both.

    Training problems may repeat; test problems do not, so there may be fewer than ``count``.
    """
    rng = random.Random(f"{task.name} {part}")
    problems: list[Problem] = []
    for _ in range(100 * count):
        prompt, label = task.make(rng)
        known = part == "test" and (prompt, f" {label}") in problems
        if (sum(prompt.encode()) % 4 == 0) == (part == "test") and not known:
            problems.append((prompt, f" {label}"))
        if len(problems) == count:
            break
    return problems


def task_questions(task: Task, count: int) -> list[Question]:
    """Test problems as multiple choice over all labels of the task."""
    options = tuple(f" {label}" for label in task.labels)
    return [
        Question(prompt, options, options.index(label))
        for prompt, label in problems(task, "test", count)
    ]


def stories(count: int, seed: int = 0) -> list[str]:
    """General text: short stories without any fact of the world."""
    rng = random.Random(f"stories {seed}")
    animals = ("fox", "owl", "bear", "mouse", "wolf", "hen")
    things = ("lantern", "boot", "ribbon", "wheel", "letter", "spoon")
    places = ("hill", "well", "barn", "bridge", "meadow", "mill")
    ends = ("It was a quiet day.", "Nobody saw it.", "Then the rain came.", "They all went home.")
    return [
        f"The {rng.choice(('small', 'grey', 'young', 'tired'))} {rng.choice(animals)} walked to "
        f"the {rng.choice(places)} and found a {rng.choice(things)}. The {rng.choice(animals)} "
        f"{rng.choice(('laughed', 'waited', 'sang', 'slept'))} near the {rng.choice(places)}. "
        f"{rng.choice(ends)}"
        for _ in range(count)
    ]
