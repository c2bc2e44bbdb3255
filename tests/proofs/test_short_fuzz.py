"""The short version of ``scripts/fuzz host``; the device's targets run in tests/core/test_fuzz.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.link.wire.frame import Decoder, Frame, Item, encode_frame
from proofs import host_decoder


def test_the_hosts_decoder_keeps_its_promises() -> None:
    assert host_decoder.fuzz(300) > 100


@given(st.binary(max_size=300))
def test_a_fuzzers_bytes_make_lines(data: bytes) -> None:
    host_decoder.check(host_decoder.line_of(data), (3, 70))


def test_a_fuzzers_bytes_make_good_frames() -> None:
    assert host_decoder.line_of(b"\x85\x01\x02\x03ab\x02xy") == encode_frame(1, 2, 3, b"ababab") + b"xy"


class Forgetful(Decoder):
    def feed(self, data: bytes) -> list[Item]:
        return super().feed(data)[1:]


class Credulous(Decoder):
    def feed(self, data: bytes) -> list[Item]:
        return [item if isinstance(item, Frame) else Frame(1, 2, 3, b"") for item in super().feed(data)]


class Hoarding(Decoder):
    @property
    def pending(self) -> bytes:
        return bytes(1000)


@pytest.mark.parametrize("wrong", [Forgetful, Credulous, Hoarding])
def test_a_decoder_that_breaks_one_is_caught(wrong: type[Decoder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_decoder, "Decoder", wrong)
    with pytest.raises(AssertionError):
        host_decoder.check(b"\x01\x02\x03\x00\xf0\xf1\x00", (2,))
