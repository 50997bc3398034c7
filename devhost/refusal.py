"""The one way in which the host declines to start."""


class Refusal(Exception):
    """The app or its settings can't be served; each reason is one sentence for the user."""

    def __init__(self, *reasons: str) -> None:
        """Take the reasons, each of which becomes one line on stderr."""
        super().__init__("\n".join(reasons))
        self.reasons = reasons
