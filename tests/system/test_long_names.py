"""A path or name of 5,000 letters is one sentence, whatever flag it is given to."""

import pytest

from data_utils import sample, shard
from data_utils.augment import __main__ as augment

LONG = "x" * 5000
SENTENCE_LENGTH = 2200  # a sentence may quote what was given, cut


def read_error(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(lines)
    assert lines[-1].startswith("error: ")
    assert len(lines[-1]) < SENTENCE_LENGTH
    return lines[-1]


@pytest.fixture
def refusal(capsys):
    """Run a command that is refused; returns its sentence."""

    def run(command):
        with pytest.raises(SystemExit) as stop:
            command()
        assert stop.value.code == 2
        return read_error(capsys)

    return run


@pytest.mark.parametrize(
    "flag",
    [
        *("--data_dir", "--train_file", "--split_file", "--cache_dir", "--output_dir"),
        *("--resume_from_checkpoint", "--clip_name", "--config", "--labels"),
    ],
)
def test_train(run_train, refusal, flag):
    refusal(lambda: run_train(flag, LONG))


@pytest.mark.parametrize("flag", ["RUN", "--data_dir", "--predict", "--output", "--cache_dir"])
def test_evaluate(evaluate_main, tiny_run, tiny_pairs, tmp_path, refusal, flag):
    given = {"--predict": tiny_pairs / "train.txt", "--output": tmp_path / "out.txt", "--cache_dir": tmp_path / "cache"}
    given |= {flag: LONG}
    run = given.pop("RUN", tiny_run.path)
    refusal(lambda: evaluate_main(run, *(word for pair in given.items() for word in pair)))


@pytest.mark.parametrize(
    ("main", "flags"),
    [
        (shard.main, ["--data_dir", LONG, "--output_dir", "x"]),
        (shard.main, ["--data_dir", "DATA", "--output_dir", LONG]),
        (shard.main, ["--data_dir", "DATA", "--output_dir", "x", "--split_file", LONG]),
        (augment.main, ["--data_dir", LONG, "--undo"]),
        (augment.main, ["--data_dir", "DATA", "--predictions", LONG]),
        (sample.main, ["--output_dir", LONG]),
    ],
)
def test_tools(main, flags, sample, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main([str(sample) if flag == "DATA" else flag for flag in flags]) == 2
    read_error(capsys)


def test_a_nul_in_a_recipe_is_refused(run_train, tmp_path, refusal):
    (tmp_path / "recipe.yaml").write_text('output_dir: "runs\\0x"\n')
    assert "which holds a NUL" in refusal(lambda: run_train("--config", str(tmp_path / "recipe.yaml"), name=None))
