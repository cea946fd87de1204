"""DataArguments: defaults, and a clear refusal of every wrong value."""

from pathlib import Path

import pytest

from data_utils.console.command_line import FlagParser
from data_utils.sources.arguments import DataArguments
from modeling.errors import InputError


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"data_dir": ""}, "for example data/project5"),
        ({"val_ratio": 1.0}, "val_ratio"),
        ({"val_ratio": -0.1}, "val_ratio"),
        ({"val_ratio": "1e-1"}, "takes a number"),
        ({"labels": ["one"]}, "at least two"),
        ({"labels": ["a", "a"]}, "each of them once"),
        ({"labels": [True, False]}, "in quotes"),
        ({"labels": ["a", "null"]}, "unlabelled"),
        ({"labels": "negative"}, "list of words"),
        ({"text_cleaning": "all"}, "report, tweet, none"),
        ({"on_bad_pair": "skip"}, "mask, drop, error"),
        ({"image_resize_mode": "pad"}, "shortest, squash"),
        ({"image_size": 0}, "at least 1"),
        ({"max_train_samples": 2.5}, "whole number"),
        ({"preprocessing_num_workers": -1}, "at least 1"),
    ],
)
def test_wrong_value_is_refused_with_what_is_allowed(options, named):
    with pytest.raises(InputError, match=named):
        DataArguments(**{"data_dir": "x", **options})


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """Make empty files in a working folder."""

    def make(files):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        monkeypatch.chdir(tmp_path)

    return make


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        (["data/project5/train.txt", "data/train.txt"], {}, "data/project5"),
        (["data/project5/other.txt", "data/train.txt"], {}, "data"),
        (["data/project5/other.txt"], {"train_file": "other.txt"}, "data/project5"),
        (["data/project5/train.txt", "data/train-00000-of-00001.parquet"], {"streaming": True}, "data"),
    ],
)
def test_data_are_found_where_they_usually_lie(lay, caplog, files, options, expected):
    lay(files)
    caplog.set_level("INFO")
    assert DataArguments(**options).data_dir == expected
    assert caplog.messages == [f"Taking the data in {expected}; --data_dir names others."]


@pytest.mark.parametrize(
    ("files", "options", "named"),
    [
        ([], {}, "holds train.txt"),
        (["data/project5/other.txt"], {}, "holds train.txt"),
        (["data/project5/train.txt"], {"streaming": True}, r"holds shards \(train-"),
    ],
)
def test_missing_data_are_told_with_where_they_go_and_how_to_draw_a_sample(lay, files, options, named):
    lay(files)
    with pytest.raises(InputError, match=named) as refused:
        DataArguments(**options)
    for part in ("data/project5 nor data", "data/{guid}.jpg", "python -m data_utils.sample --output_dir data/sample"):
        assert part in str(refused.value)


def test_every_field_is_a_flag_with_help():
    parser = FlagParser(DataArguments)
    words = "--data_dir d --labels no yes --image_size 64 --allow_leaky_split --val_ratio 0"
    data = DataArguments(**parser.parse(words.split()))
    assert (data.labels, data.image_size, data.allow_leaky_split, data.val_ratio) == (["no", "yes"], 64, True, 0.0)
    assert all(action.help for action in parser._actions)
    assert (data.text_cleaning, data.on_bad_pair) == ("report", "mask")  # the report's
    assert (DataArguments(data_dir="d").val_ratio, DataArguments(data_dir="d").labels) == (
        *(0.1, None),  # those of the data
    )


def test_cache_and_list_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DataArguments(data_dir="d").cache_path() == tmp_path / "multimodal-sentiment"
    assert DataArguments(data_dir="d", cache_dir="c").cache_path() == Path("c")
    assert DataArguments(data_dir="d").list_path() == Path("d/train.txt")
    elsewhere = tmp_path / "other.txt"
    elsewhere.touch()
    assert DataArguments(data_dir="d", train_file=str(elsewhere)).list_path() == elsewhere
