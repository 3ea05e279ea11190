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

REGULAR_VERBS = (
    "accept act add affect agree allow alter appear apply attract belong block call carry cause change close combine "
    "connect consist contain continue control correlate cover create cross cure decrease delay deliver depend "
    "describe destroy detect determine develop differ die drop eat enhance enter exist explain express fail fall fill "
    "float flow follow form give go grow happen help hold impair improve include increase indicate induce inhibit "
    "involve join jump keep kill know lead limit live look lower make measure melt mediate modify move need occur "
    "offer open own play point prevent produce promote protect prove provide pull push raise reach react reduce "
    "reflect regulate release remain remove repel replace represent require ride rise run say see seem sell serve "
    "show sit sleep slow smile sound speak stand start stimulate stop suggest support suppress surround swim take "
    "tell touch transform travel trigger turn use vary walk want watch wear weigh work yield"
).split()
PAST = {
    "eat": "ate", "fall": "fell", "give": "gave", "go": "went", "grow": "grew", "hold": "held", "keep": "kept",
    "know": "knew", "lead": "led", "make": "made", "ride": "rode", "rise": "rose", "run": "ran", "say": "said",
    "see": "saw", "sell": "sold", "show": "showed", "sit": "sat", "sleep": "slept", "speak": "spoke", "stand": "stood",
    "swim": "swam", "take": "took", "tell": "told", "wear": "wore", "stop": "stopped", "drop": "dropped",
    "have": "had", "do": "did",
}  # fmt: skip
PARTICIPLES = frozenset(
    "been become begun brought built come done drawn fallen found given gone grown held kept known led left "
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


VERBS = (*REGULAR_VERBS, "have", "do")
THIRD_PERSON = {_third_person(base): base for base in VERBS}
PAST_TENSE = {_past(base): base for base in VERBS}
