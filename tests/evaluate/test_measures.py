import math
from itertools import pairwise, permutations

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.errors import InputError
from embedtune.evaluate.measures import mean, mteb_name, parse_compared, per_query, ranked
from embedtune.recipe.measures import parse

GRADED = {"q": {"a": 0, "b": 2, "c": 1}}
RANKED = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}


def value(measure: str, qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> float:
    return per_query([measure], qrels, run)[measure]["q"]


def test_ndcg_counts_a_grade_as_itself() -> None:
    by_hand = (2 / math.log2(3) + 1 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    assert value("nDCG@10", GRADED, RANKED) == pytest.approx(by_hand, abs=1e-12)
    assert value("nDCG@10", GRADED, RANKED) == pytest.approx(0.669672, abs=1e-6)
    assert value("nDCG", GRADED, RANKED) == value("nDCG@3", GRADED, RANKED)


def test_by_hand() -> None:
    qrels = {"q": {"b": 1, "d": 1, "unfound": 1}}
    run = {"q": {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}}
    expected = {
        "R@1": 0, "R@2": 1 / 3, "R@10": 2 / 3, "P@2": 1 / 2, "P@10": 2 / 10,
        "RR": 1 / 2, "RR@1": 0, "RR@2": 1 / 2, "RR@10": 1 / 2,
        "AP": (1 / 2 + 2 / 4) / 3, "AP@3": (1 / 2) / 3,
        "Success@1": 0, "Success@2": 1, "Success@5": 1,
    }  # fmt: skip
    for measure, number in expected.items():
        assert value(measure, qrels, run) == pytest.approx(number, abs=1e-12), measure


def test_rr_is_cut_at_every_rank() -> None:
    for rank in range(1, 60):
        run = {"q": {f"d{n}": -float(n) for n in range(1, 61)}}
        qrels = {"q": {f"d{rank}": 1}}
        assert value(f"RR@{rank}", qrels, run) == 1 / rank
        if rank > 1:
            assert value(f"RR@{rank - 1}", qrels, run) == 0


def test_success_counts_queries_without_results() -> None:
    qrels = {"found": {"a": 1}, "late": {"a": 1}, "absent": {"a": 1}, "empty": {"a": 1}}
    late = {f"d{n}": 10.0 - n for n in range(5)} | {"a": 0.0}
    values = per_query("Success@5", qrels, {"found": {"a": 1.0}, "late": late, "empty": {}, "unjudged": {"a": 1.0}})
    assert values["Success@5"] == {"found": 1, "late": 0, "absent": 0, "empty": 0}
    assert mean(values) == {"Success@5": 0.25}


def test_ties_are_ordered_by_document_id_from_high_to_low() -> None:
    run = {"q": {"d1": 1.0, "d2": 1.0, "d10": 1.0}}
    assert ranked(run["q"]) == ["d2", "d10", "d1"]
    for rank, doc_id in enumerate(["d2", "d10", "d1"], start=1):
        assert value("RR", {"q": {doc_id: 1}}, run) == 1 / rank


def test_scores_are_compared_as_float32() -> None:
    run = {"q": {"a": 1.0 + 1e-9, "b": 1.0}}
    assert ranked(run["q"]) == ["b", "a"]
    assert value("RR", {"q": {"a": 1}}, run) == 1 / 2


ids = st.sampled_from([f"d{n}" for n in range(12)])
judged = st.dictionaries(st.sampled_from(["q1", "q2"]), st.dictionaries(ids, st.integers(0, 3), min_size=1), min_size=1)
runs = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), st.dictionaries(ids, st.integers(-2, 2).map(float)))


@settings(max_examples=60)
@given(judged, runs)
def test_agrees_with_pytrec_eval(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> None:
    theirs = {"nDCG@3": "ndcg_cut_3", "nDCG": "ndcg", "AP": "map", "AP@3": "map_cut_3", "RR": "recip_rank",
              "R@3": "recall_3", "P@3": "P_3", "Success@3": "success_3"}  # fmt: skip
    expected = pytrec_eval.RelevanceEvaluator(qrels, set(theirs.values())).evaluate(run)
    for ours, values in per_query(list(theirs), qrels, run).items():
        for query_id in qrels:
            assert values[query_id] == expected.get(query_id, {}).get(theirs[ours], 0.0)


@settings(max_examples=60)
@given(judged, runs)
def test_rr_against_the_ranking(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> None:
    for query_id, by_cut in per_query("RR@2", qrels, run)["RR@2"].items():
        top = ranked(run.get(query_id, {}))[:2]
        ranks = [rank for rank, doc_id in enumerate(top, start=1) if qrels[query_id].get(doc_id, 0) > 0]
        assert by_cut == (1 / ranks[0] if ranks else 0)


def test_names() -> None:
    assert parse("nDCG@10, R@100 nDCG@10") == ["nDCG@10", "R@100"]
    assert parse(["AP"]) == ["AP"]


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("ndcg@10", "nDCG@10"),
        ("ndcg_cut_10", "nDCG@10"),
        ("ndcg_at_10", "nDCG@10"),
        ("NDCG", "nDCG"),
        ("MAP", "AP"),
        ("map_cut_100", "AP@100"),
        ("MRR@20", "RR@20"),
        ("recip_rank", "RR"),
        ("recall@100", "R@100"),
        ("recall_5", "R@5"),
        ("precision_at_3", "P@3"),
        ("P_10", "P@10"),
        ("success_1", "Success@1"),
    ],
)
def test_the_same_measure_under_another_tool_s_name_is_accepted(name: str, measure: str) -> None:
    assert parse(name) == [measure]


