"""Runs the contracts of the families on methods. `embedtune methods check` and the tests of this package use it.

Each family's contract stands in its `_contract.py`. Miners are not tried: theirs is checked when they first run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from . import _seam as seam
from ._sources import FAMILIES, use_folders
from ._trial import Contract, ContractBroken, Trial, trial_of
from .batching import _contract as batching
from .filtering import _contract as filtering
from .loss import _contract as loss
from .sampling import _contract as sampling
from .synthesis import _contract as synthesis
from .weighting import _contract as weighting

_FAMILIES = {
    "filtering": filtering.contracts,
    "sampling": sampling.contracts,
    "batching": batching.contracts,
    "synthesis": synthesis.contracts,
    "weighting": weighting.contracts,
    "loss": loss.contracts,
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One contract of one method. problem: None where it is kept."""

    family: str
    method: str
    contract: str
    problem: str | None


def check_methods(folder: Path) -> list[Finding]:
    """Every contract of every method in a folder. Raises InputError for a folder without methods."""
    use_folders([folder])
    findings: list[Finding] = []
    for family in FAMILIES:
        for name in seam.names(family):
            try:
                method = seam.describe(family, name)
                if method.source.package is not None:
                    continue
                trial = trial_of(family, name)
                trial.make()
            except InputError as error:
                findings.append(Finding(family=family, method=name, contract="loads and binds", problem=str(error)))
                continue
            findings.append(Finding(family=family, method=name, contract="loads and binds", problem=None))
            findings += [_finding(contract, trial) for contract in contracts_of(trial)]
    return findings


def _finding(contract: Contract, trial: Trial) -> Finding:
    problem = None
    try:
        contract(trial)
    except (ContractBroken, InputError) as broken:
        problem = str(broken)
    except Exception as error:  # the method's own: its author must see which
        problem = f"raised {type(error).__name__}: {error}"
    name = (contract.__doc__ or "").partition("\n")[0].rstrip(".")
    return Finding(family=trial.method.family, method=trial.method.name, contract=name, problem=problem)


def contracts_of(trial: Trial) -> list[Contract]:
    """The contracts that a method must keep, by its family and its SPEC."""
    return _FAMILIES[trial.method.family](trial) if trial.method.family in _FAMILIES else []
