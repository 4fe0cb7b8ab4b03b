"""The error types of training; the text of each is one line for the person at the command line and names the remedy.

Must not know: commands.
"""

from serving.errors import InvalidInput, ServingError


class DataMissing(ServingError):
    """MNIST is not where it should be, is not MNIST, or cannot be fetched."""


class CheckpointRejected(ServingError):
    """A checkpoint cannot be read, or does not belong to the run that asks for it."""


class NotNumbers(ServingError):
    """A network gives scores that are not numbers."""


class ImpossibleLayer(InvalidInput):
    """A layer cannot take the shape it is given, or its description cannot be read: names the layer and the numbers."""
