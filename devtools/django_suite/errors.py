"""Why no verdict could be reached: the one exception of this package."""


class SuiteError(Exception):
    """The suite did not run, or not to its end; the text says what happened and what to do."""


def last_lines(text: str, count: int = 15) -> str:
    """The end of a log or of an error output, indented, for a message."""
    return "\n".join("    " + line[:300] for line in text.rstrip().splitlines()[-count:])
