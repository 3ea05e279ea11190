# ruff: noqa: SIM905 - words are read and edited as lines, not as lists of strings
"""Small lists of English words, to be edited. They stand in for a parser."""

from __future__ import annotations

ARTICLES = frozenset("a an the my your his her its our their".split())
DETERMINERS = ARTICLES | frozenset("this that these those some any each every no all both many few several".split())
PREPOSITIONS = frozenset(
    "about above across after against along among around as at before behind below beside between by during "
    "for from in inside into near of off on onto out outside over through to toward under until up upon with "
    "within without".split()
)
PRONOUNS = frozenset("i you he she it we they me him us them who whom which what there here one".split())
# Those that take "not" behind them. Forms of do and have are also main verbs: negation.py tells them apart.
AUXILIARIES = frozenset("am is are was were can could will would shall should may must might".split())
OTHER_AUXILIARIES = frozenset("do does did have has had be been being".split())
CONJUNCTIONS = frozenset("and or but nor so yet if then than because while when where why how although not".split())
FUNCTION_WORDS = DETERMINERS | PREPOSITIONS | PRONOUNS | AUXILIARIES | OTHER_AUXILIARIES | CONJUNCTIONS

BASES = (
    "accept act add affect agree allow alter appear apply attract become begin believe belong bind block boil break "
    "bring build buy call carry cause change choose close combine confirm connect consist contain continue control "
    "correlate cover create cross cure decrease delay deliver demonstrate depend describe destroy detect determine "
    "develop die differ draw drive drop eat enable encode enhance enter exist explain express fail fall feel fill "
    "find float flow fly follow form freeze get give go grow happen help hold impair improve include increase "
    "indicate induce influence inhibit interact involve join jump keep kill know last lead learn leave limit live "
    "look lose love lower make mean measure mediate meet melt modify modulate move need occur offer open own play "
    "point prevent produce promote protect prove provide pull push rain raise reach react reduce reflect regulate "
    "release remain remove repel replace replicate report represent require reveal ride rise run say see seem sell "
    "serve show sit sleep slow smile sound speak spend stand start stimulate stop suggest support suppress surround "
    "swim take teach tell think throw touch transform travel treat trigger turn use vary walk want watch wear weigh "
    "win work write yield"
).split()
PAST = {
    "eat": "ate", "fall": "fell", "give": "gave", "go": "went", "grow": "grew", "hold": "held", "keep": "kept",
    "know": "knew", "lead": "led", "make": "made", "ride": "rode", "rise": "rose", "run": "ran", "say": "said",
    "see": "saw", "sell": "sold", "show": "showed", "sit": "sat", "sleep": "slept", "speak": "spoke", "stand": "stood",
    "swim": "swam", "take": "took", "tell": "told", "wear": "wore", "stop": "stopped", "drop": "dropped",
    "find": "found", "become": "became", "mean": "meant", "lose": "lost", "win": "won", "buy": "bought",
    "bring": "brought", "think": "thought", "feel": "felt", "leave": "left", "build": "built", "write": "wrote",
    "freeze": "froze", "begin": "began", "break": "broke", "choose": "chose", "draw": "drew", "drive": "drove",
    "fly": "flew", "get": "got", "meet": "met", "spend": "spent", "teach": "taught", "throw": "threw", "bind": "bound",
    "occur": "occurred", "control": "controlled", "repel": "repelled", "have": "had", "do": "did",
}  # fmt: skip
PARTICIPLES = frozenset(
    "been become begun brought built come done drawn eaten fallen found given gone grown held kept known led left "
    "lost made met paid put read run said seen sent set shown sold stood taken thought told won worn written".split()
)


def _third_person(base: str) -> str:
    if base == "have":
        return "has"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("s", "sh", "ch", "x", "o")) else "s")


def _past(base: str) -> str:
    if base in PAST:
        return PAST[base]
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ied"
    return base + ("d" if base.endswith("e") else "ed")


VERBS = (*BASES, "have", "do")
THIRD_PERSON = {_third_person(base): base for base in VERBS}
PAST_TENSE = {_past(base): base for base in VERBS}
