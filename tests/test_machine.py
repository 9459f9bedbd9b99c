"""The machine's faults, and what is said about them."""

import os
from pathlib import Path

import pytest

from tests.lab import Lab, close_forgotten

pytestmark = pytest.mark.timeout(60)


# All that is said


@pytest.mark.parametrize("secret", ["+79161234567", "eyJleHAiOjQxMDI0NDQ4MDB9"])
@pytest.mark.parametrize("stream", [1, 2])
def test_a_phone_or_a_token_that_is_said_anywhere_is_found(tmp_path: Path, secret: str, stream: int) -> None:
    lab = Lab(tmp_path)
    lab.in_child = lambda: os.write(stream, f"warning: {secret}\n".encode())
    lab.start().wait()
    with pytest.raises(AssertionError):
        close_forgotten()


def test_a_phone_in_the_log_is_found(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.log_path.write_text('{"phone": 79161234567}\n')
    with pytest.raises(AssertionError):
        close_forgotten()
