# A sweep: PTM pools, then arms, then the comparison. Started by `make sweep GRID=...`, which checks first what is
# there; the jobs themselves are those of workflow/grid.py, and a rule is no more than one command.

import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from workflow.grid import read_grid

grid = read_grid(config["grid"])
folder = Path(os.path.relpath(grid.folder))
jobs = {Path(job.marker).stem: job for job in grid.jobs}
markers = [str(folder / job.marker) for job in grid.jobs]
# After a job failed, the comparison of what there is (so_far): the failed runs are shown as failed.
compared = [marker for marker in markers if Path(marker).exists()] if config.get("so_far") else markers


def pool_of(w):
    """What an arm waits for."""
    pool = jobs[w.marker].pool
    return [str(folder / pool.marker)] if pool else []


# The markers too: a job whose marker is gone is made again, although a comparison is there.
rule all:
    input:
        folder / "comparison.html",
        compared,


rule comparison:
    input:
        compared,
        "notebooks/03_compare.ipynb",
        sorted(map(str, Path("ddlib", "study").glob("*.py"))),
    output:
        report(folder / "comparison.html", category="Comparison"),
    log:
        folder / "logs" / "comparison.log",
    container:
        config.get("container")
    shell:
        "{sys.executable:q} workflow/compare.py {config[grid]:q} {output:q} > {log:q} 2>&1"


rule pool:
    output:
        folder / "pools" / "{marker}.json",
    log:
        folder / "logs" / "{marker}.log",
    threads: grid.threads
    resources:
        gpu_slots=1,
    container:
        config.get("container")
    shell:
        "OMP_NUM_THREADS={threads} {sys.executable:q} workflow/run_job.py"
        " {config[grid]:q} {wildcards.marker:q} > {log:q} 2>&1"


rule arm:
    input:
        pool_of,
    output:
        folder / "jobs" / "{marker}.json",
    log:
        folder / "logs" / "{marker}.log",
    threads: grid.threads
    resources:
        gpu_slots=1,
    container:
        config.get("container")
    shell:
        "OMP_NUM_THREADS={threads} {sys.executable:q} workflow/run_job.py"
        " {config[grid]:q} {wildcards.marker:q} > {log:q} 2>&1"
