"""Words of a text as terms to search by: lower case, without accents, stemmed (Porter, "An algorithm for suffix
stripping", 1980). Scripts without spaces give pairs of characters. Used by `entries` and `postings`; pure.
"""

import re
import unicodedata
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_SCRIPTS = "぀-ヿ㐀-鿿豈-﫿ก-๿"
_UNSPACED = re.compile(f"[{_SCRIPTS}]")
_TOKEN = re.compile(rf"[{_SCRIPTS}]+|[^\W_{_SCRIPTS}]+")
_FIRST_UNSPACED = "ก"
_LONGEST = 64
_STOP_WORDS = (
    "a about above after again all also am an and any are aren't as at be because been before being below between both"
    " but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each few for from"
    " further had hadn't has hasn't have haven't having he he'd he'll he's her here here's hers herself him himself his"
    " how how's i i'd i'll i'm i've if in into is isn't it it's its itself just let's me more most my myself no nor not"
    " of off on once only or other ought our ours ourselves out over own same shan't she she'd she'll she's should"
    " shouldn't so some such than that that's the their theirs them themselves then there there's these they they'd"
    " they'll they're they've this those through to too under until up us very was wasn't we we'd we'll we're we've"
    " were weren't what what's when when's where where's which while who who's whom why why's will with won't would"
    " wouldn't you you'd you'll you're you've your yours yourself yourselves"
)
_STOP = frozenset(_STOP_WORDS.split())
_VOWEL = re.compile(r"[aeiou]|(?<=[^aeiou])y")
_MEASURE = re.compile(r"(?:[aeiou]|(?<=[^aeiouy])y)+(?:[^aeiouy]|(?<=[aeiou])y|y(?=[aeiou]))+")
_CVC = re.compile(r"[^aeiou][aeiouy][^aeiouwxy]$")
_STEP2 = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("abli", "able"),
    ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"),
    ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"),
    ("iviti", "ive"), ("biliti", "ble"),
)  # fmt: skip
_STEP3 = (("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""))
_STEP4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize", "al", "er",
    "ic", "ou",
)  # fmt: skip


def terms(text: str) -> list[str]:
    """The terms of a text, in order; words that carry no meaning of their own are left out."""
    found: list[str] = []
    for word in _WORD.findall(_plain(text)):
        if word in _STOP:
            continue
        if _UNSPACED.search(word):
            found += _pairs(word)
        else:
            found.append(stem(word))
    return found


def tokens(text: str) -> list[str]:
    """Every word of a text, in order; of the very long ones only their beginning."""
    found: list[str] = []
    for word in _TOKEN.findall(_plain(text)):
        if word >= _FIRST_UNSPACED and _UNSPACED.match(word):
            found += _pairs(word)
        else:
            found.append(stem(word[:_LONGEST]))
    return found


def _pairs(word: str) -> list[str]:
    return [word[start : start + 2] for start in range(max(1, len(word) - 1))]


def _plain(text: str) -> str:
    lowered = text.lower().replace("’", "'")
    if lowered.isascii():
        return lowered
    return "".join(char for char in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(char))


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The stem of an English word in lower case; other words mostly stay as they are."""
    word = word.split("'", 1)[0] if word.endswith("'s") else word.replace("'", "")
    if len(word) <= 2 or not word.isascii() or not word.isalpha():
        return word
    return _step5(_suffixes(_step1(word)))


def _measure(part: str) -> int:
    return len(_MEASURE.findall(part))


def _step1(word: str) -> str:
    if word.endswith("s") and not word.endswith("ss"):
        word = word[:-2] if word.endswith(("sses", "ies")) else word[:-1]
    if word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) else word
    else:
        for ending in ("ed", "ing"):
            if word.endswith(ending) and _VOWEL.search(word[: -len(ending)]):
                word = _mended(word[: -len(ending)])
                break
    return f"{word[:-1]}i" if word.endswith("y") and _VOWEL.search(word[:-1]) else word


def _mended(part: str) -> str:
    if part.endswith(("at", "bl", "iz")):
        return f"{part}e"
    if len(part) > 1 and part[-1] == part[-2] and part[-1] not in "aeioulsz":
        return part[:-1]
    return f"{part}e" if _measure(part) == 1 and _CVC.search(part) else part


def _suffixes(word: str) -> str:
    for step in (_STEP2, _STEP3):
        for ending, instead in sorted(step, key=lambda pair: -len(pair[0])):
            if word.endswith(ending):
                part = word[: -len(ending)]
                word = part + instead if _measure(part) else word
                break
    for ending in _STEP4:
        if word.endswith(ending):
            part = word[: -len(ending)]
            return part if _measure(part) > 1 else word
    if word.endswith("ion") and word[:-3].endswith(("s", "t")) and _measure(word[:-3]) > 1:
        return word[:-3]
    return word


def _step5(word: str) -> str:
    if word.endswith("e"):
        part = word[:-1]
        if _measure(part) > 1 or (_measure(part) == 1 and not _CVC.search(part)):
            word = part
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
