"""The operator's wish to end, as signals bring it; light, since it is heard before anything else is imported.

What was ignored when the program was started (nohup, a shell's background job) stays ignored, SIGTERM apart.
SIGPIPE is Python's: whoever writes hears of it. SIGTSTP and SIGCONT are the kernel's: a run that is suspended
keeps what it owns, and looks again at what it knows when it goes on.
"""

import atexit
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

PERSONAL = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
# a closed terminal, power that fails, a limit of CPU: they may come many times, and nobody insists by them
IMPERSONAL = (signal.SIGHUP, signal.SIGXCPU, signal.SIGPWR, signal.SIGUSR1, signal.SIGUSR2)
WISHES = (*PERSONAL, *IMPERSONAL)  # each of them would end the program at once if it were not heard
TOGETHER = 1.0  # seconds: a terminal and GNU timeout say one wish twice, to a program and to its group
SOON = 0.005  # seconds


class Interrupted(SystemExit):
    """A command is ended where it is: what is open is closed, what is half done is undone. As `SystemExit`
    no library takes it for a failure of its own, and nothing is printed wherever it comes through."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Stop:
    """Asked once, a run drains: what is in flight finishes. Asked again, by a person, it aborts.

    A command that has nothing in flight is interrupted at the first word, once it is at work; what comes
    while the program is starting waits for that.
    """

    def __init__(self, timer: Callable[[], float]) -> None:
        """`timer`: seconds that never jump."""
        self.signals: list[int] = []
        self.on_change: Callable[[], object] = lambda: None
        self.aborted_by: int | None = None
        self.interrupted_by: int | None = None
        self._timer = timer
        self._asked_at: float | None = None
        self._interrupts = self._drains = False

    def listen(self) -> None:
        """Hear signals, until the process ends: what comes when all is done must not make its exit code a
        lie."""
        for each in WISHES:
            if each is signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, self._hear)
        sys.unraisablehook = self._rescue
        atexit.register(_hear_no_more)

    def ask(self, number: int) -> None:
        """Say it. Raises: Interrupted."""
        self.signals.append(number)
        if number in PERSONAL:
            now = self._timer()
            self._asked_at = now if self._asked_at is None else self._asked_at
            if now - self._asked_at >= TOGETHER and self.aborted_by is None:
                self.aborted_by = number
        self.on_change()
        self._interrupt()

    @property
    def is_asked(self) -> bool:
        return bool(self.signals)

    @property
    def is_abort(self) -> bool:
        return self.aborted_by is not None

    def interrupt(self) -> None:
        """From now on a wish ends the command where it is. Raises: Interrupted, if there was one already."""
        self._interrupts = True
        if self.signals:
            self._interrupt()

    def drain(self) -> None:
        """From now on a wish is only noted: it would cut off what has to come to its end."""
        self._interrupts, self._drains = False, True

    def _interrupt(self) -> None:
        """Once: what is being closed because of it is not interrupted itself."""
        if self._interrupts:
            self._interrupts = False
            self.interrupted_by = self.signals[0]
            raise Interrupted(self.signals[0])

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.ask(number)
        if self.aborted_by is not None and not self._drains:  # it hangs, in an import or while it is closing
            os._exit(128 + self.aborted_by)

    def _rescue(self, lost: "sys.UnraisableHookArgs") -> None:
        """An interruption that came while garbage was collected, from where nothing can be raised: again."""
        if not issubclass(lost.exc_type, Interrupted):
            sys.__unraisablehook__(lost)
            return
        self._interrupts = True
        signal.signal(signal.SIGALRM, lambda *_: self._interrupt())
        signal.setitimer(signal.ITIMER_REAL, SOON)


def _hear_no_more() -> None:
    for each in WISHES:
        signal.signal(each, signal.SIG_IGN)  # else it is the default's again while Python ends
