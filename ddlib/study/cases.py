"""Settings side by side: what a study varies around its usual setting, in words, and contrasts within each case.

The two ablations compare arms within one setting. Two further questions do not: whether a result holds elsewhere (the
same contrasts in several settings), and what the options of a PTM do (one arm in several settings, against the usual).
"""

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from ddlib.study.ablations import Contrast
from ddlib.study.allowed import names
from ddlib.study.arms import Arm, is_selection
from ddlib.study.contradictions import IMAGENET
from ddlib.study.contrasts import compare, planned_contrasts
from ddlib.study.runs import reference
from ddlib.study.words import plural

TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "fashion_mnist": "Fashion-MNIST", "mnist": "MNIST"}
TITLES |= {"svhn": "SVHN", "digits": "digits", IMAGENET: "ImageNet"}


def title_of(dataset: object) -> str:
    """The name of a data set as the text spells it."""
    return TITLES.get(str(dataset), str(dataset))


def epoch(number: object) -> str:
    """How long a PTM was trained."""
    if pd.isna(number):
        return "PTM of the last epoch"
    return f"PTM of epoch {int(number)}" if number else "untrained network"


def architectures(listed: object) -> str:
    """Those of PTMs: one by its name, several by their number."""
    those = names(str(listed))
    return f"PTM is {those[0]}" if len(those) == 1 else f"PTMs of {len(those)} architectures"


# Parameters that make cases, and the words for a value; of the settings and of the PTMs, in the order of the text.
SETTINGS: dict[str, Callable[[object], str]] = {
    "dataset": title_of,
    "base_method": lambda method: str(method).upper(),
    "ipc": lambda ipc: f"{plural(ipc, 'image')} per class",
    "width": lambda width: f"width {int(width)}",
    "batch_real": lambda batch: f"{plural(batch, 'real image')} per class",
}
OPTIONS: dict[str, Callable[[object], str]] = {
    "num_ptms": lambda number: plural(number, "PTM"),
    "ptm_architectures": architectures,
    "ptm_epoch": epoch,
    "source_dataset": lambda dataset: f"PTM of {title_of(dataset)}",
    "ptm_seed": lambda seed: "one pool for all sets",
}
USUAL = "as in the ablations"  # the words of no difference


def case_of(row: Mapping[str, object], usual: Mapping[str, object], words: Mapping[str, Callable]) -> str:
    """What differs from the usual parameters, in words; of ImageNet's PTMs the source says it all."""
    return ", ".join(words[name](row[name]) for name in differing(row, usual, words)) or USUAL


def differing(row: Mapping[str, object], usual: Mapping[str, object], parameters: Iterable[str]) -> list[str]:
    """The parameters with another value than the usual one; of ImageNet's PTMs the source alone.

    Guidance alone and real images have no base method of their own: they stand beside any.
    """
    found = [name for name in parameters if name in row and not same(row[name], usual.get(name))]
    if row.get("base_method") == "none" or is_selection(str(row.get("base_method"))):
        found = [name for name in found if name != "base_method"]
    return ["source_dataset"] if row.get("source_dataset") == IMAGENET and "source_dataset" in found else found


def same(a: object, b: object) -> bool:
    """Whether two values of a parameter are one; a column of numbers has NaN for None."""
    nothing = [value is None or value != value for value in (a, b)]
    return all(nothing) or (not any(nothing) and a == b)


def with_cases(records: pd.DataFrame, usual: Mapping[str, object], words: Mapping[str, Callable]) -> pd.DataFrame:
    """The records with a column ``case``."""
    columns = [name for name in words if name in records]
    rows = _rows(records, columns)
    told = {row: case_of(dict(zip(columns, row, strict=True)), usual, words) for row in set(rows)}
    return records.assign(case=[told[row] for row in rows])


def _rows(records: pd.DataFrame, columns: list[str]) -> list[tuple]:
    values = records[columns].astype(object).where(records[columns].notna(), None)
    return list(values.itertuples(index=False, name=None))


def named_by_case(records: pd.DataFrame, usual: Mapping[str, object]) -> pd.DataFrame:
    """The records with ``case`` of ``SETTINGS``, where the arm's name says it too: ``Fashion-MNIST: CLoM``.

    Sorted by the settings, then as arms are.
    """
    records = _by_setting(records, usual)
    return records.assign(arm=records["case"] + ": " + records["arm"].map(lambda arm: Arm.named(arm).label))


