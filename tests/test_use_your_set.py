"""The page "Use your synthetic set": its code runs from the first block to the last."""

import re

import torch
from made import BOOK
from PIL import Image

import ddlib

PAGE = BOOK / "use_your_set.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 8
    digits = ddlib.load_dataset("digits")
    pixels = digits.denormalise(digits.test.images[:1])[0, 0]
    Image.fromarray((255 * pixels).round().byte().numpy()).save("new.png")
    names = {}
    for block in blocks:
        exec(block, names)
    out = capsys.readouterr().out
    reached = float(re.search(r"([\d.]+)% of the test images, from 10 training images", out)[1])
    assert reached > 30, "by chance it were 10"
    picture = names["prepare"](names["picture"])
    torch.testing.assert_close(picture, digits.test.images[0], atol=0.5 / 255 / digits.format.std[0] + 1e-6, rtol=0)
    assert names["synthetic"].class_names[int(names["prediction"])] in out.splitlines()
    assert "Licence: CC BY 4.0" in out
    seen = torch.stack([image for image, _ in names["pictures"]])
    assert names["pictures"].targets == names["again"].labels.tolist()
    torch.testing.assert_close(seen, names["again"].images)
    assert names["further"].synthetic.provenance["start"] == f"set {names['synthetic'].hash}"
    assert names["theirs"].provenance["pixels"] == "uint8"
    assert names["accuracies"]["accuracy"].between(0, 1).all()
