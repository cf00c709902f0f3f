"""Data sets, augmentation and batches. A leaf: imports nothing of ours, and here nothing heavy."""


class DataError(ValueError):
    """Something is wrong with what the user gave: the data, or how it is described.

    Takes one line of plain text: what, where, how to mend. It takes nothing else, so that a data
    loader's worker process can hand it over (it builds the error anew from one string).
    """

    user_error = True
