"""The page "Use your synthetic set": its code runs from the first block to the last."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[1] / "book" / "use_your_set.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 7
    names = {}
    for block in blocks:
        exec(block, names)
    out = capsys.readouterr().out
    reached = float(re.search(r"([\d.]+)% of the test images, from 10 training images", out)[1])
    assert reached > 30, "by chance it were 10"
    assert "Licence: CC BY 4.0" in out
    seen = torch.stack([image for image, _ in names["pictures"]])
    assert names["pictures"].targets == names["again"].labels.tolist()
    torch.testing.assert_close(seen, names["again"].images)
    assert names["further"].synthetic.provenance["start"] == f"set {names['synthetic'].hash}"
    assert names["theirs"].provenance["pixels"] == "uint8"
    assert names["accuracies"]["accuracy"].between(0, 1).all()