KNOWN = "nDCG@10, AP@10, RR@10, R@10, P@10, Success@10, hit@10, accuracy"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nDGC@10", "unknown measure 'nDGC@10': did you mean 'nDCG@10'?"),
        (
            "hit_rate@1",
            "unknown measure 'hit_rate@1': did you mean 'hit@1' (equal scores count by chance) or 'Success@1' "
            "(equal scores are ordered by document id, as trec_eval does)?",
        ),
        (
            "hits@3",
            "unknown measure 'hits@3': did you mean 'hit@3' (equal scores count by chance) or 'Success@3' "
            "(equal scores are ordered by document id, as trec_eval does)?",
        ),
        (
            "R(rel=2)@100",
            "measure 'R(rel=2)@100': options in brackets are not supported; 'R@100' counts every grade above 0",
        ),
        ("Rprec", f"measure 'Rprec' is not computed by embedtune; known are {KNOWN}"),
        ("Judged@10", f"measure 'Judged@10' is not computed by embedtune; known are {KNOWN}"),
        ("nDCG@0", "unknown measure 'nDCG@0': did you mean 'nDCG@10'?"),
        (
            "nDCG@9999999999",
            "unknown measure 'nDCG@9999999999': known are AP@10, P@10, R@10, RR@10, Success@10, accuracy, hit@10, "
            "nDCG@10",
        ),
        ("R", "measure 'R' needs a cut-off, as in R@10"),
        ("recall", "measure 'recall' needs a cut-off, as in R@10"),
        (
            "brilliance",
            "unknown measure 'brilliance': known are AP@10, P@10, R@10, RR@10, Success@10, accuracy, hit@10, nDCG@10",
        ),
        ("group", "measure 'group' is reported by the protocol winoground only; a run does not determine it"),
        ("", "no measures given; name some, such as nDCG@10 R@100"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(name)
    assert str(error.value) == message


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="query 'q', document 'b': the score is NaN; it has no rank"):
        per_query("RR", {"q": {"a": 1}}, {"q": {"a": 1.0, "b": math.nan}})


def test_nothing_judged_is_refused() -> None:
    with pytest.raises(InputError, match="no judged queries"):
        per_query("RR", {}, {"q": {"a": 1.0}})


def chance(positions: int, cut: int, relevant: set[str], scores: dict[str, float]) -> float:
    """By brute force: the share of the orders of the documents, equal scores in any order, that have one early."""
    orders = [
        order for order in permutations(scores) if all(scores[one] >= scores[other] for one, other in pairwise(order))
    ]
    return sum(bool(relevant & set(order[:cut])) for order in orders) / len(orders)


@pytest.mark.parametrize(
    "scores",
    [
        {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0},  # a constant model
        {"a": 2.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 0.0},
        {"a": 0.5, "b": 1.0, "c": 0.5, "d": 0.5, "e": 2.0},
        {"a": 1.0, "b": 1.0, "c": 0.5, "d": 3.0, "e": 3.0},
    ],
)
@pytest.mark.parametrize("judged", [{"a": 1}, {"c": 2}, {"a": 1, "c": 1}, {"b": 1, "c": 0, "e": 1}])
def test_hit_is_the_chance_under_random_ties(scores: dict[str, float], judged: dict[str, int]) -> None:
    relevant = {doc_id for doc_id, grade in judged.items() if grade > 0}
    found = per_query("hit@1 hit@2 hit@3", {"q": judged}, {"q": scores})
    for cut in (1, 2, 3):
        assert found[f"hit@{cut}"]["q"] == pytest.approx(chance(5, cut, relevant, scores))


def test_a_constant_model_hits_one_in_the_pool_and_is_never_accurate() -> None:
    run = {"q": {f"d{n}": 0.25 for n in range(1000)}, "absent": {}}
    qrels = {"q": {"d0": 1}, "absent": {"d0": 1}}
    assert per_query("hit@1 accuracy", qrels, run) == {
        "hit@1": {"q": 1 / 1000, "absent": 0.0},
        "accuracy": {"q": 0.0, "absent": 0.0},
    }


def test_accuracy_is_strict_and_wants_every_relevant_document_above() -> None:
    qrels = {name: {"a": 1, "b": 1} for name in ("right", "level", "half")}
    run = {
        "right": {"a": 0.9, "b": 0.8, "c": 0.7},
        "level": {"a": 0.9, "b": 0.7, "c": 0.7 + 1e-9},  # equal as float32
        "half": {"a": 0.9, "b": 0.6, "c": 0.7},
    }
    assert per_query("accuracy", qrels, run)["accuracy"] == {"right": 1.0, "level": 0.0, "half": 0.0}


def test_a_protocol_s_own_values_are_compared_and_never_computed() -> None:
    assert parse_compared("group text main_score MRR@10") == ["group", "text", "main_score", "RR@10"]
    with pytest.raises(InputError, match=r"^measure 'group' is reported by the protocol winoground only"):
        per_query("group", {"q": {"a": 1}}, {"q": {"a": 1.0}})


def test_every_measure_has_a_name_for_the_hub() -> None:
    assert [mteb_name(name) for name in parse("nDCG@10 AP RR@5 hit@1 accuracy")] == [
        "ndcg_at_10",
        "map",
        "mrr_at_5",
        "hit_at_1",
        "accuracy",
    ]
