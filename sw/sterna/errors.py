"""The one exception type that a user is meant to read."""


class SternaError(Exception):
    """A problem with the input, the model, or the device: one sentence with the cause and the mend.

    The command line prints the sentence and exits with ``exit_code``.
    """

    exit_code = 2


class DeviceError(SternaError):
    """The accelerator reported an error, refused the host, or did not answer in time."""

    exit_code = 3
