"""The one error a person is meant to read."""


class UserError(ValueError):
    """Something a person can put right: bad input, a missing file, a setting that cannot work.

    The message says what is wrong, where (file, row, field) and what to do; the command line prints it
    without a traceback and exits with status 2.
    """
