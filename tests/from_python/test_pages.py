"""docs/python.md as a session at the prompt, and the notebook from its first cell to its last, both on tiny models."""

import doctest
import re

import nbformat
import pytest
from conftest import ROOT
from evaluating import write_pairs
from nbclient import NotebookClient
from tiny import save_clip

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A working folder with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_page_holds_at_the_prompt(own_folder):
    """With what it takes for granted: posts.csv, its pictures, and the default model, here a tiny one."""
    write_pairs(own_folder)
    save_clip(own_folder / "openai" / "clip-vit-base-patch32")
    guids = [line.split(",") for line in (own_folder / "train.txt").read_text().splitlines()[1:]]
    rows = [f"{guid},words of {guid},data/{guid}.jpg,{label}" for guid, label in guids]
    (own_folder / "posts.csv").write_text("\n".join(["id,text,image,label", *rows]))
    blocks = re.findall(r"```pycon\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "python.md", "docs/python.md", 0)

    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)

    assert (found.failed, found.attempted > 15) == (0, True)


def test_notebook_goes_from_data_to_a_model_that_is_handed_over(own_folder):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(line.strip()) for cell in code for line in cell.source.splitlines()) < 40
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []
    code[0].source = "NUM_PAIRS, EPOCHS = 40, 1"

    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(own_folder)}}).execute()

    shown = [output.data["text/plain"] for cell in code for output in cell.outputs if "data" in output]
    assert "text_only" in shown[-3]
    assert "prediction" in shown[-2]
    assert "'label': " in shown[-1]
