"""Our accuracies beside published ones."""

from dataclasses import replace

from ddlib.study.words import signed
from workflow.grid import read_grid
from workflow.published import published_table

from . import plans

HEAD = ["method", "images per class", "published", "DC-Bench", "ours", "difference", "n"]


def rows(published: dict[str, dict], dataset: str) -> list[list[str]]:
    """Texts of the cells; a dash where a number is not known or the method not ours, "not run" where ours could be."""
    ours = {(row["dataset"], row["base_method"], row["published"]): row for row in published_runs()}
    rows = []
    for method, about in published.items():
        for place, ipc in enumerate((1, 10, 50)):
            number, bench = about["published"][place], about.get("dcbench")
            found = ours.get((dataset, about.get("arm"), number)) if number else None
            measured = found is not None and found["n"] > 0
            rows.append(
                [
                    method,
                    str(ipc),
                    "–" if number is None else f"{number:.1f}",
                    " / ".join(f"{share:.1f}" for share in bench[place]) if bench else "–",
                    f"{found['mean']:.1f}" if measured else "not run" if "arm" in about else "–",
                    signed(found["difference"], 1) if measured else "–",
                    str(found["n"]) if measured else "0" if "arm" in about else "–",
                ]
            )
    return rows


def published_runs() -> list[dict[str, object]]:
    """Our numbers beside published ones, of the sweep ``published`` in the book; none where it has not been run."""
    folder = plans.RESULTS / "published"
    if not any(folder.glob("*.json")):
        return []
    grid = replace(read_grid(plans.GRIDS / "published.yaml"), folder=folder)
    return published_table(grid, any_code=True).to_dict("records")
