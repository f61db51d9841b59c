"""Sentences from the records: numbers and claims of the prose, and what a chapter rests on."""

import math
import re

import pandas as pd
from docutils import nodes

from ddlib.base_methods import BASE_METHODS
from ddlib.networks import NETWORKS
from ddlib.study import cases
from ddlib.study.alphas import chosen_alphas, unchosen_alphas
from ddlib.study.arms import Arm
from ddlib.study.run_tables import recorded_ptm_table
from ddlib.study.words import estimate, plural

from .chapters import CHAPTERS, Rows, usual
from .facts import KINDS
from .findings import DATASETS, Findings, of_chapter
from .plans import progress, state, whole


def number(text: str) -> str:
    """What ``{num}`` writes: ``guidance.arms.clom.mean``, ``guidance.contrasts.clom - cclom.points:+.1f``,
    ``guidance.judged.clom - cclom by VGG-11.points``, ``alpha.alphas.clom.gain``.

    An arm or a contrast that makes sense and has not been run is "not measured yet". Raises KeyError for anything else.
    """
    asked = re.fullmatch(r"(\w+)\.(\w+)\.(.+?)\.(\w+)(?::([^:]+))?", text.strip())
    key, kind, name, what, spec = asked.groups() if asked else [""] * 5
    if key not in CHAPTERS or kind not in KINDS:
        raise KeyError(f"{text!r}; expected <{'|'.join(CHAPTERS)}>.<{'|'.join(KINDS)}>.<name>.<what>")
    found = of_chapter(key)
    facts = KINDS[kind](found)
    known = facts.get(name)
    if known is None:
        if found.chapter.notebook:
            require_arms(name, kind == "judged" or " by " in name)
        elif whole(found.chapter.grid):  # all is there, under other names
            raise KeyError(f"{name!r}; known: {', '.join(facts)}")
        return "not measured yet"
    value = known[what]
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "–"
    return format(value, spec or ("z.1f" if isinstance(value, float) else "")).replace("-", "−")


def require_arms(name: str, judged: bool = False) -> None:
    """Raises KeyError unless all words are names of arms, and of an architecture where they are ``judged`` by one."""
    arms, _, architecture = name.partition(" by ")
    if judged != (architecture in NETWORKS):
        raise KeyError(f"{name!r}; expected{' <arm> - <arm> by' * judged} one of: {', '.join(NETWORKS)}")
    for arm in re.split(r" [-+] ", arms):
        try:
            Arm.parse(arm)
        except ValueError as error:
            raise KeyError(str(error)) from error


def claim(text: str) -> tuple[str, str, str]:
    """What ``{claim}`` writes: words of the prose, the contrast that they rest on, and the address of its row.

    ``less than a point <guidance: clom - cclom is equal>`` names a contrast as ``{num}`` does, and what is decided of
    it; ``<guidance: clom - cclom by VGG-11 is open>`` what one architecture says.
    Raises ValueError unless the study's runs say so: then the sentence has to change. KeyError for no such contrast.
    """
    asked = re.fullmatch(r"(.+) <(\w+): (.+) is (above|below|equal|open)>", text.strip())
    words, key, name, sign = asked.groups() if asked else [""] * 4
    if key not in CHAPTERS:
        raise KeyError(f"{text!r}; expected <words> <{'|'.join(CHAPTERS)}: <contrast> is above|below|equal|open>")
    found, judged = of_chapter(key), " by " in name
    named = found.named_by_architecture if judged else found.named_contrasts
    row = named.get(name)
    if row is None:
        raise KeyError(f"{name!r}; known: {', '.join(named)}")
    judged_by = f", {row['architecture']}" if judged else ""
    told = f"{row['contrast']}{judged_by}: {estimate(row)}"
    if not found.lasting:
        raise ValueError(f"{words!r} would rest on smoke runs, which are no evidence")
    if sign not in (row["signs"] or ("open",)):
        raise ValueError(f"{words!r} would rest on {sign!r}; found: {told}, {row['verdict']}")
    table = f"{key} transfer" if judged else key
    return words, told, f"{found.chapter.page}.html#{row_address(table, row['contrast'])}"


def row_address(called: str, name: str) -> str:
    """Of a row in a table of results, within its page."""
    return nodes.make_id(f"{called} {name}")


OF_A_RUN = ("distill", "evaluate")  # seconds of its own: PTMs are shared by runs


def evidence(key: str) -> list[str]:
    """Sentences on what a chapter rests on; the first is the verdict."""
    found = of_chapter(key)
    done, wanted = progress(found.chapter.grid)
    of = state(found.chapter.grid)
    missing = f"Still missing: {wanted - done} of {wanted} runs of {found.chapter.grid}." if wanted else ""
    failed = sum(found.failed.values())
    are = "is" if failed == 1 else "are"
    lost = [f"{plural(failed, 'run')} failed, and {are} no part of any mean."] if failed else []
    if found.records.empty:
        return ["Evidence: none yet.", f"For this chapter, {of}.", *lost]
    table = found.records.drop_duplicates("run")
    commits = commits_of(table)
    days = sorted({str(day)[:10] for day in table["created"]})
    lines = [
        "Evidence: from the study's runs." if found.lasting else "Evidence: none yet. These are smoke runs.",
        f"Scale: {scale_in_words(found)}. {plural(len(table), 'run')}: {arms_in_words(found)}.",
        f"Run {span(days)}, with the code of commit {span(commits) or 'unknown'}.",
    ]
    if found.lasting and found.twins:
        more = f"{plural(found.twins, 'more run')} {'checks' if found.twins == 1 else 'check'}"
        lines.append(f"{more} that averaging gradients is averaging losses.")
    lines += lost + other_alphas(found)
    if not found.lasting:
        lines.append(f"They show that every part works, and say nothing on the question. For that, {of}.")
    elif done != wanted:
        lines.append(missing or f"So far, {of}.")
    return lines


