"""What to look for: the words of a question that carry meaning. Shared by the word indexes of both databases."""

import re

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_ENGLISH = """
a about above after again all also am an and any are as at be because been before being below between both but by can
could did do does doing down during each few for from further had has have having he her here hers him his how i if in
into is it its itself just me more most my no nor not now of off on once only or other our out over own same she should
so some such than that the their them then there these they this those through to too under until up very was we were
what when where which while who whom why will with would you your yours please tell show find give list know
"""
_GERMAN = """
aber als am an auch auf aus bei bin bis da damit das dass daß dem den der des die dies diese dieser dieses du durch ein
eine einem einen einer eines er es für hat ich ihr im in ist ja kann man mit nach nicht noch nur oder sein sich sie sind
so und uns vom von vor war was weil welche welcher welches wenn wer wie wir wird wo zu zum zur über
"""
STOP_WORDS = frozenset(_ENGLISH.split()) | frozenset(_GERMAN.split())
_MOST = 48


def query_words(query: str) -> list[str]:
    """The words of a query, in order, each once, without function words; those too if there is nothing else."""
    found = list(dict.fromkeys(word.lower() for word in _WORD.findall(query)))
    return ([word for word in found if word not in STOP_WORDS] or found)[:_MOST]
