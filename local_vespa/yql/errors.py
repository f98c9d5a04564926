"""The one error of both query languages."""


class YqlError(ValueError):
    """A query that Vespa refuses with code 4; the message has the position where there is one."""
