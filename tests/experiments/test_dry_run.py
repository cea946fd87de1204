"""train.py --dry_run in one process; under launches it is shown by tests/launches/test_accelerate_configs.py."""

from tiny import save_encoders

import train


def test_sheet_names_faulty_rows_and_pretrained_weights(make_pairs, numbered_rows, tmp_path, capsys):
    save_encoders(tmp_path)
    pairs = make_pairs(numbered_rows(40))
    (pairs / "data" / "107.jpg").unlink()
    words = ["--data_dir", str(pairs), "--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "run")]
    words += ["--text_name", str(tmp_path / "text"), "--vision_name", str(tmp_path / "vision"), "--model", "vilbert"]
    train.main([*words, "--max_length", "12", "--preprocessing_num_workers", "1", "--report_to", "none", "--dry_run"])
    sheet = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line)
    assert sheet["faulty rows"].strip().startswith("missing_image: 1 ")
    assert f"pretrained weights from {tmp_path / 'text'}, {tmp_path / 'vision'}" in sheet["offline"]
    assert not (tmp_path / "run").exists()
