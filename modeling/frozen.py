"""An encoder whose lower blocks stay as they were loaded while its last ones train.

The lower part's output can be computed once and kept: the rest then runs on it alone. No code of transformers is
copied for that. Whatever the encoder does around its blocks (masks, positions, the final norm) it goes on doing by
itself; only its frozen blocks hand on what was kept instead of computing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from .errors import InputError


class Reached(Exception):
    """Ends a forward early; no error."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class CutBlocks(nn.ModuleList):
    """An encoder's blocks under their own names; those before `num_frozen` are skipped while there is a `kept`.

    Attributes:
        num_frozen: how many there are of those.
        kept: (B, S, D) what they hand on.
    """

    num_frozen: int = 0
    kept: Tensor | None = None

    def __iter__(self) -> Iterator[Any]:
        """The blocks, as encoders run through them."""
        blocks: list[Any] = list(self._modules.values())
        if self.kept is not None:
            blocks[: self.num_frozen] = [_Skipped(block, self.kept) for block in blocks[: self.num_frozen]]
        return iter(blocks)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


class _Skipped:
    """In the place of a block that doesn't compute."""

    def __init__(self, block: nn.Module, hidden: Tensor) -> None:
        self.block, self.hidden = block, hidden

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)  # which attention it has, say


@dataclass(frozen=True)
class FrozenBlocks:
    """Where an encoder is cut: all that comes before the block `num_frozen` is frozen, all else is trained.

    Attributes:
        encoder: which is cut.
        list_name: its list of blocks, as `encoder.layers`; empty where nothing is frozen.
        num_frozen: how many of them are frozen.
    """

    encoder: PreTrainedModel
    list_name: str = ""
    num_frozen: int = 0

    def freeze_parameters(self) -> None:
        """Mark the parameters of the frozen part as not trained."""
        for _, module in self._walk():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    def stop_dropout(self) -> None:
        """Put the frozen part into evaluation mode, so that its output never changes."""
        for name, module in self._walk():
            holds_trained_blocks = name == "" or f"{self.list_name}.".startswith(f"{name}.")
            module.training = module.training and holds_trained_blocks

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the frozen part by name."""
        found: dict[str, Tensor] = {}
        for name, module in self._walk():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            found |= {f"{name}.{key}": value for key, value in own}
        return found

    def run(self, inputs: Mapping[str, Any]) -> Tensor:
        """The hidden states (B, S, D) behind the frozen blocks; nothing that follows them is computed."""

        def stop(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            raise Reached(output)

        hook = self.encoder.get_submodule(self.list_name)[self.num_frozen - 1].register_forward_hook(stop)
        try:
            self.encoder(**inputs)
        except Reached as reached:
            hidden = reached.output
        finally:
            hook.remove()
        if not isinstance(hidden, Tensor) or hidden.requires_grad:
            raise InputError(
                f"The blocks of {type(self.encoder).__name__} share parts with each other or hand on more than hidden "
                "states, so that some of them can't be frozen alone; freeze the tower wholly (--freeze), or not at all."
            )
        return hidden

    @contextmanager
    def skipped(self, hidden: Tensor) -> Iterator[None]:
        """Within, frozen blocks compute nothing: they answer with `hidden` (B, S, D), as `run` gave it.

        What comes before them is computed, and dropped by the first of them.
        """
        blocks = self.encoder.get_submodule(self.list_name)
        blocks.kept = hidden
        try:
            yield
        finally:
            blocks.kept = None

    def _walk(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module that was defined before the first trained block, in the order in which transformers did it."""
        for name, module in self.encoder.named_modules() if self.list_name else ():
            if name == f"{self.list_name}.{self.num_frozen}":
                return
            yield name, module


def cut_blocks(encoder: PreTrainedModel, num_trained: int) -> FrozenBlocks:
    """Cut an encoder before its last blocks, which train with what comes after them (final norm, pooler).

    Args:
        encoder: any with embeddings and one list of equal blocks (BERT, DistilBERT, ViT, DINOv2, CLIP, SigLIP, ...).
        num_trained: blocks that go on training.
    """
    name = type(encoder).__name__
    lists = {key: module for key, module in encoder.named_modules() if isinstance(module, nn.ModuleList)}
    # Lists inside of blocks and of stages are no lists of the encoder's blocks.
    outer = {key: blocks for key, blocks in lists.items() if not any(key.startswith(f"{other}.") for other in lists)}
    found = [(key, blocks) for key, blocks in outer.items() if _are_equal(blocks, encoder.config)]
    if len(found) != 1 or not hasattr(encoder, "embeddings"):
        raise InputError(
            f"Got --unfreeze_last {num_trained}, but {name} is not embeddings followed by one list of equal blocks; "
            "freeze the tower wholly (--freeze), or choose an encoder like BERT, ViT or CLIP."
        )
    ((list_name, blocks),) = found
    if num_trained > len(blocks):
        raise InputError(f"Got --unfreeze_last {num_trained}, but {name} has {len(blocks)} blocks; give at most that.")
    cut = CutBlocks(blocks)
    cut.num_frozen = len(blocks) - num_trained
    encoder.set_submodule(list_name, cut)
    return FrozenBlocks(encoder, list_name, cut.num_frozen)


def _are_equal(blocks: nn.ModuleList, config: PreTrainedConfig) -> bool:
    shapes = [[(key, value.shape) for key, value in block.named_parameters()] for block in blocks]
    is_counted = hasattr(config, "num_hidden_layers") and len(blocks) == config.num_hidden_layers
    return is_counted and all(shape == shapes[0] for shape in shapes)
