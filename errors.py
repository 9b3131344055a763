"""The one exception that memx raises for a user's mistake: a message and a hint."""


class MemxError(Exception):
    """A user's mistake: one clear line, and a hint that says what to do. The command line exits 2 on it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.told = False  # to the user, by another process
        self.alone = False  # met by this process of several

    def __reduce__(self):  # keeps all when an error crosses a process boundary
        return _rebuild, (self.message, self.hint), vars(self)


def _rebuild(message: str, hint: str) -> MemxError:
    return MemxError(message, hint=hint)
