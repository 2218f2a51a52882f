"""What a person sees on stderr while a data set is obtained."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm


def say(message: str) -> None:
    """Print one plain line on stderr."""
    sys.stderr.write(f"avsi: {message}\n")  # in one piece, so that the lines of several processes stay apart
    sys.stderr.flush()


@contextlib.contextmanager
def torchvision_output() -> Iterator[None]:
    """Let torchvision's progress bars through to a terminal, and keep everything else it prints to itself."""
    if sys.stderr.isatty():
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            yield
    else:
        silence = io.StringIO()
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            yield


@contextlib.contextmanager
def steps(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar over a few steps on a terminal; yields a function to call as each begins, with what it does."""
    with tqdm(total=total, desc=title, leave=False, disable=None) as bar:
        begun = False

        def begin(step: str) -> None:
            nonlocal begun
            bar.update(int(begun))  # the step before is done
            bar.set_postfix_str(step)
            begun = True

        yield begin
