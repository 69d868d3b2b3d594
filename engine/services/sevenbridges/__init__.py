"""Seven Bridges: single task specs in, drafts, running tasks and batch tasks with their children out.

The harmless first step is a DRAFT that carries a client reference; `actions/run` starts it. See `service`.
"""

from engine.services.sevenbridges.service import build
from engine.services.sevenbridges.settings import SevenBridgesSettings

__all__ = ["SETTINGS", "build"]

SETTINGS = SevenBridgesSettings
