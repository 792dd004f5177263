"""Short entries that stand one after another (lines of notes, turns of a dialogue), ranked by words and meaning.

In memory, lengthened and changed entry by entry; for hundreds of thousands of them. An entry is ranked together with
its neighbours, because the turn that answers seldom repeats the words of the turn that asks: strongly where both are
turns of a dialogue (they begin with a speaker's name), weakly otherwise. Used by the memory room.

Words: BM25 (Robertson and Zaragoza, 2009) over fields, the entry itself and its neighbours, as a share of what the
question could reach at most. Meaning: the cosine of an entry and its neighbours, each counting by its length, which is
about what an encoder that averages over words would give for them together. Both lie between 0 and 1, and the score is
their mean: a convex combination keeps what ranks throw away (Bruch, Gai and Ingber, "An Analysis of Fusion Functions
for Hybrid Retrieval", 2023), and its value means the same from question to question.
"""

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentflow_server.retrieval.quantised import QuantisedVectors
from agentflow_server.retrieval.words import terms

Floats = NDArray[np.float32]
Slots = NDArray[np.int32]
KEY_BYTES = 16
_NOBODY = 0
_K1 = 1.2
_B = 0.2
_WORDS = 0.5
_LABEL = re.compile(r"(?:[-*•]\s+)?(?:\[[^\]]*\]\s*|\([^)]*\)\s*)?([^\s:][^:]{0,39}):\s")
_SPEAKS = 3
_MIN_DEAD = 1000


@dataclass(frozen=True, slots=True)
class Ties:
    """How much of its neighbours counts for an entry: the one before, the one behind; between turns, and otherwise."""

    before: float
    behind: float
    before_loose: float
    behind_loose: float


