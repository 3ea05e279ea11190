"""Names of measures: `nDCG@10`, and the same measure as trec_eval, mteb and other tools spell it.

The names stand beside the recipe's schema, so that a misspelt measure is refused before anything is computed. Nothing
heavy is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InputError, unknown

KINDS = ("nDCG", "AP", "RR", "R", "P", "Success", "hit", "accuracy")
# Values that a protocol reports per question. No run determines them, so they are compared and never computed.
OF_PROTOCOLS = ("text", "image", "group")
_NEEDS_CUT = {"R", "P", "Success", "hit"}
_ALIASES = {kind.lower(): kind for kind in KINDS} | {
    "map": "AP",
    "mrr": "RR",
    "recip_rank": "RR",
    "recall": "R",
    "precision": "P",
}
_FORM = re.compile(r"([A-Za-z_]*?[A-Za-z])(?:(?:@|_at_|_cut_|_)([1-9][0-9]{0,8}))?")  # nDCG@10, ndcg_at_10, ndcg_cut_10
_HIT_RATE = re.compile(r"hits|hit_?rate", re.IGNORECASE)
# Measures of trec_eval and ir_measures that are not computed here: their nearest known name would be another measure.
_NOT_COMPUTED = re.compile(r"rprec|judged|bpref|inf_?ap|rbp|n?err|iprec|set_?\w+|num_?\w+|alpha_?ndcg", re.IGNORECASE)


def parse(measures: str | Sequence[str]) -> list[str]:
    """The measures under the names that embedtune uses, each once: of `"nDCG@10 R@100"` or a sequence of names.

    Other tools' names for the same measure are translated: `MRR@10` is RR@10, `map` AP, `ndcg_cut_10` nDCG@10. Raises
    InputError for an unknown name, with the nearest known one, and for no name at all.
    """
    names = names_in(measures)
    return list(dict.fromkeys(_canonical(name) for name in names))


def names_in(measures: str | Sequence[str]) -> list[str]:
    """The names of a list, or of a string that separates them by spaces or commas. Raises InputError for none."""
    names = re.split(r"[\s,]+", measures.strip()) if isinstance(measures, str) else list(measures)
    if not any(names):
        raise InputError("no measures given; name some, such as nDCG@10 R@100")
    return names


def split(name: str) -> tuple[str, int | None]:
    """`nDCG@10` as ("nDCG", 10), `AP` as ("AP", None); of a name that `parse` has returned."""
    kind, _, cut = name.partition("@")
    return kind, int(cut) if cut else None


def _canonical(name: str) -> str:
    form = _FORM.fullmatch(name)
    kind = _ALIASES.get(form[1].lower()) if form else None
    if form is None or kind is None or (form[2] and kind == "accuracy"):
        raise InputError(_refusal(name))
    if kind in _NEEDS_CUT and not form[2]:
        raise InputError(f"measure {name!r} needs a cut-off, as in {kind}@10")
    return f"{kind}@{form[2]}" if form[2] else kind


def _refusal(name: str) -> str:
    stem = re.split(r"@|\(|_at_|_cut_|_(?=[0-9])", name)[0]
    digits = re.search(r"(?<![0-9])([1-9][0-9]{0,8})$", name)
    cut = f"@{digits[1]}" if digits else "@10"
    if name in OF_PROTOCOLS:
        return f"measure {name!r} is reported by the protocol winoground only; a run does not determine it"
    if _HIT_RATE.fullmatch(stem):
        return (
            f"unknown measure {name!r}: did you mean 'hit{cut}' (equal scores count by chance) or 'Success{cut}' "
            "(equal scores are ordered by document id, as trec_eval does)?"
        )
    if "(" in name and stem.lower() in _ALIASES:
        plain = _ALIASES[stem.lower()] + (cut if digits else "")
        return f"measure {name!r}: options in brackets are not supported; {plain!r} counts every grade above 0"
    known = [kind if kind == "accuracy" else kind + cut for kind in KINDS]
    if _NOT_COMPUTED.fullmatch(stem):
        return f"measure {name!r} is not computed by embedtune; known are {', '.join(known)}"
    return unknown("measure", name, known)
