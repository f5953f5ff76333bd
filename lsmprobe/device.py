"""Where tensors live."""

import torch

from lsmprobe.errors import SettingsError


def choose_device(device: str) -> str:
    """`auto` is a GPU if there is one; anything else is taken at its word.

    Raises:
        SettingsError: the device is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise SettingsError(f"--device {device}: this machine has none; use --device auto or cpu.")
    return device
