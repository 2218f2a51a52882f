"""The one error of `avsi.data`."""


class DataError(RuntimeError):
    """A data set cannot be had: unknown, missing, damaged, or nowhere to put it. The message says how to mend it."""
