"""Draws a small sample data set in the project's format: `python -m data_utils.sample --output_dir data/sample`.

The label of a pair is made as the real data's was: a mood for the text and a mood for the picture, merged. It is
what both say; where one side is neutral, it is the other side's; so it is neutral only where both are. Three tenths
of the pairs are decided by the text, three by the picture, two by both alike and two are neutral: a perfect reader of
one side alone gets 70 %, of both sides 100 %.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from data_utils.console.command_line import FlagParser, flag
from data_utils.console.screen import outlive_readers, show
from data_utils.system.files import list_own, refuse_folder_links, write_bytes, write_csv, write_text
from data_utils.system.refusals import report_error, tell_refusals
from modeling.errors import InputError

# (text mood, picture mood) of every twenty pairs.
MOODS_OF_TWENTY = (
    [("positive", "neutral"), ("negative", "neutral"), ("neutral", "positive"), ("neutral", "negative")] * 3
    + [("positive", "positive"), ("negative", "negative")] * 2
    + [("neutral", "neutral")] * 4
)

OPENERS = ("", "", "Today:", "Just now,", "So,", "RT {name}:", "{name}", "Monday again:", "At last:", "Well,", "News:")
SUBJECTS = (
    "the bus to {place}", "the match in {place}", "the market at {place}", "our train", "my garden", "the new phone",
    "this concert", "the queue at {place}", "my breakfast", "the class", "the road to {place}", "our neighbour's dog",
    "the bakery in {place}", "the meeting", "this old bike", "the film",
)  # fmt: skip
PLACES = ("Ashford", "Brookton", "Calder Bay", "Dunmere", "Elmstead", "Fairholt", "Glenrow", "Harwick")
PHRASES = {
    "positive": (
        "is wonderful", "makes me so happy", "was a joy", "is the best", "is lovely", "was fantastic", "is delightful",
        "made my day", "is amazing", "was great fun", "is just perfect", "was a sweet surprise",
    ),
    "neutral": (
        "starts at nine", "is on the left", "has two parts", "was moved to Tuesday", "is listed here", "is open now",
        "was seen by the door", "comes in grey", "is number six", "takes ten minutes", "has a new sign", "is as usual",
    ),
    "negative": (
        "is awful", "makes me so sad", "was a disaster", "is the worst", "is horrible", "was terrible", "is dreadful",
        "ruined my day", "is disgusting", "was a sorry mess", "is simply broken", "was a bitter letdown",
    ),
}  # fmt: skip
TAILS = (
    "",
    "",
    " #photo",
    " #daily",
    " {url}",
    " {name}",
    " #town {url}",
    " right now",
    " this week",
    " (see picture)",
)
MOOD_TAGS = {
    "positive": (" #happy", " #blessed", " #love"),
    "neutral": (" #info", " #note", " #update"),
    "negative": (" #angry", " #fail", " #upset"),
}
NAMES = ("anna", "bertram", "cleo_k", "dora77", "emil", "fay", "gus_at_home", "hana")

# Colours as (lowest, highest) red, green and blue: upper half of the picture, then lower half.
PALETTES = {
    "positive": (((110, 190, 225), (200, 230, 255)), ((120, 190, 60), (250, 225, 120))),
    "neutral": (((115, 112, 108), (155, 150, 145)), ((95, 90, 84), (130, 124, 116))),
    "negative": (((20, 22, 38), (70, 68, 95)), ((25, 25, 25), (65, 60, 58))),
}


@dataclass(frozen=True)
class SampleSettings:
    """What shapes a sample; the same settings give the same bytes (with the same version of Pillow)."""

    num_pairs: int = flag(600, "Labelled pairs (train.txt).")
    num_test: int = flag(60, "Unlabelled pairs (test_without_label.txt).")
    seed: int = flag(0, "The same seed gives the same files.")

    def __post_init__(self) -> None:
        for name, least in (("num_pairs", 20), ("num_test", 1)):  # so that each way of labelling is there
            if getattr(self, name) < least:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be {least} or more.")


def merge_moods(text_mood: str, picture_mood: str) -> str:
    """Label of a pair from the moods of its sides, which agree unless one of them is neutral."""
    return picture_mood if text_mood == "neutral" else text_mood


def plan_moods(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """`count` shuffled (text mood, picture mood), each whole twenty with the same shares."""
    moods = [MOODS_OF_TWENTY[index % len(MOODS_OF_TWENTY)] for index in range(count)]
    rng.shuffle(moods)
    return moods


def write_tweet(mood: str, rng: random.Random) -> str:
    """One line of made-up English whose only hint at the mood are its phrase and, sometimes, its hashtag."""
    tail = rng.choice(MOOD_TAGS[mood]) if rng.random() < 0.4 else rng.choice(TAILS)
    clause = f"{rng.choice(OPENERS)} {rng.choice(SUBJECTS)} {rng.choice(PHRASES[mood])}"
    template = clause + rng.choice((".", "!", "")) + tail
    address = "https://example.org/" + "".join(rng.choices("abcdefghkmnpqrstuvwxyz23456789", k=6))
    return template.format(name=f"@{rng.choice(NAMES)}", place=rng.choice(PLACES), url=address).strip()


def draw_picture(mood: str, rng: random.Random) -> Image.Image:
    """A face or a scene (about 160 x 120 pixels, RGB) that shows the mood; size, place and colours vary."""
    width, height = rng.randint(144, 176), rng.randint(108, 132)
    upper, lower = (tuple(rng.randint(*each) for each in zip(*bounds, strict=True)) for bounds in PALETTES[mood])
    picture = Image.new("RGB", (width, height), upper)
    canvas = ImageDraw.Draw(picture)
    horizon = int(height * rng.uniform(0.55, 0.75))
    canvas.rectangle((0, horizon, width, height), fill=lower)
    draw = rng.choice((_draw_face, _DRAW_SCENE[mood]))
    draw(canvas, picture.size, mood, rng)
    return picture


def _draw_face(canvas: ImageDraw.ImageDraw, size: tuple[int, int], mood: str, rng: random.Random) -> None:
    radius = int(size[1] * rng.uniform(0.26, 0.38))
    x, y = rng.randint(radius, size[0] - radius), rng.randint(radius, size[1] - radius)
    skin = rng.choice(((255, 214, 90), (240, 190, 150), (190, 130, 90), (225, 170, 120)))
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=skin, outline=(60, 40, 30), width=2)
    eye = radius // 6
    for side in (-1, 1):
        left, top = x + side * radius // 3, y - radius // 4
        canvas.ellipse((left - eye, top - eye, left + eye, top + eye), fill=(30, 25, 25))
    reach, line = radius // 2, max(3, radius // 8)
    if mood == "neutral":
        canvas.line((x - reach, y + radius // 2, x + reach, y + radius // 2), fill=(90, 20, 20), width=line)
    elif mood == "positive":
        canvas.chord((x - reach, y - reach // 2, x + reach, y + reach * 3 // 2), 10, 170, fill=(150, 20, 30))
    else:
        canvas.arc((x - reach, y + reach // 2, x + reach, y + reach * 2), 200, 340, fill=(90, 20, 20), width=line)


def _draw_sunshine(canvas: ImageDraw.ImageDraw, size: tuple[int, int], _: str, rng: random.Random) -> None:
    radius = int(size[1] * rng.uniform(0.12, 0.2))
    x, y = rng.randint(radius * 2, size[0] - radius * 2), rng.randint(radius, size[1] // 2)
    sun = (255, rng.randint(205, 235), rng.randint(40, 110))
    for ray in range(12):
        angle = math.tau * ray / 12
        end = (x + 1.8 * radius * math.cos(angle), y + 1.8 * radius * math.sin(angle))
        canvas.line((x, y, *end), fill=sun, width=3)
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=sun)
    for _flower in range(rng.randint(3, 8)):
        x, y = rng.randint(4, size[0] - 4), rng.randint(size[1] * 3 // 4, size[1] - 4)
        canvas.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(rng.randint(220, 255), rng.randint(60, 140), 120))


def _draw_table(canvas: ImageDraw.ImageDraw, size: tuple[int, int], _: str, rng: random.Random) -> None:
    for _box in range(rng.randint(1, 3)):
        width, height = rng.randint(20, 50), rng.randint(20, 50)
        left, top = rng.randint(0, size[0] - width), rng.randint(size[1] // 4, size[1] - height)
        tone = rng.randint(80, 190)
        canvas.rectangle(
            (left, top, left + width, top + height), fill=(tone, tone - 6, tone - 16), outline=(90, 88, 84)
        )


def _draw_storm(canvas: ImageDraw.ImageDraw, size: tuple[int, int], _: str, rng: random.Random) -> None:
    for _drop in range(rng.randint(20, 40)):
        x, y = rng.randint(0, size[0]), rng.randint(size[1] // 4, size[1])
        canvas.line((x, y, x - 4, y + 10), fill=(90, 110, 140), width=1)
    for _cloud in range(rng.randint(3, 6)):
        x, y, reach = rng.randint(0, size[0]), rng.randint(0, size[1] // 4), rng.randint(16, 34)
        tone = rng.randint(45, 85)
        canvas.ellipse((x - reach, y - reach // 2, x + reach, y + reach // 2), fill=(tone, tone, tone + 8))
    x, y = rng.randint(20, size[0] - 20), size[1] // 5
    bolt = ((x, y), (x - 9, y + 26), (x + 3, y + 24), (x - 8, y + 56))
    canvas.line(bolt, fill=(235, 225, 120), width=3)


_DRAW_SCENE: dict[str, Callable[[ImageDraw.ImageDraw, tuple[int, int], str, random.Random], None]] = {
    "positive": _draw_sunshine,
    "neutral": _draw_table,
    "negative": _draw_storm,
}


def write_sample(output_dir: Path, *, settings: SampleSettings) -> None:
    """Write train.txt, test_without_label.txt and data/{guid}.txt|.jpg into `output_dir`.

    `InputError` where that holds something else than a sample of the same settings, which sample.json tells.
    """
    _claim_folder(output_dir, settings=settings)
    rng = random.Random(settings.seed)
    count = settings.num_pairs + settings.num_test
    guids = [str(number) for number in rng.sample(range(1, 8 * count), count)]
    moods = plan_moods(settings.num_pairs, rng) + plan_moods(settings.num_test, rng)
    for guid, (text_mood, picture_mood) in zip(guids, moods, strict=True):
        stem = output_dir / "data" / guid
        write_text(stem.with_suffix(".txt"), f"{write_tweet(text_mood, rng)}\n")
        picture = io.BytesIO()  # into a file Pillow writes half a picture without a word where the disk is full
        draw_picture(picture_mood, rng).save(picture, format="JPEG", quality=88)
        write_bytes(stem.with_suffix(".jpg"), picture.getvalue())
    labels = [merge_moods(*pair) for pair in moods[: settings.num_pairs]] + ["null"] * settings.num_test
    rows = list(zip(guids, labels, strict=True))
    # The lists come last: where they stand, every file that they name is there.
    for name, part in (
        ("train.txt", rows[: settings.num_pairs]),
        ("test_without_label.txt", rows[settings.num_pairs :]),
    ):
        write_csv(output_dir / name, [("guid", "tag"), *part])


def _claim_folder(output_dir: Path, *, settings: SampleSettings) -> None:
    marker = output_dir / "sample.json"
    content = json.dumps({"made_by": "data_utils.sample", **asdict(settings)}, indent=2) + "\n"
    is_empty = not output_dir.exists() or (output_dir.is_dir() and not list_own(output_dir))
    if not is_empty and not marker.is_file():
        raise InputError(f"{output_dir} is a file, or holds others than a sample's; give another --output_dir.")
    if not is_empty and marker.read_text(encoding="utf-8") != content:
        raise InputError(
            f"{output_dir} holds a sample made with other settings (see {marker}); give another --output_dir, or "
            "delete that folder first."
        )
    refuse_folder_links(output_dir)
    (output_dir / "data").mkdir(parents=True, exist_ok=True)
    write_text(marker, content)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 after a mistake of the user)."""
    outlive_readers()
    parser = FlagParser(SampleSettings, description="Draw a small sample data set of tweets with pictures.")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="folder to write: data/sample")
    try:
        options = parser.parse(argv)
        output_dir = options.pop("output_dir")
        settings = SampleSettings(**options)
        with tell_refusals(output_dir):
            write_sample(output_dir, settings=settings)
    except Exception as error:
        return report_error(error)
    show(f"{settings.num_pairs} labelled and {settings.num_test} unlabelled pairs: {output_dir}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
