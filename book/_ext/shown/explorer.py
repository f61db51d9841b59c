"""The explorer: synthetic sets, two at a time, and their difference."""

from html import escape

from ddlib.study.arms import Arm

from .findings import Findings
from .pages import PICTURES, Files, as_script
from .pictures import pictures_of, snapshots


def explorer(found: Findings) -> tuple[str, Files] | None:
    """HTML of the first set as a picture, with what a script needs for controls, and the pictures; None without any."""
    pictures, steps = pictures_of(found), snapshots(found.folder)
    shown = found.sets[found.sets["run"].isin(pictures)]
    if shown.empty:
        return None
    sets = [
        {
            "arm": row.label,
            "seed": int(row.seed),
            "accuracy": round(row.accuracy, 1),
            "src": f"{PICTURES}/{row.run}.png",
            "steps": {step: f"{PICTURES}/{row.run}.{step}.png" for step in steps.get(row.run, {})},
        }
        for row in shown.itertuples()
    ]
    classes = list(found.records.iloc[0]["class_names"])
    files: Files = {f"{PICTURES}/{run}.png": content for run, content in pictures.items()}
    for run, pngs in steps.items():
        files |= {f"{PICTURES}/{run}.{step}.png": path.read_bytes() for step, path in pngs.items()}
    data = as_script({"classes": classes, "sets": sets, "first": Arm().label})
    label = f"{sets[0]['arm']}, seed {sets[0]['seed']}: the images of {len(classes)} classes, a class a column"
    html = (
        f'<div class="explorer"><div class="explorer-still"><img class="pixels" src="{sets[0]["src"]}"'
        f' alt="{escape(label)}" width="480"></div>'
        f'<script type="application/json" class="explorer-data">{data}</script>'
        "</div>\n"
    )
    return html, files
