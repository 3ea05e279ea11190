"""Training mode, with dropout as the recipe has it."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def switch_off_dropout(model: nn.Module) -> None:
    """Sets every dropout rate of the model to 0, but for an adapter's own (`model.lora.dropout`).

    Fused attention kernels run only without attention dropout; on a CPU that alone is about twice as fast. Rates are
    set rather than the model put in evaluation mode, because gradient checkpointing works in training mode only. The
    saved configuration keeps the model's own rates.
    """
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for attribute, value in list(vars(module).items()):
            if attribute.endswith("dropout") and isinstance(value, float):
                setattr(module, attribute, 0.0)


def training_mode(*models: nn.Module) -> None:
    """Training mode; batch-norm stays in evaluation mode, or a batch's statistics would depend on how it is chunked."""
    for model in models:
        model.train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
