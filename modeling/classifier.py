"""The classifier: two towers and a fusion head, as a transformers model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .batch import Features, Inputs, SentimentOutput, batch_loss, read_logits
from .choices import FUSIONS, frozen_modalities
from .configuration import SentimentConfig
from .errors import InputError
from .fusion import FUSION_HEADS, TransformerLayer
from .loading import bounded_build, describe_differences, without_reports
from .towers import Tower


class SentimentClassifier(PreTrainedModel):
    """Classifies pairs of text and picture; only the parts that the configured head uses are built.

    Shapes: B batch, L text tokens, H picture side, S sequence, D width, C classes.
    """

    config_class = SentimentConfig
    config: SentimentConfig
    base_model_prefix = "classifier"
    main_input_name = "input_ids"  # whose tokens --include_num_input_tokens_seen counts
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: SentimentConfig) -> None:
        super().__init__(config)
        self._build(config)
        towers = self.towers()
        for kind in frozen_modalities(config.freeze, config.unfreeze_last):
            if kind in towers:
                towers[kind].freeze(config.unfreeze_last)
        # The modules that FSDP shards as one: the towers' and ours, without those that aren't built.
        named = {TransformerLayer.__name__}.union(*(tower.encoder._no_split_modules for tower in towers.values()))
        self._no_split_modules = named & {type(module).__name__ for module in self.modules()}
        self.post_init()

    @bounded_build("This model")
    def _build(self, config: SentimentConfig) -> None:
        head_class, modalities = FUSION_HEADS[config.fusion], FUSIONS[config.fusion]
        self.text_tower = Tower(config.text_tower or {}) if "text" in modalities else None
        self.image_tower = Tower(config.vision_tower or {}) if "image" in modalities else None
        towers = self.towers()
        width = config.align_dim or next(iter(towers.values())).width
        for kind, tower in towers.items():
            # A composed dual encoder always has layers that bring the vectors to the width of the fusion.
            setattr(self, f"{kind}_align", _map_width(tower.width, width, always=config.align_dim is not None))
        for kind in head_class.reads_tokens:
            setattr(self, f"{kind}_token_align", _map_width(towers[kind].token_width, width))
        for kind in towers:
            # What stands for a modality that isn't there (or is dropped in training), learned like any weight.
            setattr(self, f"missing_{kind}", nn.Parameter(torch.zeros(width)))
        if config.picture_pooling == "attention" and "image" in towers:
            self.picture_query = nn.Parameter(torch.zeros(towers["image"].width))
        self.fusion = head_class(width, config.num_labels, dropout=config.fusion_dropout)

    def should_save_on_this_rank(self, is_main_process: bool) -> bool:
        """As the caller says: transformers' own lets rank 0 alone write, also where each machine needs a copy."""
        return is_main_process

    def towers(self) -> dict[str, Tower]:
        """The towers that were built, under "text" and "image"."""
        towers = {"text": self.text_tower, "image": self.image_tower}
        return {kind: tower for kind, tower in towers.items() if tower is not None}

    def forward(
        self, *, labels: Tensor | None = None, single_modalities: bool = False, **inputs: Tensor
    ) -> SentimentOutput:
        """Logits, and the mean loss of the task where labels are given (see `tasks.row_losses`).

        Args:
            labels: (B,) int64, -100 is ignored; (B, C) or (B,) float32, nan is ignored.
            single_modalities: also judge the rows with the picture missing and with the text missing. No tower runs
                again. For heads with both modalities.
            inputs: of B rows, see `Inputs`.

        Raises:
            TypeError: pixel_values aren't uint8.
        """
        text, image = self.encode("text", inputs), self.encode("image", inputs)
        logits = self.fuse(text, image)
        text_logits = image_logits = None
        if single_modalities:
            absent = torch.zeros_like(inputs["text_present"])
            text_logits = self.fuse(text, self.drop("image", image, absent))
            image_logits = self.fuse(self.drop("text", text, absent), image)
        return SentimentOutput(
            loss=None if labels is None else batch_loss(self.config, logits.float(), labels),
            logits=logits,
            text_logits=text_logits,
            image_logits=image_logits,
            text_embeds=None if text is None else text.vector,
            image_embeds=None if image is None else image.vector,
        )

    def encode(self, kind: str, inputs: Inputs) -> Features | None:
        """Features, at the fusion width, of the "text" or "image" of B rows; None where the head doesn't read it."""
        if kind not in self.towers():
            return None
        vector, tokens = (self._cached(f"{kind}_{part}", inputs) for part in ("vector", "tokens"))
        if vector is None:
            vector, tokens = self.run_tower(kind, inputs)
        return self.align(kind, vector, tokens, inputs)

    def run_tower(self, kind: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What the tower of the "text" or "image" gives of B rows: the vector (B, D), the tokens (B, S, D).

        Of K pictures per row (B K, D) and (B K, S, D), which `align` pools.
        """
        tower, hidden = self.towers()[kind], self._cached(f"{kind}_hidden", inputs)
        if kind == "text":
            return tower(input_ids=inputs["input_ids"], attention_mask=inputs.get("attention_mask"), hidden=hidden)
        if hidden is None:
            return tower(pixel_values=self.normalize(inputs["pixel_values"].flatten(0, -4)))
        # Pixels without memory: the encoder wants to know the picture's size and nothing else.
        size = (self.config.picture or {})["image_size"]
        return tower(pixel_values=hidden.new_zeros(()).expand(len(hidden), 3, size, size), hidden=hidden)

    def align(self, kind: str, vector: Tensor, tokens: Tensor | None, inputs: Inputs) -> Features | None:
        """Features, at the fusion width, of what the tower gave; `inputs` says which rows and tokens are real."""
        shown = inputs.get("picture_mask") if kind == "image" else None
        if kind == "image":
            vector, tokens = self._pool_pictures(vector, tokens, shown)
        features = Features(getattr(self, f"{kind}_align")(vector))
        if kind in self.fusion.reads_tokens and tokens is not None:
            real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            mask = inputs["attention_mask"].bool() if kind == "text" else real
            if shown is not None:
                mask = shown.repeat_interleave(tokens.shape[1] // shown.shape[1], dim=1)
            aligned = getattr(self, f"{kind}_token_align")(tokens)
            sequence = torch.cat([features.vector[:, None], aligned], dim=1)  # the vector leads the tokens
            mask = torch.cat([real[:, :1], mask], dim=1)
            features = Features(features.vector, sequence, mask, shown is not None)
        return self.drop(kind, features, inputs[f"{kind}_present"])

    def drop(self, kind: str, features: Features | None, present: Tensor) -> Features | None:
        """Put the learned vector of a missing modality in every place of the rows where `present` (B,) is False."""
        if features is None:
            return None
        missing = getattr(self, f"missing_{kind}").to(features.vector.dtype)
        vector = torch.where(present[:, None], features.vector, missing)
        tokens = None if features.tokens is None else torch.where(present[:, None, None], features.tokens, missing)
        return Features(vector, tokens, features.mask, features.has_several)

    def _pool_pictures(
        self, vector: Tensor, tokens: Tensor | None, shown: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Vectors (B K, D) and tokens (B K, S, D) of K pictures per row -> (B, D), (B, K S, D).

        The vectors are weighted by the softmax of their products with a learned query (Ilse et al. 2018,
        "Attention-based deep multiple instance learning", without its hidden layer); without one all weigh the same.

        Args:
            shown: (B, K) bool, True at the real ones; None: K is 1.
        """
        has_query = self.config.picture_pooling == "attention"
        if shown is None and not has_query:
            return vector, tokens
        # The query is read also of one picture: ranks would wait for its gradient.
        shown = torch.ones_like(vector[:, :1], dtype=torch.bool) if shown is None else shown
        vectors = vector.unflatten(0, shown.shape)
        scores = vectors @ self.picture_query.to(vector.dtype) / vector.shape[-1] ** 0.5 if has_query else shown * 0.0
        weights = scores.float().masked_fill(~shown, -torch.inf).softmax(dim=1)
        pooled = (weights[..., None] * vectors).sum(dim=1).to(vector.dtype)
        return pooled, None if tokens is None else tokens.unflatten(0, shown.shape).flatten(1, 2)

    def fuse(self, text: Features | None, image: Features | None) -> Tensor:
        """Features of B rows -> logits (B, C)."""
        return self.fusion(text, image)

    def probabilities(self, logits: Tensor) -> Tensor:
        """`tasks.read_logits` in float32."""
        return read_logits(self.config, logits.float())

    def normalize(self, pixel_values: Tensor) -> Tensor:
        """uint8 pixels (B, 3, H, H) -> (x / 255 - mean) / std in the tower's dtype.

        Raises:
            TypeError: the pixels aren't uint8: rescaled twice they would all but vanish, without an error anywhere.
        """
        if pixel_values.dtype != torch.uint8:
            raise TypeError(
                f"pixel_values are {pixel_values.dtype}; the model rescales and normalises by itself and takes only "
                "uint8 (0..255). Pass the decoded picture, not the output of an image processor."
            )
        mean, std = (
            # Filled on the device: a copy from the host would wait for all that is queued there.
            torch.stack([torch.full((1, 1), value, device=pixel_values.device) for value in values])
            for values in (self.config.image_mean, self.config.image_std)
        )
        return ((pixel_values / 255.0 - mean) / std).to(self.towers()["image"].encoder.dtype)

    def get_input_embeddings(self) -> None:
        """None: FSDP asks every model, to shard them apart from its layers; ours are among `_layer_classes`."""

    @classmethod
    def from_pretrained(cls, name_or_path: str, *args: Any, **kwargs: Any) -> SentimentClassifier:
        """As in transformers, but a checkpoint must fit the model exactly.

        Raises:
            InputError: keys or sizes differ (it says which), or the weights file is damaged.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        # The towers choose their own attention; one that a file names may be a compiled kernel of the hub.
        kwargs = {"dtype": torch.float32, "attn_implementation": "eager", "trust_remote_code": False} | kwargs
        try:
            with without_reports():
                model, info = super().from_pretrained(
                    name_or_path, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
                )
        except SafetensorError as error:
            raise InputError(
                f"The weights in {name_or_path} are damaged ({error}); copy or train them again."
            ) from error
        differences = describe_differences(info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
        if differences:
            raise InputError(f"The weights in {name_or_path} don't fit its model. {differences}")
        for tower in model.towers().values():  # transformers 5 puts new parameters in the place of the built ones
            tower.freeze_parameters()
        return (model, info) if wants_info else model  # type: ignore[return-value]  # a pair where it is asked for

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """As in transformers, under the keys of `state_dict`.

        By default transformers 5 renames the towers' keys to those of older checkpoints (DINOv2's, for one), which
        Trainer, loading its best or latest checkpoint by `load_state_dict`, doesn't find again.
        """
        super().save_pretrained(save_directory, **(kwargs | {"save_original_format": False}))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SentimentClassifier):
            for kind in module.towers():
                init.normal_(getattr(module, f"missing_{kind}"), mean=0.0, std=self.config.initializer_range)
            if hasattr(module, "picture_query"):
                init.zeros_(module.picture_query)  # the mean at first

    def _cached(self, name: str, inputs: Inputs) -> Tensor | None:
        """What was computed before, in the type of the weights: DeepSpeed's half precision takes no other."""
        return inputs[name].to(next(self.fusion.parameters()).dtype) if name in inputs else None


def _map_width(source: int, width: int, *, always: bool = False) -> nn.Module:
    return nn.Linear(source, width, bias=False) if always or source != width else nn.Identity()
