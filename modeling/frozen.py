"""An encoder whose lower blocks stay as they were loaded while its last ones train.

The lower part's output can be computed once and kept: the rest then runs on it alone. No code of transformers is
copied or bent for that. Whatever the encoder does around its blocks (masks, positions, the final norm) it goes on
doing by itself; only its embeddings and its frozen blocks answer with what was kept instead of computing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from .errors import InputError


class Reached(Exception):
    """Ends a forward early; no error."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@dataclass
class _Kept:
    """What embeddings and frozen blocks answer with; None: they compute."""

    hidden: Tensor | None = None


def _answer(kept: _Kept, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return forward(*args, **kwargs) if kept.hidden is None else kept.hidden


@dataclass(frozen=True)
class FrozenBlocks:
    """Where an encoder is cut: all that comes before the block `num_frozen` is frozen, all else is trained.

    Attributes:
        list_name: the encoder's list of blocks, as `encoder.layers`.
        num_frozen: how many of them are frozen.
    """

    list_name: str
    num_frozen: int
    _kept: _Kept = field(default_factory=_Kept)

    def make_skippable(self, encoder: PreTrainedModel) -> None:
        """Let embeddings and frozen blocks ask, before they compute, whether there is something kept."""
        for module in (encoder.embeddings, *self._frozen_blocks(encoder)):
            # Set once: torch.compile can't follow a forward that is changed within another.
            module.forward = partial(_answer, self._kept, module.forward)

    def take_gradients(self, encoder: PreTrainedModel) -> None:
        """Mark the parameters of the frozen part as not trained."""
        for _, module in self._walk(encoder):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    def stop_dropout(self, encoder: PreTrainedModel) -> None:
        """Put the frozen part into evaluation mode, so that its output never changes."""
        for name, module in self._walk(encoder):
            if not self._holds_trained_blocks(name):
                module.training = False

    def weights(self, encoder: PreTrainedModel) -> dict[str, Tensor]:
        """Parameters and buffers of the frozen part by name."""
        found = {}
        for name, module in self._walk(encoder):
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            found |= {f"{name}.{key}": value for key, value in own}
        return found

    def run(self, encoder: PreTrainedModel, inputs: Mapping[str, Any]) -> Tensor:
        """The hidden states (B, S, D) behind the frozen blocks; nothing that follows them is computed.

        Raises:
            InputError: the blocks hand on more than hidden states, or share parts with those that train.
        """

        def stop(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            raise Reached(output)

        hook = self._frozen_blocks(encoder)[-1].register_forward_hook(stop)
        try:
            encoder(**inputs)
        except Reached as reached:
            hidden = reached.output
        finally:
            hook.remove()
        if not isinstance(hidden, Tensor) or hidden.requires_grad:
            raise InputError(
                f"The blocks of {type(encoder).__name__} share parts with each other or hand on more than hidden "
                "states, so that some of them can't be frozen alone; freeze the tower wholly (--freeze), or not at all."
            )
        return hidden

    @contextmanager
    def skipped(self, hidden: Tensor) -> Iterator[None]:
        """Within, embeddings and frozen blocks compute nothing: they answer with `hidden` (B, S, D), as `run` gave it.

        A norm between embeddings and blocks (CLIP's pictures) is computed, and its result dropped by the first block.
        """
        self._kept.hidden = hidden
        try:
            yield
        finally:
            self._kept.hidden = None

    def _frozen_blocks(self, encoder: PreTrainedModel) -> list[nn.Module]:
        return list(encoder.get_submodule(self.list_name))[: self.num_frozen]

    def _walk(self, encoder: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
        """Every module that was defined before the first trained block, in the order in which transformers did it."""
        for name, module in encoder.named_modules():
            if name == f"{self.list_name}.{self.num_frozen}":
                return
            yield name, module

    def _holds_trained_blocks(self, name: str) -> bool:
        return name == "" or f"{self.list_name}.".startswith(f"{name}.")


def cut_blocks(encoder: PreTrainedModel, num_trained: int) -> FrozenBlocks:
    """Cut an encoder before its last blocks, which train with what comes after them (final norm, pooler).

    Args:
        encoder: any with embeddings and one list of equal blocks (BERT, DistilBERT, ViT, DINOv2, CLIP, SigLIP, ...).
        num_trained: blocks that go on training.

    Raises:
        InputError: the encoder is built otherwise, or has fewer blocks.
    """
    name = type(encoder).__name__
    lists = [key for key, module in encoder.named_modules() if isinstance(module, nn.ModuleList)]
    # Lists inside of blocks and of stages are no lists of the encoder's blocks.
    outer = [key for key in lists if not any(key.startswith(f"{other}.") for other in lists)]
    found = [key for key in outer if _holds_equal_blocks(encoder.get_submodule(key), encoder.config)]
    if len(found) != 1 or not hasattr(encoder, "embeddings"):
        raise InputError(
            f"Got --unfreeze_last {num_trained}, but {name} is not embeddings followed by one list of equal blocks; "
            "freeze the tower wholly (--freeze), or choose an encoder like BERT, ViT or CLIP."
        )
    num_blocks = len(encoder.get_submodule(found[0]))
    if num_trained > num_blocks:
        raise InputError(f"Got --unfreeze_last {num_trained}, but {name} has {num_blocks} blocks; give at most that.")
    blocks = FrozenBlocks(found[0], num_blocks - num_trained)
    blocks.make_skippable(encoder)
    return blocks


def _holds_equal_blocks(blocks: nn.ModuleList, config: Any) -> bool:
    shapes = [[(key, value.shape) for key, value in block.named_parameters()] for block in blocks]
    is_counted = hasattr(config, "num_hidden_layers") and len(blocks) == config.num_hidden_layers
    return is_counted and all(shape == shapes[0] for shape in shapes)
