"""Progress bars that stay silent where nobody watches: in log files, pipes and tests."""

import sys

from tqdm import tqdm


def watched() -> bool:
    """Whether standard error is a terminal or a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


def progress_bar(total: int, description: str, initial: int = 0) -> tqdm:
    """A bar over ``total`` steps, of which ``initial`` are done already."""
    return tqdm(total=total, initial=initial, desc=description, disable=not watched(), mininterval=0.5, leave=False)
