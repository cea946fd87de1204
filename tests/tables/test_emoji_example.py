"""examples/emoji.py over a small package of the same layout."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from conftest import ROOT, draw_photo

KINDS = (
    ("GRINNING FACE", ["grinning"], "Smileys & Emotion", "face-smiling"),
    ("MAN SHRUGGING", ["man-shrugging"], "People & Body", "person-gesture"),
    ("WOMAN SHRUGGING", ["woman-shrugging"], "People & Body", "person-gesture"),
    ("LIGHT SKIN TONE", ["skin-tone-2"], "Component", "skin-tone"),
)


@pytest.fixture
def emoji(monkeypatch):
    """The script; what `npm pack` would bring holds four emoji, and a file that doesn't belong there."""
    spec = spec_from_file_location("emoji_example", ROOT / "examples" / "emoji.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    content = [
        {"name": name, "short_names": short, "category": category, "subcategory": finer}
        | {"unified": f"1F60{number}", "image": f"1f60{number}.png"}
        | ({"skin_variations": {}} if "SHRUGGING" in name else {})
        for number, (name, short, category, finer) in enumerate(KINDS)
    ]
    picture = io.BytesIO()
    draw_photo(0).save(picture, "PNG")
    files = {f"{module.PICTURES}{each['image']}": picture.getvalue() for each in content}
    files |= {module.CONTENT: json.dumps(content).encode(), "package/script.js": b""}

    def pack(words, *, check):
        assert (words[:3], check) == (["npm", "pack", module.PACKAGE], True)
        with tarfile.open(Path(words[-1], "package.tgz"), "w:gz") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

    monkeypatch.setattr(subprocess, "run", pack)
    monkeypatch.setattr(module, "MIN_ROWS", 2)
    return module


def test_emoji_are_written_as_rows_and_variants_stay_together(emoji, tmp_path):
    emoji.write_rows(tmp_path, emoji.fetch(tmp_path))
    lines = "".join((tmp_path / name).read_text() for name in ("train.jsonl", "test.jsonl")).splitlines()
    rows = {row["text"]: row for row in map(json.loads, filter(None, lines))}
    assert list(rows) == ["grinning face, grinning", "man shrugging", "woman shrugging"]
    assert rows["grinning face, grinning"]["labels"] == []
    assert rows["man shrugging"]["labels"] == ["People & Body", "person", "gesture", "skin tones"]
    assert rows["man shrugging"] == rows["man shrugging"] | {"id": "1f601", "label": "People & Body"}
    assert all((tmp_path / row["image"]).is_file() for row in rows.values())
    assert not (tmp_path / "package" / "script.js").exists()
    assert emoji.is_held_out("man shrugging") == emoji.is_held_out("woman shrugging")