def _by_setting(records: pd.DataFrame, usual: Mapping[str, object]) -> pd.DataFrame:
    records = with_cases(records, usual, SETTINGS)
    places = [(*_values(row, SETTINGS), Arm.named(row["arm"]).order) for row in records.to_dict("records")]
    return _sorted(records, places)


def options(records: pd.DataFrame, usual: Mapping[str, object]) -> pd.DataFrame:
    """The records with ``case`` of ``OPTIONS``, where the arm's name says it too: ``CLoM, PTM of epoch 1``.

    Also with ``option``, the first parameter in which they differ, empty for the usual PTM; sorted by guidance, by
    option, and as its values count: 2, 5, 10 PTMs, epochs 0, 1, 2.
    """
    records = with_cases(records, usual, OPTIONS)
    rows = records.to_dict("records")
    guided = [row["guidance"] != "none" for row in rows]
    option = [(differing(row, usual, OPTIONS) or [""])[0] * there for row, there in zip(rows, guided, strict=True)]
    label = records["guidance"].map(lambda name: Arm(name).label)
    case = records["case"].where(guided, USUAL)
    records = records.assign(case=case, option=option, arm=label.where(case == USUAL, label + ", " + case))
    ranks = [list(OPTIONS).index(name) if name else -1 for name in option]
    places = [(Arm(row["guidance"]).order, rank, *_values(row, OPTIONS)) for row, rank in zip(rows, ranks, strict=True)]
    return _sorted(records, places)


def _values(row: Mapping[str, object], names: Iterable[str]) -> list[tuple[str, object]]:
    """To sort by: None comes first, and a number is no text."""
    return [("", -1) if pd.isna(row[name]) else (type(row[name]).__name__, row[name]) for name in names if name in row]


def _sorted(records: pd.DataFrame, places: list[tuple]) -> pd.DataFrame:
    return records.iloc[sorted(range(len(places)), key=places.__getitem__)]


def elsewhere(
    records: pd.DataFrame,
    usual: Mapping[str, object],
    ablations: Iterable[pd.DataFrame] = (),
    untested: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """The contrasts that ablations plan, in every case of ``SETTINGS`` (``contrasts.compare``, ``case``, ``family``).

    What is primary in an ablation is so in each case; the others of a case and ablation are a family, and share their
    corrections. The cases of one contrast stand below each other. ``ablations`` are contrasts of the usual case, as
    corrected there; ``untested`` says of families how many contrasts more they have (``contrasts.compare``).
    """
    tables = [table.assign(case=USUAL, family=f"{USUAL} {number}") for number, table in enumerate(ablations)]
    for (case, notebook), rows in _by_setting(records, usual).groupby(["case", "notebook"], sort=False):
        family = f"{case} {notebook}"
        table = planned_contrasts(reference(rows), notebook, untested=(untested or {}).get(family, 0))
        tables.append(table.assign(case=case, family=family))
    table = _below_each_other(tables)
    if table.empty:
        return table
    ranks = {contrast: rank for rank, contrast in enumerate(table["contrast"].unique())}
    table = table.sort_values("contrast", key=lambda words: words.map(ranks), kind="stable", ignore_index=True)
    return table.assign(contrast=table["contrast"] + ", " + table["case"])


def families_of_options(records: pd.DataFrame) -> dict[str, list[Contrast]]:
    """Each option (``options``) minus the usual PTM with the same guidance, by what they vary: a family.

    The usual PTM minus no guidance is a question of the ablations, on the same sets; and one pool for all sets is no
    treatment: its luck is in every pair.
    """
    table, families = records.drop_duplicates("arm"), {}
    for guidance, option, arm in zip(table["guidance"], table["option"], table["arm"], strict=True):
        if option not in ("", "ptm_seed"):
            families.setdefault(option, []).append(against(arm, Arm(guidance).label))
    return families


def options_against_usual(records: pd.DataFrame, untested: Mapping[str, int] | None = None) -> pd.DataFrame:
    """The contrasts of ``families_of_options``, paired by seed; each ``family`` shares its corrections.

    ``untested`` says of families how many contrasts more they have (``contrasts.compare``).
    """
    shown, more = reference(records), untested or {}
    return _below_each_other(
        [
            compare(shown, [], planned, untested=more.get(option, 0)).assign(family=option)
            for option, planned in families_of_options(shown).items()
        ]
    )


def _below_each_other(tables: list[pd.DataFrame]) -> pd.DataFrame:
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def against(arm: str, usual: str) -> Contrast:
    """One case minus another, by their names."""
    words = arm.removeprefix(f"{usual}, ") + " − " + usual
    return Contrast((arm, usual), (1.0, -1.0), words, f"{arm} better", f"{usual} better")
