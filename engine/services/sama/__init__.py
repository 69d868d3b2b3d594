"""Sama: tasks in, batches of created tasks out, presigned or inline. See `service`."""

from engine.services.sama.callbacks import read_callback
from engine.services.sama.sample import sample
from engine.services.sama.service import build
from engine.services.sama.settings import SamaSettings

__all__ = ["SETTINGS", "build", "read_callback", "sample"]

SETTINGS = SamaSettings