_WORD_TIES = Ties(0.5, 0.2, 0.2, 0.1)
_MEANING_TIES = Ties(0.5, 0.1, 0.2, 0.05)


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that was found. `position` counts lines from 0; `words` and `meaning` are what `score` is made of."""

    source: str
    position: int
    text: str
    score: float
    words: float
    meaning: float | None


class EntryIndex:
    """Entries of one owner, in sources that are replaced as a whole.

    Not safe to be changed while it is searched: the owner holds a lock.

    Args:
        dimension: of the vectors. words: the weight of words in the score; meaning has the rest.
    """

    def __init__(self, dimension: int = 0, *, words: float = _WORDS) -> None:
        self._share = words
        self._texts: list[str] = [""]
        self._postings: dict[str, tuple[array[int], array[int]]] = {}
        self._slots: dict[str, Slots] = {}
        self._positions: dict[str, Slots] = {}
        self._size = 1
        self._length = np.zeros(1024, np.float32)
        self._weight = np.zeros(1024, np.float32)
        self._alive = np.zeros(1024, bool)
        self._row = np.full(1024, -1, np.int32)
        self._labels: list[str] = [""]
        self._strength: dict[Ties, tuple[Floats, Floats]] = {}
        self._is_tied = np.zeros(1, bool)
        self._before: Slots = np.zeros(0, np.int32)
        self._after: Slots = np.zeros(0, np.int32)
        self._place: Slots = np.zeros(0, np.int32)
        self._norm: Floats | None = None
        self._near_weight: Floats | None = None
        self._vectors = QuantisedVectors(dimension)
        self._row_of: dict[bytes, int] = {}
        self._unknown: dict[bytes, list[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    @property
    def sources(self) -> list[str]:
        return list(self._slots)

    @property
    def pending(self) -> int:
        """How many entries have no vector yet."""
        return sum(int((self._row[slots] < 0).sum()) for slots in self._slots.values())

    @property
    def vectors(self) -> int:
        """How many vectors are held, also of entries that have gone."""
        return len(self._row_of)

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        return self._vectors.nbytes + len(self._postings) * 300 + self._size * 400

    def replace(self, source: str, lines: Sequence[str]) -> None:
        """Set the lines of a source; those that were there before, anywhere in it, keep what is known of them."""
        kept: dict[str, list[int]] = {}
        for slot in self._slots.pop(source, np.zeros(0, np.int32)).tolist():
            kept.setdefault(self._texts[slot], []).append(slot)
        self._positions.pop(source, None)
        slots = array("i")
        positions = array("i")
        for position, line in enumerate(lines):
            text = line.strip()
            if not text:
                continue
            same = kept.get(text)
            slots.append(same.pop() if same else self._add(text))
            positions.append(position)
        self._forget(slot for rest in kept.values() for slot in rest)
        if len(slots):
            self._slots[source] = np.frombuffer(slots, np.int32).copy()
            self._positions[source] = np.frombuffer(positions, np.int32).copy()
        self._sweep()
        self._link()

    def remove(self, source: str) -> None:
        """Remove a source."""
        if source in self._slots:
            self.replace(source, ())

    def _add(self, text: str) -> int:
        slot = self._size
        self._size += 1
        self._texts.append(text)
        label = _LABEL.match(text)
        self._labels.append(label[1] if label else "")
        if slot == len(self._length):
            self._grow()
        self._post(slot, text)
        self._weight[slot] = max(1, len(text.split()))
        self._alive[slot] = True
        key = key_of(text)
        row = self._row_of.get(key, -1)
        self._row[slot] = row
        if row < 0:
            self._unknown.setdefault(key, []).append(slot)
        return slot

    def _post(self, slot: int, text: str) -> None:
        found = terms(text)
        self._length[slot] = len(found)
        for term, count in Counter(found).items():
            posting = self._postings.get(term)
            if posting is None:
                posting = self._postings[term] = (array("i"), array("B"))
            posting[0].append(slot)
            posting[1].append(min(count, 255))

    def _grow(self) -> None:
        more = len(self._length)
        self._length = np.concatenate([self._length, np.zeros(more, np.float32)])
        self._weight = np.concatenate([self._weight, np.zeros(more, np.float32)])
        self._alive = np.concatenate([self._alive, np.zeros(more, bool)])
        self._row = np.concatenate([self._row, np.full(more, -1, np.int32)])

    def _forget(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self._alive[slot] = False
            key = key_of(self._texts[slot])
            waiting = self._unknown.get(key)
            if waiting and slot in waiting:
                waiting.remove(slot)
                if not waiting:
                    del self._unknown[key]

    def _sweep(self) -> None:
        """Number the entries anew when most numbers are of entries that have gone."""
        dead = self._size - 1 - len(self)
        if dead < _MIN_DEAD or dead < len(self):
            return
        keep = np.concatenate([np.zeros(1, np.int32), *self._slots.values()])
        number = np.zeros(self._size, np.int32)
        number[keep] = np.arange(len(keep), dtype=np.int32)
        self._texts = [self._texts[slot] for slot in keep.tolist()]
        self._labels = [self._labels[slot] for slot in keep.tolist()]
        self._length, self._weight = self._length[keep], self._weight[keep]
        self._alive, self._row = self._alive[keep], self._row[keep]
        self._size = len(keep)
        self._slots = {source: number[slots] for source, slots in self._slots.items()}
        self._unknown = {key: number[slots].tolist() for key, slots in self._unknown.items()}
        for term, (slots, counts) in list(self._postings.items()):
            old = np.frombuffer(slots, np.int32)
            live = number[old] > 0
            if not live.any():
                del self._postings[term]
                continue
            self._postings[term] = (
                array("i", number[old[live]].tobytes()),
                array("B", np.frombuffer(counts, np.uint8)[live].tobytes()),
            )

    def _link(self) -> None:
        """Note who stands beside whom; number 0 is nobody."""
        self._before = np.zeros(self._size, np.int32)
        self._after = np.zeros(self._size, np.int32)
        self._place = np.zeros(self._size, np.int32)
        self._is_tied = np.zeros(self._size, bool)
        self._norm = self._near_weight = None
        self._strength.clear()
        for source, slots in self._slots.items():
            turns = self._turns(slots)
            self._is_tied[slots[1:]] = turns[1:] & turns[:-1]
            self._before[slots[1:]] = slots[:-1]
            self._after[slots[:-1]] = slots[1:]
            self._place[slots] = self._positions[source]

    def _turns(self, slots: Slots) -> NDArray[np.bool_]:
        """Which entries are turns of a dialogue: they begin with a name that others begin with, too."""
        labels = [self._labels[slot] for slot in slots.tolist()]
        speakers = {label for label, count in Counter(labels).items() if label and count >= _SPEAKS}
        return np.fromiter((label in speakers for label in labels), bool, len(labels))

    def missing(self, limit: int) -> list[str]:
        """Texts that have no vector yet, the oldest first."""
        return [self._texts[slots[0]] for _, slots in zip(range(limit), self._unknown.values(), strict=False)]

    def learn(self, keys: bytes, packed: bytes) -> None:
        """Take in vectors: the keys of their texts one after another, and what `QuantisedVectors.pack` made of them."""
        fresh = [keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES)]
        first = self._vectors.extend(packed)
        self._near_weight = None
        for row, key in enumerate(fresh, first):
            self._row_of[key] = row
            for slot in self._unknown.pop(key, ()):
                self._row[slot] = row

    def live_vectors(self) -> tuple[bytes, bytes]:
        """Keys and packed vectors of the entries there are, to be kept in place of all that were learned."""
        keys = {key_of(self._texts[slot]) for slots in self._slots.values() for slot in slots.tolist()}
        live = [(key, row) for key, row in self._row_of.items() if key in keys]
        return b"".join(key for key, _ in live), self._vectors.packed([row for _, row in live])

    def search(
        self,
        question: str,
        vector: Floats | None = None,
        *,
        sources: Sequence[str] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
        words: Floats | None = None,
    ) -> list[Hit]:
        """The best entries, the best first.

        Args:
            vector: of the question; None ranks by words alone. sources: only these.
            words: what `words_of` gave for the question, if it was asked before.
            min_score: leave out what scores lower; what has nothing in common with the question is never found.
        """
        chosen = [name for name in (self._slots if sources is None else sources) if name in self._slots]
        if not chosen:
            return []
        slots = np.concatenate([self._slots[name] for name in chosen])
        words = self.words_of(question) if words is None else words
        meaning = None if vector is None else self._by_meaning(vector)
        score = words if meaning is None else np.float32(self._share) * words + np.float32(1 - self._share) * meaning
        candidates = score[slots]
        count = min(limit, len(slots))
        best = np.argpartition(-candidates, count - 1)[:count]
        best = best[np.lexsort((slots[best], -candidates[best]))]
        hits: list[Hit] = []
        for index in best.tolist():
            slot, value = int(slots[index]), float(candidates[index])
            if value <= 0 or value < min_score:
                break
            source = self._source_of(index, chosen)
            part = None if meaning is None else float(meaning[slot])
            hits.append(Hit(source, int(self._place[slot]), self._texts[slot], value, float(words[slot]), part))
        return hits

    def _source_of(self, index: int, chosen: Sequence[str]) -> str:
        for name in chosen:
            if index < len(self._slots[name]):
                return name
            index -= len(self._slots[name])
        raise IndexError(index)

    def words_of(self, question: str) -> Floats:
        """For each entry, what share of the question's words it and its neighbours hold, rare words counting more."""
        size = self._size
        total = np.zeros(size, np.float32)
        alive = len(self)
        if not alive:
            return total
        norm = self._length_norm()
        reach = 0.0
        for term, times in Counter(terms(question)).items():
            posting = self._postings.get(term)
            slots = np.array(posting[0], np.int32) if posting else np.zeros(0, np.int32)
            counts = np.array(posting[1], np.float32) if posting else np.zeros(0, np.float32)
            found = int(self._alive[slots].sum())
            weight = float(np.log1p((alive - found + 0.5) / (found + 0.5))) * times
            reach += weight
            if found:
                near, held = self._nearby(slots, counts)
                total[near] += np.float32(weight * (_K1 + 1)) * held / (held + norm[near])
        if reach:
            total *= np.float32(1 / reach)
        total[~self._alive[:size]] = 0
        return np.minimum(total, np.float32(1))

    def _length_norm(self) -> Floats:
        """BM25's allowance for the length of an entry and its neighbours."""
        if self._norm is None:
            length = self._spread(self._length[: self._size], _WORD_TIES)
            mean = float(length[self._alive[: self._size]].mean()) or 1.0
            self._norm = np.float32(_K1) * (np.float32(1 - _B) + np.float32(_B / mean) * length)
        return self._norm

    def _nearby(self, slots: Slots, counts: Floats) -> tuple[Slots, Floats]:
        """Entries that hold a term, or stand beside one that does, and how much of it."""
        places = np.concatenate([slots, self._after[slots], self._before[slots]])
        before, behind = self._strengths(_WORD_TIES)
        held = np.concatenate([counts, before[self._after[slots]] * counts, behind[self._before[slots]] * counts])
        if len(places) * 8 > self._size:
            dense = np.bincount(places, held, minlength=self._size).astype(np.float32)
            dense[_NOBODY] = 0
            near = np.flatnonzero(dense).astype(np.int32)
            return near, dense[near]
        near, inverse = np.unique(places, return_inverse=True)
        summed = np.bincount(inverse, held).astype(np.float32)
        real = near != _NOBODY
        return near[real], summed[real]

    def _by_meaning(self, vector: Floats) -> Floats:
        """For each entry, how near it is in meaning, its neighbours included; 0 where nothing is known yet."""
        rows = self._row[: self._size]
        weight = self._weight[: self._size]
        if self._near_weight is None:
            known = self._spread(np.where(rows < 0, np.float32(0), weight), _MEANING_TIES)
            self._near_weight = np.where(rows < 0, np.float32(np.inf), np.maximum(known, np.float32(1e-6)))
        cosines = np.append(self._vectors.cosines(vector), np.float32(0))[rows]
        near = self._spread(weight * cosines, _MEANING_TIES)
        near /= self._near_weight
        return np.clip(near, np.float32(0), np.float32(1))

    def _spread(self, values: Floats, ties: Ties) -> Floats:
        """Values of entries with a part of what their neighbours have."""
        values = values.astype(np.float32)
        values[_NOBODY] = 0
        before, behind = self._strengths(ties)
        near: Floats = values[self._before] * before
        near += values[self._after] * behind
        near += values
        return near

    def _strengths(self, ties: Ties) -> tuple[Floats, Floats]:
        """For each entry, how strongly it is tied to the one before, and to the one behind."""
        known = self._strength.get(ties)
        if known is None:
            behind_tied = self._is_tied[self._after]
            known = self._strength[ties] = (
                np.where(self._is_tied, np.float32(ties.before), np.float32(ties.before_loose)),
                np.where(behind_tied, np.float32(ties.behind), np.float32(ties.behind_loose)),
            )
        return known


def key_of(text: str) -> bytes:
    """The key of a text's vector."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()
