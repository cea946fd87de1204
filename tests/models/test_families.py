"""Every family that transformers can build small works as a tower, or is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import FAMILIES, flags_for, save_family, small_config, train_and_save
from tiny import IMAGE_SIZE

import train
from modeling.errors import InputError

WORKING = (
    "albert bert deberta-v2 distilbert mt5 xlnet beit dinov2 dinov3_vit focalnet resnet swin vit chinese_clip clip "
    "siglip altclip cvt hiera mobilenet_v2 mobilevit swiftformer"
)
REFUSED = {
    "bart": "no text encoder alone",
    "bros": "BrosModel (bros) can't serve as an encoder of texts: You have to specify bbox",
    "funnel": "FunnelModel (funnel) can't serve as an encoder of texts of 4 tokens",
    "gpt2": "gives texts that begin alike one vector",
    "groupvit": "choose a model like CLIP or SigLIP",
    "hgnet_v2": "HGNetV2",
    "owlvit": "choose a model like CLIP or SigLIP",
    "reformer": "ReformerModel (reformer) can't serve as an encoder of texts",
    "siglip2": "'pixel_attention_mask' and 'spatial_shapes'",
    "textnet": "TextNetModel (textnet) can't serve as an encoder of pictures",
    "vit_mae": "ViTMAEModel gives one picture another vector each time",
}


def judge(family: str, folder: Path, **flags: object) -> str | None:
    """The sentence with which a family is refused; None: it was trained, saved and loaded."""
    config = small_config(family)
    model_class = save_family(config, folder / "model")
    try:
        train_and_save(flags_for(config, model_class, folder / "model") | flags, folder / "run")
    except InputError as refusal:
        return str(refusal)
    return None


def check_sentence(sentence: str | None) -> None:
    assert sentence is None or ("\n" not in sentence and 20 < len(sentence) < 600)


@pytest.mark.parametrize("family", WORKING.split())
def test_common_family_works(family, tmp_path):
    assert judge(family, tmp_path) is None


@pytest.mark.parametrize(("family", "reason"), REFUSED.items())
def test_family_that_cannot_serve_is_refused_with_the_reason(family, reason, tmp_path):
    sentence = judge(family, tmp_path)
    assert reason in sentence
    check_sentence(sentence)
    if family == "gpt2":  # which reads from left to right
        assert judge(family, tmp_path, text_pooling="mean") is None


@pytest.mark.parametrize("family", ["poolformer", "segformer", "ijepa"])
def test_pictures_without_a_token_for_the_whole_are_read_by_the_mean_of_their_patches(family, tmp_path):
    save_family(small_config(family), tmp_path / "model")
    flags = {"model": "vilbert", "fusion": "image_only", "vision_name": str(tmp_path / "model")}
    tower = train_and_save(flags, tmp_path / "run").image_tower
    vector, tokens = tower(pixel_values=torch.rand(2, 3, 2 * IMAGE_SIZE, 2 * IMAGE_SIZE))
    assert tokens.shape[1] > 1
    torch.testing.assert_close(vector, tokens.mean(1))


@pytest.mark.parametrize(
    ("family", "flag", "message"),
    [
        ("t5", "vision_name", "no vision encoder"),
        ("deberta-v2", "vision_name", "can't serve as an encoder of pictures"),
        ("t5", "clip_name", "not a dual"),
        ("vit", "text_name", "can't serve as an encoder of texts"),
        ("clip", "text_name", "is a dual encoder"),
    ],
)
def test_family_in_the_place_of_another_is_refused(family, flag, message, tmp_path):
    save_family(small_config(family), tmp_path / "model")
    fusion = {"clip_name": "attn", "vision_name": "image_only", "text_name": "text_only"}[flag]
    model = "clip" if flag == "clip_name" else "vilbert"
    with pytest.raises(InputError, match=message):
        train_and_save({"model": model, "fusion": fusion, flag: str(tmp_path / "model")}, tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "picture", "flags"),
    [
        ("t5", "swin", ["--freeze", "none"]),
        ("xlnet", "focalnet", ["--freeze", "both", "--cache_features", "true"]),
        ("longformer", "convnext", ["--freeze", "none"]),
    ],
)
def test_families_train_on_rows(text, picture, flags, sample, tmp_path):
    for family in (text, picture):
        save_family(small_config(family), tmp_path / family)
    words = ["--data_dir", str(sample), "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "run")]
    words += ["--model", "vilbert", "--fusion", "co_attn", "--max_steps", "2", "--report_to", "none"]
    words += ["--text_name", str(tmp_path / text), "--vision_name", str(tmp_path / picture)]
    train.main([*words, "--preprocessing_num_workers", "1", *flags])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["val"]["loss"] < 10


def _tiny(family: str, folder: Path) -> bool:
    """Whether transformers builds the family at the settings that are tiny for most."""
    try:
        save_family(small_config(family), folder)
    except Exception:  # its settings contradict each other, it has no default size, or a package is missing
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_works_or_is_refused_in_one_sentence(family, tmp_path):
    if not _tiny(family, tmp_path / "tiny"):
        pytest.skip(f"{family} isn't built at these settings")
    check_sentence(judge(family, tmp_path))
