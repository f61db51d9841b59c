"""torchvision's ImageNet classifiers as PTMs, for CCLoM on any data set."""

import os

import torch

from ddlib.data.dataset import ImageFormat
from ddlib.disk.paths import data_folder
from ddlib.ptms.parts import Parts, last_linear
from ddlib.ptms.ptm import PTM

IMAGENET_WEIGHTS = "IMAGENET1K_V1"  # all but two of torchvision's classifiers have these, fewer have later ones


def load_imagenet_ptm(
    name: str,
    image_size: int | None = None,
    root: str | os.PathLike | None = None,
    device: torch.device | str = "cpu",
) -> PTM:
    """A classifier of torchvision with its ImageNet weights, for CCLoM; see :meth:`PTM.adapted_to`.

    ``name``: e.g. ``"mobilenet_v2"``. ``image_size``: what images are up-sampled to, by default the size that
    the weights were trained for (224 as a rule); less is faster and blurs less small images.
    The weights lie in ``hub/checkpoints`` of the data folder (:func:`ddlib.disk.paths.data_folder`) and are
    downloaded on first use. Raises ValueError for an unknown name, FileNotFoundError if there is no download.
    """
    from torchvision import models  # here, because the import takes seconds

    known = [key for key in models.list_models(models) if IMAGENET_WEIGHTS in models.get_model_weights(key).__members__]
    if name not in known:
        raise ValueError(f"unknown ImageNet model {name!r}; torchvision has {', '.join(known)}.")
    weights = models.get_model_weights(name)[IMAGENET_WEIGHTS]
    model = models.get_model(name)
    last = last_linear(model, name)  # one without fails here, not after the download
    folder = data_folder(root) / "hub" / "checkpoints"
    try:
        state = torch.hub.load_state_dict_from_url(weights.url, folder, map_location="cpu", weights_only=True)
    except OSError as error:
        file = weights.url.rsplit("/", 1)[1]
        raise FileNotFoundError(
            f"{file} is not in {folder} and could not be downloaded ({error}); put it there."
        ) from error
    except Exception as error:  # the loader raises many types on a damaged file
        file = folder / weights.url.rsplit("/", 1)[1]
        raise ValueError(f"{file} is damaged ({error!r:.200}); delete it, or put it there again.") from error
    model.load_state_dict(state)
    if hasattr(model, "transform_input"):
        model.transform_input = True  # as torchvision does with weights: GoogLeNet and Inception had other moments
    preset = weights.transforms()
    size = image_size or preset.crop_size[0]
    return PTM(
        Parts(model, None, last).to(device),
        name,
        "imagenet",
        tuple(weights.meta["categories"]),
        ImageFormat(3, size, tuple(preset.mean), tuple(preset.std)),
        hash=f"{name}-{IMAGENET_WEIGHTS}-{size}",
        accuracy=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100,
    )
