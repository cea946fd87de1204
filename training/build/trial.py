"""Trying a tower once on a tiny input: whether it is an encoder that can be trained here, whatever its family.

Families differ in what their forward asks for, what it gives, and how many tokens it can count. No list of names knows
that; one run tells.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers import initialization as init

from modeling.errors import InputError, reason_of
from modeling.frozen import Reached
from modeling.text import tokenize_batch
from modeling.towers import Tower
from training.build.tower_plan import TowerPlan

TEXT_REMEDY = "choose an encoder like BERT, RoBERTa, DeBERTa, T5, or the text tower of a CLIP"
PICTURE_REMEDY = "choose an encoder like ViT, DINOv2, Swin, ResNet, ConvNeXt, or the picture tower of a CLIP"


def try_pictures(tower: Tower, plan: TowerPlan, image_size: int) -> None:
    """`InputError` for a picture tower that can't read pictures, or gives no vector and tokens of its widths.

    The tower has no memory for its weights (device meta); its plan is for those that need numbers to run.
    """
    pixels = torch.zeros(2, 3, image_size, image_size)
    try:
        _run(tower, pixel_values=pixels.to("meta"))
    except Exception:  # any: another library's code; the next run tells what the fault is
        with _refusing(tower, "pictures", PICTURE_REMEDY):
            _run(build_empty(plan), pixel_values=pixels)


def try_texts(plan: TowerPlan, tokenizer: PreTrainedTokenizerBase | None, *, limit: int, wanted: int) -> int:
    """Run a text tower on texts of two lengths; returns how many tokens it can count, as far as it was tried.

    Args:
        tokenizer: None where it is trained later.
        limit: tokens that tower and tokenizer claim to take.
        wanted: tokens that will do, where they are under the limit.

    Raises:
        InputError: it can't read them, or gives no vector and tokens of its widths.
    """
    if tokenizer is None:
        text, pad_token_id = list(range(5, 13))[:limit], getattr(plan.config, "pad_token_id", None) or 0
    else:
        text, pad_token_id = _example(tokenizer, limit), tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        tower = build_empty(plan)
        for length in (len(text), 4):  # Funnel fails on short ones
            with _refusing(tower, "texts" if length == len(text) else f"texts of {length} tokens", TEXT_REMEDY):
                _run(tower, **_batch([text[:length], text[:2]], pad_token_id))
    token = text[len(text) // 2]  # a real one: many families don't count padding
    if (wanted <= limit and _embeds(tower, token, wanted)) or _embeds(tower, token, limit):
        return limit
    # Found by trying, as each family has a way of its own.
    known = min(len(text), limit)
    return known + bisect_left(range(known + 1, limit), True, key=lambda length: not _embeds(tower, token, length))


def check_reading(tower: Tower, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """`InputError` where the vector of a text depends on its first token alone, or isn't made of numbers.

    Such an encoder reads from left to right, for one; or its weights are damaged.
    """
    text = _example(tokenizer, max_length)
    other = [*text]
    middle = len(text) // 2
    other[middle] = next(token for token in (*text, 0, 1) if token != text[middle])
    vectors = _evaluate(tower, **_batch([text, other], tokenizer.pad_token_id))
    name = type(tower.encoder).__name__
    if not vectors.isfinite().all():
        raise InputError(f"{name} gives vectors that aren't finite: its weights or settings are wrong.")
    if torch.allclose(vectors[0], vectors[1], rtol=1e-5, atol=1e-7):
        raise InputError(
            f"{name} gives texts that begin alike one vector, that of the first token, which sees no other: take the "
            f"mean of all tokens with --text_pooling mean, or {TEXT_REMEDY}."
        )


def check_seeing(tower: Tower, image_size: int) -> None:
    """`InputError` where one picture has another vector each time, as with patches that are left out at random."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 3, image_size, image_size, generator=generator)
    if picture.is_meta:
        return  # laid out for its sizes alone: nothing to compare
    with torch.random.fork_rng(devices=[]):
        first, second = (_evaluate(tower, pixel_values=picture) for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise InputError(
            f"{type(tower.encoder).__name__} gives one picture another vector each time, as encoders do that leave out "
            f"patches at random in their pretraining: {PICTURE_REMEDY}."
        )


def build_empty(plan: TowerPlan) -> Tower:
    """The tower on the CPU with weights that hold anything: what isn't written takes no memory and no time."""
    with init.no_init_weights():
        return Tower(plan.settings())


def _evaluate(tower: Tower, **inputs: Tensor) -> Tensor:
    """The vectors that the tower gives in evaluation mode."""
    was_training = tower.training
    with torch.no_grad():
        vectors, _ = tower.eval()(**inputs)
    tower.train(was_training)
    return vectors


def _run(tower: Tower, **inputs: Tensor) -> None:
    """Run the tower as it will be used; `ValueError` for outputs of other shapes than its settings say."""
    first = next(iter(inputs.values()))
    with torch.no_grad():
        vector, tokens = tower.train()(**inputs)  # dropout's settings may be wrong too
    tower.eval()
    if vector.shape != (len(first), tower.width):
        raise ValueError(f"it gives vectors of the shape {tuple(vector.shape)}, not {(len(first), tower.width)}")
    length = len(first[0]) if "input_ids" in inputs else tokens.shape[1]
    if tokens.shape != (len(first), length, tower.token_width):
        raise ValueError(
            f"it gives tokens of the shape {tuple(tokens.shape)} for inputs of {tuple(first.shape)}, but its settings "
            f"say a width of {tower.token_width}"
        )


def _example(tokenizer: PreTrainedTokenizerBase, limit: int) -> list[int]:
    """Up to eight tokens of a text."""
    return tokenize_batch(["It was a fine day."], tokenizer, min(limit, 8))["input_ids"][0]


def _batch(texts: Sequence[Sequence[int]], pad_token_id: int) -> dict[str, Tensor]:
    length = max(map(len, texts))
    return {
        "input_ids": torch.tensor([[*text, *[pad_token_id] * (length - len(text))] for text in texts]),
        "attention_mask": torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts]),
    }


def _embeds(tower: Tower, token: int, length: int) -> bool:
    """Whether the tower gets as far as its first block with `token` `length` times."""

    def stop(block: nn.Module, args: tuple[object, ...]) -> None:
        raise Reached(None)

    lists = [module for module in tower.encoder.modules() if isinstance(module, nn.ModuleList) and len(module)]
    hooks = [blocks[0].register_forward_pre_hook(stop) for blocks in lists]
    try:
        with torch.no_grad():
            tower(**_batch([[token] * length], token))
    except Reached:
        return True
    except Exception:  # any: that it fails is the answer
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return True


@contextmanager
def _refusing(tower: Tower, what: str, remedy: str) -> Iterator[None]:
    """Around a run: any exception of another library's code becomes an `InputError`."""
    try:
        yield
    except Exception as error:
        encoder = tower.encoder
        way, other = (" with --vision_feature_layer", "leave it out, or ") if tower.feature_layers else ("", "")
        raise InputError(
            f"{type(encoder).__name__} ({encoder.config.model_type}) can't serve as an encoder of {what}{way}: "
            f"{reason_of(error).rstrip('.')}; {other}{remedy}."
        ) from error
