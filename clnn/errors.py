"""The exceptions of clnn. Each says what came, what was expected and what to do."""


class ClnnError(Exception):
    """Base class of every exception that clnn raises itself."""


class DataError(ClnnError):
    """A data set is missing, damaged, or cannot be fetched."""
