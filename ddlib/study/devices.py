"""Where to compute: the device that the parameter ``device`` names, tried, and told with the reason."""

import torch


def pick_device(name: str = "auto") -> torch.device:
    """``auto``: the first GPU that runs a kernel, else the CPU; prints which, and why. A name is taken at its word.

    Raises ValueError if the device of that name is not there or runs nothing.
    """
    if name != "auto":
        try:
            device, why = _tried(name), "as asked for"
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {name!r} is not here ({_reason(error)}): use auto or cpu.") from error
    else:
        try:
            torch.cuda.init()  # where there is no GPU, this says why
            device, why = _tried("cuda"), "the first GPU"
        except (RuntimeError, AssertionError) as error:
            device, why = torch.device("cpu"), f"no GPU can be used: {_reason(error)}"
    model = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    print(f"device: {device}{model}, {why}")
    return device


def _tried(name: str) -> torch.device:
    """The device, after a kernel: a GPU may be listed for which this torch has none."""
    two = torch.ones(1, device=name) + 1
    two.item()  # kernels fail where they are waited for
    return two.device


def _reason(error: BaseException) -> str:
    """The first sentence of what PyTorch says; the next ones are advice and addresses."""
    return str(error).strip().splitlines()[0].partition(". ")[0]
