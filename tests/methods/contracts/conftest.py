"""What methods of all families are tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_values import DOCUMENTS, QUERIES

from embedtune import methods
from embedtune.types import Scores


@pytest.fixture
def scores() -> Scores:
    """4 queries and 11 documents: query 0 has two positives, columns 5 to 8 were mined for queries 0 to 3,
    9 and 10 are in-batch negatives, and a column here and there is no candidate. The teacher is sure of positives."""
    generator = torch.Generator().manual_seed(3)
    queries = torch.nn.functional.normalize(torch.randn(QUERIES, 6, generator=generator), dim=1)
    documents = torch.nn.functional.normalize(torch.randn(DOCUMENTS, 6, generator=generator), dim=1)
    positive = torch.zeros(QUERIES, DOCUMENTS, dtype=torch.bool)
    positive[[0, 1, 2, 3, 0], [0, 1, 2, 3, 4]] = True
    own = torch.zeros_like(positive)
    own[range(4), range(5, 9)] = True
    candidate = ~positive
    candidate[:, 5:9] &= own[:, 5:9] | (torch.rand(4, 4, generator=generator) < 0.5)
    teacher = torch.where(positive, 3.0, 0.6 * torch.rand(QUERIES, DOCUMENTS, generator=generator))
    return Scores(
        student=(queries @ documents.T).requires_grad_(),
        positive=positive,
        candidate=candidate,
        own=own,
        teacher=teacher,
        queries=queries,
        documents=documents,
        query_ids=tuple(f"q{row}" for row in range(QUERIES)),
        doc_ids=tuple(f"d{column}" for column in range(DOCUMENTS)),
        positive_ids=tuple(frozenset(f"d{column}" for column in row.nonzero().flatten()) for row in positive),
    )


@pytest.fixture
def bound(tmp_path: Path) -> Callable[[str, str], Any]:
    """Methods with their defaults; options without one (files) and sizes that suit the small fixture are here."""
    run = tmp_path / "judged.run"
    run.write_text("".join(f"q0 d{column} {score}\n" for column, score in enumerate([0.9, 0.1, 0.95, 0.2, 0.8])))
    options: dict[str, dict[str, Any]] = {
        "cluster": {"clusters": 3},
        "judge": {"path": str(run)},
    }
    return lambda family, name: methods.bind(family, name, options.get(name, {}))
