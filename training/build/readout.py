"""What a tower's settings don't tell of its output: how wide it is, and whether a first token stands for the whole."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modeling.towers import build_encoder, hidden_size, lay_out_tokens, own_options
from training.build.tower_plan import TowerPlan


def measure_output(plan: TowerPlan, **inputs: Tensor) -> TowerPlan:
    """The plan with its `token_width` and `pooling`, where they are others than the settings and CLS.

    Without a pooled output, a map of a picture and tokens that are all patches have none that stands for the whole;
    there the vector is their mean, as the first one would be the upper left corner.

    Args:
        plan: of one tower.
        inputs: of its encoder, for two rows; on the device meta, where nothing is computed.
    """
    with torch.device("meta"), torch.no_grad():
        encoder = build_encoder(plan.encoder_class.__name__, plan.settings()["config"]).eval()
        try:
            output = encoder(**inputs, **own_options(encoder))
            tokens, pooled = lay_out_tokens(output.last_hidden_state), output.get("pooler_output")
        except Exception:  # any: another library's code; the trial of the whole tower tells what the fault is
            return plan
    width = None if tokens.shape[-1] == hidden_size(encoder.config) else tokens.shape[-1]
    is_patches = output.last_hidden_state.dim() == 4
    if "pixel_values" in inputs and isinstance(size := getattr(encoder.config, "patch_size", None), int):
        is_patches |= tokens.shape[1] == (inputs["pixel_values"].shape[-1] // size) ** 2
    is_mean = pooled is None and is_patches and plan.pooling == "default"
    return replace(plan, token_width=width, pooling="mean" if is_mean else plan.pooling)