def computing(key: str) -> list[str]:
    """Sentences on what the runs of a chapter took, and on what they ran; none without runs."""
    found = of_chapter(key)
    if found.records.empty:
        return []
    table = found.records.drop_duplicates("run")
    hours = float(table[[f"seconds_{part}" for part in OF_A_RUN]].sum().sum()) / 3600
    return [f"{hours:.1f} hours of computing, {training_in_words(table)}.", f"Run on {machines_in_words(table)}."]


def other_alphas(found: Findings) -> list[str]:
    """One sentence on the arms whose alpha is not the one that a hold-out of their own chose, if there are any."""
    chosen: dict[str, list[Rows]] = {}
    for key in ("alpha", "alphas", "alphas_elsewhere"):
        if whole(CHAPTERS[key].grid):
            for case, grid in of_chapter(key).alpha_grids.items():
                chosen.setdefault(case, []).append(chosen_alphas(grid))
    if not found.lasting or not chosen:
        return []
    lines = []
    for case, rows in cases.with_cases(found.plain, usual(), cases.SETTINGS).groupby("case", sort=False):
        there = unchosen_alphas(rows, pd.concat(chosen[case])) if case in chosen else []
        lines += there if case == cases.USUAL else [f"{case}: {line}" for line in there]
    return [f"Not at the alpha of their own hold-out: {'; '.join(lines)}."] if lines else []


def scale_in_words(found: Findings) -> str:
    """Data, images per class, base method, width: what the shown runs share."""

    def values(name: str) -> list[object]:
        return sorted(found.plain[name].dropna().unique())

    data = listed([DATASETS.get(name, str(name)) for name in values("dataset")])
    matching = [name for name in values("base_method") if name in BASE_METHODS and name != "none"]
    method = listed([str(name).upper() for name in matching])
    numbers = {name: listed([f"{int(value)}" for value in values(name)]) for name in ("ipc", "iterations", "width")}
    images = "image" if numbers["ipc"] == "1" else "images"
    parts = [data, f"{numbers['ipc']} {images} per class", method, f"{numbers['iterations']} iterations"]
    return ", ".join(filter(None, [*parts, f"networks of width {numbers['width']}"]))


def arms_in_words(found: Findings) -> str:
    """How many arms have how many sets; each alpha of an arm counts."""
    counts = found.plain.groupby("parameter_hash")["seed"].nunique()
    if counts.nunique() > 3:
        return f"{len(counts)} arms of {counts.min()} to {counts.max()} sets"
    numbers = counts.value_counts().sort_index(ascending=False)
    parts = [f"{plural(arms, 'arm')} of {plural(sets, 'set')}" for sets, arms in numbers.items()]
    return listed(parts, "and")


def training_in_words(runs_there: Rows) -> str:
    """What PTMs took, each counted once; the median, since an interrupted training counts the time between too."""
    table = recorded_ptm_table(runs_there)
    seconds = table["training (s)"].dropna()
    if seconds.empty:
        return "no PTM trained for it"
    held_back = ", and of those held back" if runs_there["judge_accuracy"].notna().any() else ""
    each = f"{seconds.median() / 60:.1f} minutes" + (" each (median)" if len(seconds) > 1 else "")
    reached = [f"{share:.0f}" for share in table["test accuracy (%)"].dropna().sort_values()]
    accuracy = f" (test accuracy {' to '.join(dict.fromkeys([reached[0], reached[-1]]))} %)" if reached else ""
    return f"without the training of {plural(len(seconds), 'PTM')} that guided{accuracy}, {each}{held_back}"


def machines_in_words(runs_there: Rows) -> str:
    """Processors or GPUs, most used first, the version of PyTorch, and whether pairs, which share a seed, share one."""
    names = runs_there["device_name"].str.replace(r"\((R|TM)\)", "", regex=True)
    versions = listed(sorted(runs_there["torch"].str.partition("+")[0].unique()))
    counts = names.value_counts()
    if len(counts) == 1:
        return f"{counts.index[0]}, PyTorch {versions}"
    replicated = runs_there.groupby("arm")["seed"].transform("nunique") > 1
    mixed = names[replicated].groupby(runs_there["seed"]).nunique().gt(1).sum()
    told = " and ".join(f"{name} ({plural(n, 'run')})" for name, n in counts.items())
    but = f" in all but {plural(mixed, 'seed')}" if mixed else ""
    return f"{told}, pairs on one of them{but}, PyTorch {versions}"


def commits_of(records: Rows) -> list[str]:
    """Short hashes, by the time of their first run."""
    return list(dict.fromkeys(str(commit)[:9] for commit in records.sort_values("created")["git_commit"].dropna()))


def listed(words: list[str], conjunction: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return f" {conjunction} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def span(words: list[str]) -> str:
    """The first and the last."""
    return "" if not words else words[0] if len(words) == 1 else f"{words[0]} to {words[-1]}"
