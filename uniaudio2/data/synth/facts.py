"""A closed world: facts and everyday requests with one answer each, and many wordings of the questions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """A kind of question.

    Attributes:
        wordings: How training asks, ``{}`` being the thing.
        held_out: How dev asks.
        statement: How a text says it, ``{}`` the thing, ``{answer}`` its answer.
        answers: Thing → answer.
        reply: How the answer is said.
    """

    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    statement: str
    answers: dict[str, str]
    reply: str = "it is {}"


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(" : ") for pair in text.split(" | "))


TOPICS = (
    Topic(
        (
            "what is the capital of {}", "name the capital of {}", "which city is the capital of {}",
            "do you know the capital of {}", "what is the capital city of {}", "the capital of {} is what",
            "give me the capital of {}", "can you tell me the capital of {}",
        ),
        ("tell me the capital of {}", "please name the capital city of {}"),
        "the capital of {} is {answer}",
        _pairs(
            "france : paris | italy : rome | spain : madrid | germany : berlin | japan : tokyo | china : beijing | "
            "england : london | russia : moscow | egypt : cairo | greece : athens | poland : warsaw | cuba : havana"
        ),
    ),
    Topic(
        (
            "what colour is {}", "which colour is {}", "what is the colour of {}", "tell me what colour {} is",
            "do you know what colour {} is", "name the colour of {}", "can you tell me the colour of {}",
        ),
        ("tell me the colour of {}", "please say what colour {} is"),
        "the colour of {} is {answer}",
        _pairs(
            "the sky : blue | grass : green | snow : white | a banana : yellow | coal : black | an orange : orange | "
            "blood : red | chocolate : brown"
        ),
    ),
    Topic(
        (
            "what is the opposite of {}", "name the opposite of {}", "give me the opposite of {}",
            "do you know the opposite of {}", "the opposite of {} is what", "which word is the opposite of {}",
            "can you tell me the opposite of {}",
        ),
        ("tell me the opposite of {}", "please say the opposite of {}"),
        "the opposite of {} is {answer}",
        _pairs(
            "hot : cold | big : small | up : down | day : night | open : closed | fast : slow | happy : sad | "
            "left : right | old : young | wet : dry"
        ),
    ),
    Topic(
        (
            "what is {}", "how much is {}", "add up {}", "can you tell me what {} is", "do you know how much {} is",
            "what do you get for {}", "what is the sum of {}",
        ),
        ("tell me how much {} is", "please work out {}"),
        "{} is {answer}",
        _pairs(
            "one plus one : two | two plus two : four | two plus three : five | three plus three : six | "
            "five plus five : ten | four plus four : eight | three plus four : seven | one plus two : three | "
            "six plus three : nine | ten plus ten : twenty"
        ),
    ),
    Topic(
        (
            "which day comes after {}", "what day is it after {}", "what day follows {}", "name the day after {}",
            "do you know which day is after {}", "which day is the day after {}", "today is {} what day is tomorrow",
        ),
        ("tell me the day after {}", "please say which day comes after {}"),
        "the day after {} is {answer}",
        _pairs(
            "monday : tuesday | tuesday : wednesday | wednesday : thursday | thursday : friday | friday : saturday | "
            "saturday : sunday | sunday : monday"
        ),
    ),
    Topic(
        (
            "how many legs does {} have", "what number of legs does {} have", "count the legs of {}",
            "do you know how many legs {} has", "can you say how many legs {} has", "how many legs are there on {}",
        ),
        ("tell me how many legs {} has", "please count the legs of {}"),
        "{} has {answer} legs",
        _pairs("a spider : eight | a dog : four | a bird : two | an ant : six | a snake : no | a cat : four"),
        "it has {} legs",
    ),
)  # fmt: skip

REQUESTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hello how are you": (("hello", "hi there", "hello there", "hey hello", "oh hello"), ("well hello", "hi hello")),
    "good morning to you": (
        ("good morning", "a good morning", "hello good morning", "good morning nano", "a very good morning"),
        ("well good morning", "a good morning to you"),
    ),
    "you are welcome": (
        ("thank you", "thanks a lot", "thank you very much", "many thanks", "thanks for your help"),
        ("thank you so much", "thanks very much"),
    ),
    "good night and sleep well": (
        ("good night", "good night nano", "i am going to bed", "it is time to sleep", "i go to bed now"),
        ("i am going to sleep", "well good night"),
    ),
    "i am fine thank you": (
        ("how are you", "how are you today", "how do you do", "are you well", "how do you feel"),
        ("how are you doing", "how do you feel today"),
    ),
    "my name is nano": (
        ("what is your name", "who are you", "tell me your name", "what are you called", "how are you called"),
        ("please tell me your name", "say your name"),
    ),
    "see you soon": (
        ("goodbye", "bye bye", "see you later", "i have to go", "goodbye for now"),
        ("well goodbye", "i must go now"),
    ),
    "yes i can hear you": (
        ("can you hear me", "do you hear me", "are you listening", "can you hear my voice", "do you hear my voice"),
        ("are you hearing me", "can you hear what i say"),
    ),
}
"""Reply → how training says what it replies to, and how dev does."""


@dataclass(frozen=True)
class Question:
    """A question in one wording, its reply, and the fact that it is about."""

    text: str
    reply: str
    fact: str


def questions(*, held_out: bool) -> list[Question]:
    """All questions in the wordings of train, or in those of dev; wordings of one fact stand one after another."""
    found: list[Question] = []
    for topic in TOPICS:
        for thing, answer in topic.answers.items():
            fact = topic.statement.replace("{answer}", answer).format(thing)
            wordings = topic.held_out if held_out else topic.wordings
            found += [Question(wording.format(thing), topic.reply.format(answer), fact) for wording in wordings]
    for reply, (wordings, others) in REQUESTS.items():
        found += [Question(wording, reply, reply) for wording in (others if held_out else wordings)]
    return found


def statements() -> list[str]:
    """The facts as plain sentences, and each question with its answer: text that agrees with the speech."""
    facts = list(dict.fromkeys(question.fact for question in questions(held_out=False)))
    return [*facts, *(f"{question.text} {question.reply}" for question in questions(held_out=False))]
