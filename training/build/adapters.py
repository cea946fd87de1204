"""Low-rank adapters of the towers (LoRA, Hu et al. 2021), made, written and merged by peft."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.pytorch_utils import Conv1D
from transformers.utils import SAFE_WEIGHTS_NAME

from modeling.classifier import SentimentClassifier
from modeling.errors import InputError, reason_of
from modeling.towers import Tower
from training.flags.model import ALL_LINEAR, AUTO, ModelArguments

if TYPE_CHECKING:
    from peft import LoraConfig


def add_adapters(towers: Mapping[str, Tower], args: ModelArguments, names: Mapping[str, str]) -> None:
    """Give the towers that aren't frozen adapters of --lora_rank; all else of them stays as it was loaded.

    An adapter adds nothing until it has learned, so that the towers' output is still the same.

    Args:
        towers: by "text" and "image".
        names: of the pretrained encoders, which the adapters will be for.

    Raises:
        InputError: --lora_targets are no layers that peft can adapt, or none are found.
    """
    from peft import LoraConfig, inject_adapter_in_model

    adapted = {kind: tower for kind, tower in towers.items() if not tower.is_frozen}
    _check_names(args.lora_targets, adapted)
    for kind, tower in adapted.items():
        targets = _choose_targets(args.lora_targets, tower.encoder, kind)
        config = LoraConfig(
            r=args.lora_rank,
            lora_alpha=args.lora_alpha,
            target_modules=targets,
            base_model_name_or_path=names[kind],
        )
        tower.requires_grad_(False)  # its projection too, of which peft knows nothing
        try:
            inject_adapter_in_model(config, tower.encoder)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"Got --lora_targets {' '.join(args.lora_targets)}, which peft can't adapt in the {kind} tower "
                f"({reason_of(error)}); name linear layers: {', '.join(_linear_layers(tower.encoder))}."
            ) from error


def find_adapters(model: SentimentClassifier) -> dict[str, LoraConfig]:
    """The settings of the adapters by the kind of their tower; empty where there are none."""
    adapted = {kind: tower for kind, tower in model.towers().items() if hasattr(tower.encoder, "peft_config")}
    return {kind: tower.encoder.peft_config["default"] for kind, tower in adapted.items()}


def merge_adapters(folder: Path, model: SentimentClassifier) -> None:
    """Turn the saved model in `folder` into one without adapters that gives the same answers.

    The adapters come to lie in adapter/text and adapter/image of it, as peft loads them onto the pretrained encoders.

    Args:
        model: which was saved there; its own weights, of which ranks may hold shares, aren't touched.
    """
    from peft import PeftModel

    unset_hf_deepspeed_config()  # ZeRO-3 would shard the one that is made here
    with init.no_init_weights():
        whole = SentimentClassifier(copy.deepcopy(model.config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        wrapped = {
            kind: PeftModel(whole.towers()[kind].encoder, copy.deepcopy(config))
            for kind, config in find_adapters(model).items()
        }
    whole.load_state_dict(load_file(folder / SAFE_WEIGHTS_NAME))
    for kind, adapter in wrapped.items():
        adapter.save_pretrained(str(folder / "adapter" / kind), save_embedding_layers=False)
        (folder / "adapter" / kind / "README.md").unlink()  # a form that nobody has filled in
        with torch.no_grad():
            adapter.merge_and_unload()
    whole.save_pretrained(folder)


def _check_names(wanted: list[str], towers: Mapping[str, Tower]) -> None:
    """`InputError` for a name of --lora_targets that no tower has."""
    if wanted in ([AUTO], [ALL_LINEAR]):
        return
    for name in wanted:
        if not any(_is_there(name, tower.encoder) for tower in towers.values()):
            layers = "; ".join(f"{kind}: {', '.join(_linear_layers(each.encoder))}" for kind, each in towers.items())
            raise InputError(f"Got --lora_targets {name}, which is in no adapted tower; there are {layers}.")


def _choose_targets(wanted: list[str], encoder: PreTrainedModel, kind: str) -> list[str] | str:
    """Names of layers to adapt: those that peft knows for the family, else the linear layers of its attentions."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    if wanted == [ALL_LINEAR]:
        return ALL_LINEAR
    if wanted != [AUTO]:
        targets = [name for name in wanted if _is_there(name, encoder)]
    elif encoder.config.model_type in KNOWN:
        return KNOWN[encoder.config.model_type]
    else:
        attentions = [module for module in encoder.modules() if "Attention" in type(module).__name__]
        targets = sorted({name for module in attentions for name in _linear_layers(module, inner=False)})
    if not targets:
        there = ", ".join(_linear_layers(encoder)) or "it has none"
        raise InputError(
            f"Got --lora_targets {' '.join(wanted)}, by which nothing is found in the {kind} tower "
            f"({type(encoder).__name__}); name some of its linear layers ({there}), or leave it out: --freeze {kind}."
        )
    return targets


def _is_there(name: str, encoder: nn.Module) -> bool:
    """Whether peft finds a layer by this name: the whole path, or its end."""
    return any(f".{path}".endswith(f".{name}") for path, _ in encoder.named_modules())


def _linear_layers(module: nn.Module, *, inner: bool = True) -> list[str]:
    """The last part of the names of linear layers, those inside of its parts too or its own alone."""
    found = module.named_modules() if inner else module.named_children()
    return sorted({name.rpartition(".")[2] for name, each in found if isinstance(each, nn.Linear | Conv1D)})
