"""The sample data set: same bytes for the same seed, labels as in the real data, neither modality enough alone."""

import hashlib
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.sample import PHRASES, SampleSettings, main, merge_moods, plan_moods, write_sample
from modeling.errors import InputError
from modeling.pictures import PictureSettings

NUM_TRAIN = 400  # of the 600 labelled pairs; the rest judges the simple readers below


def read_list(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "sample"
    write_sample(folder, settings=SampleSettings())
    return folder


@pytest.fixture(scope="module")
def pairs(sample):
    """Texts, pictures (N, 12 * 16 * 3) and labels of the 600 labelled pairs, in the list's order."""
    guids, labels = zip(*read_list(sample / "train.txt")[1:], strict=True)
    texts = [(sample / "data" / f"{guid}.txt").read_text() for guid in guids]
    pictures = [Image.open(sample / "data" / f"{guid}.jpg").resize((16, 12)) for guid in guids]
    return texts, np.stack([np.asarray(picture).ravel() / 255 for picture in pictures]), np.array(labels)


def mood_of(text):
    moods = {mood for mood, phrases in PHRASES.items() if any(phrase in text for phrase in phrases)}
    assert len(moods) == 1, text
    return moods.pop()


def score(features, targets, num_train):
    reader = LogisticRegression(max_iter=2000).fit(features[:num_train], targets[:num_train])
    return reader.score(features[num_train:], targets[num_train:])


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder, seed in ((first, 4), (second, 4), (third, 5)):
        write_sample(folder, settings=SampleSettings(num_pairs=20, num_test=3, seed=seed))
    assert digest(first) == digest(second)
    assert not set(digest(first).values()) & set(digest(third).values())


def test_lists_name_every_file_once_and_hide_the_test_labels(sample):
    train, test = read_list(sample / "train.txt"), read_list(sample / "test_without_label.txt")
    assert train[0] == test[0] == ["guid", "tag"]
    assert {label for _, label in test[1:]} == {"null"}
    assert Counter(label for _, label in train[1:]) == {"positive": 240, "negative": 240, "neutral": 120}
    guids = [guid for guid, _ in train[1:] + test[1:]]
    assert len(set(guids)) == len(guids) == 660
    assert {path.name for path in (sample / "data").iterdir()} == {
        f"{g}.{end}" for g in guids for end in ("txt", "jpg")
    }


def test_project_reads_it_without_a_bad_pair(sample, make_arguments):
    data = make_arguments(sample)
    picture = PictureSettings(image_size=16, shortest_edge=16, resize_mode="squash", resample=2)
    loaded = load_pairs(PairList(sample / "train.txt", sample), data=data, picture=picture)
    assert len(loaded.dataset) == 600
    assert not loaded.quarantine.summary()


def test_moods_never_contradict_and_one_side_alone_decides_seven_of_ten():
    moods = plan_moods(600, random.Random(1))
    assert not {("positive", "negative"), ("negative", "positive")} & set(moods)
    for side in (0, 1):
        labels_by_mood = defaultdict(Counter)
        for pair in moods:
            labels_by_mood[pair[side]][merge_moods(*pair)] += 1
        assert sum(max(labels.values()) for labels in labels_by_mood.values()) == 420


def test_a_reader_of_the_texts_finds_their_mood_but_not_the_label(pairs):
    texts, _, labels = pairs
    words = CountVectorizer().fit(texts[:NUM_TRAIN]).transform(texts)
    assert score(words, np.array([mood_of(text) for text in texts]), NUM_TRAIN) > 0.95
    assert score(words, labels, NUM_TRAIN) < 0.8


def test_a_reader_of_the_pictures_finds_their_mood_but_not_the_label(pairs):
    texts, pictures, labels = pairs
    # Beside a neutral text the label is the picture's mood.
    beside_neutral = np.array([mood_of(text) == "neutral" for text in texts])
    assert score(pictures[beside_neutral], labels[beside_neutral], 200) > 0.95
    assert score(pictures, labels, NUM_TRAIN) < 0.8


def test_texts_are_varied_and_some_have_tags_names_and_addresses(pairs):
    texts, _, _ = pairs
    assert len(set(texts)) > 590
    for mark in ("#", "@", "https://"):
        assert 60 < sum(mark in text for text in texts) < 400


def test_writing_again_with_the_same_settings_changes_nothing(tmp_path, capsys):
    words = ["--output_dir", str(tmp_path / "sample"), "--num_pairs", "20", "--num_test", "2"]
    assert main(words) == 0
    before = digest(tmp_path)
    assert main(words) == 0
    assert digest(tmp_path) == before
    assert "20 labelled and 2 unlabelled pairs" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["mine", "sample"])
def test_folder_with_something_else_is_left_alone(tmp_path, capsys, content):
    if content == "sample":
        write_sample(tmp_path, settings=SampleSettings(num_pairs=20, num_test=2, seed=1))
    else:
        (tmp_path / "train.txt").write_text("guid,tag\n1,positive\n")
    before = digest(tmp_path)
    assert main(["--output_dir", str(tmp_path), "--num_pairs", "20", "--num_test", "2"]) == 2
    assert digest(tmp_path) == before
    told = capsys.readouterr().err
    assert "give another --output_dir" in told
    assert ("delete" in told) == (content == "sample"), "nobody is told to delete files of their own"


@pytest.mark.parametrize("settings", [{"num_pairs": 19}, {"num_test": 0}])
def test_sizes_that_are_too_small_are_refused(settings):
    with pytest.raises(InputError, match=f"--{next(iter(settings))} is"):
        SampleSettings(**settings)
