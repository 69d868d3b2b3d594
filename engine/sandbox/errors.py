"""What can be wrong with a sandbox before it serves: one error per cause, worded for the person who started it."""

from engine.model.errors import ConfigError


class SandboxError(ConfigError):
    """The sandbox cannot start as asked."""


class BehaviourError(SandboxError):
    """The behaviour file is wrong; the message names the key."""


class RemoteHostError(SandboxError):
    """The sandbox serves loopback only, unless `allow_remote` is given: it checks no person's rights."""


class ListenError(SandboxError):
    """The port cannot be listened on: another process may hold it; port 0 takes a free one."""


class MissingPackageError(SandboxError):
    """An optional package is not installed; the message says how to install it."""


class StorageError(SandboxError):
    """The S3 server beside the sandbox did not start or did not answer."""
