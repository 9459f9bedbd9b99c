"""The operator's wish to end a run; light, since its handlers stand before the heavy imports."""

from collections.abc import Callable


class Stop:
    """Asked once, the run drains: what is in flight finishes. Asked twice, it aborts."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.on_change: Callable[[], object] = lambda: None

    def ask(self, signal: int) -> None:
        self.signals.append(signal)
        self.on_change()

    @property
    def is_asked(self) -> bool:
        return bool(self.signals)

    @property
    def is_abort(self) -> bool:
        return len(self.signals) > 1
