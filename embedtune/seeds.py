"""Generators from a seed and what they are for, so that nothing random needs to be kept between steps or runs."""

from __future__ import annotations

import hashlib

import torch


def generator_for(seed: int, *purpose: object) -> torch.Generator:
    """A CPU generator that depends on the seed and the purpose, e.g. ("batches", epoch)."""
    return torch.Generator().manual_seed(seed_for(seed, *purpose))


def seed_for(seed: int, *purpose: object) -> int:
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
