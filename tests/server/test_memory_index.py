"""The index of entries: changed bit by bit, it answers like a new one; estimated cosines lose nothing that matters."""

import random

import numpy as np
import pytest
from agentflow_server.retrieval.entries import EntryIndex, key_of
from agentflow_server.retrieval.quantised import QuantisedVectors
from agentflow_server.retrieval.words import stem, terms

WORDS = ("apple", "river", "stone", "cloud", "tiger", "piano", "garden", "window", "letter", "bridge", "candle")


def vectors_of(texts: list[str], dimension: int = 64) -> np.ndarray:
    rows = [np.random.default_rng(list(text.encode())).normal(size=dimension) for text in texts]
    found = np.array(rows, np.float32).reshape(len(texts), dimension)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def teach(index: EntryIndex) -> None:
    while texts := index.missing(50):
        index.learn(b"".join(map(key_of, texts)), QuantisedVectors.pack(vectors_of(texts)))


def edit(chance: random.Random, lines: list[str]) -> None:
    speaker = chance.choice(["Ann: ", "Bob: ", ""])
    line = speaker + " ".join(chance.choices(WORDS, k=chance.randint(0, 6)))
    action = chance.random()
    if action < 0.5 or not lines:
        lines.insert(chance.randint(0, len(lines)), line)
    elif action < 0.8:
        del lines[chance.randrange(len(lines))]
    else:
        lines[chance.randrange(len(lines))] = line


@pytest.mark.parametrize("seed", range(4))
def test_an_index_that_is_edited_answers_like_a_new_one(seed: int) -> None:
    chance = random.Random(seed)
    blocks: dict[str, list[str]] = {"core": [], "archival": []}
    edited = EntryIndex(64)
    for _ in range(60):
        name = chance.choice(list(blocks))
        lines = blocks[name]
        for _ in range(chance.randint(1, 60)):
            edit(chance, lines)
        edited.replace(name, lines)
        if chance.random() < 0.5:
            teach(edited)
    if chance.random() < 0.5:
        edited.remove("core")
        blocks["core"] = []
    teach(edited)
    fresh = EntryIndex(64)
    for name, lines in blocks.items():
        fresh.replace(name, lines)
    teach(fresh)
    assert (len(edited), edited.pending) == (len(fresh), 0)
    for _ in range(30):
        question = " ".join(chance.choices(WORDS, k=3))
        vector = vectors_of([question])[0] if chance.random() < 0.7 else None
        found, expected = (index.search(question, vector, limit=8) for index in (edited, fresh))
        assert [round(hit.score, 5) for hit in found] == [round(hit.score, 5) for hit in expected]
        for hit in found:
            assert blocks[hit.source][hit.position].strip() == hit.text
    keys, packed = edited.live_vectors()
    again = EntryIndex(64)
    for name, lines in blocks.items():
        again.replace(name, lines)
    again.learn(keys, packed)
    assert again.pending == 0


def test_the_nearest_of_many_are_exact() -> None:
    chance = np.random.default_rng(5)
    centres = chance.normal(size=(300, 384)).astype(np.float32)
    rows = centres[chance.integers(0, 300, 12_000)] + chance.normal(size=(12_000, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    held = QuantisedVectors(384)
    held.extend(QuantisedVectors.pack(rows))
    kept = 0
    for number in range(50):
        question = rows[number] + chance.normal(size=384).astype(np.float32) * 0.05
        question /= np.linalg.norm(question)
        exact = rows @ question
        best = set(np.argsort(-exact)[:10].tolist())
        found = held.cosines(question)
        kept += len(best & set(np.argsort(-found)[:10].tolist()))
        assert abs(found[number] - exact[number]) < 0.01
    assert kept >= 490


def test_the_turn_that_answers_is_found_by_the_words_of_the_turn_that_asks() -> None:
    index = EntryIndex()
    small = [f"{name}: Nice weather today." for name in ("Ann", "Bob") for _ in range(4)]
    index.replace("talk", [*small, "Ann: Any animals at your place?", "Bob: Yes, two guinea pigs.", *small])
    index.replace("notes", ["No animals in the office.", "The printer is broken.", "Lunch is at noon."])
    found = index.search("animals place", limit=4)
    assert [hit.text for hit in found[:2]] == ["Ann: Any animals at your place?", "Bob: Yes, two guinea pigs."]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"), ("ponies", "poni"), ("feed", "feed"), ("agreed", "agre"), ("motoring", "motor"),
        ("sing", "sing"), ("hopping", "hop"), ("falling", "fall"), ("filing", "file"), ("happy", "happi"),
        ("relational", "relat"), ("vietnamization", "vietnam"), ("decisiveness", "decis"), ("adoption", "adopt"),
        ("generalizations", "gener"), ("controll", "control"), ("rate", "rate"), ("it's", "it"), ("2025", "2025"),
    ],
)  # fmt: skip
def test_words_are_stemmed_as_porter_wrote(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_terms_of_other_scripts() -> None:
    assert terms("The Café, don’t!") == ["cafe"]
    assert terms("東京タワー") == ["東京", "京タ", "タワ", "ワー"]
    assert terms("") == []
