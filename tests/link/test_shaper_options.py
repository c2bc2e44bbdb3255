"""Which options of a URL are the line's, and what is refused."""

import pytest

from bitloop.bench.checks import _built_here
from bitloop.boards import find_board
from bitloop.errors import PortError, UsageError
from bitloop.link.line.options import NAMES, Direction, LineOptions, Silence, Vanishing, port_url, split_url
from bitloop.link.open import open_transport
from bitloop.link.transport import SerialTransport


@pytest.mark.parametrize(
    ("url", "port", "options"),
    [
        ("sim://native", "sim://native", None),
        ("sim://native?arena=8k", "sim://native?arena=8k", None),
        ("sim://native?baud=921600", "sim://native", LineOptions(baud=921600)),
        ("sim://native?baud=auto", "sim://native?baud=auto", LineOptions(real_rates=True)),
        (
            "sim://native?arena=8k&rtt=16ms&fault=log&jitter=250us&cable=460800",
            "sim://native?arena=8k&fault=log",
            LineOptions(rtt_s=0.016, jitter_s=0.00025, cable_baud=460800),
        ),
        ("COM5?drop=1e-4&seed=7", "COM5", LineOptions(drop=1e-4, seed=7)),
        ("/dev/ttyUSB0?flip=1e-5&only=down", "/dev/ttyUSB0", LineOptions(flip=1e-5, only=Direction.DOWN)),
        (
            "rfc2217://h:1?ign_set_control&poll_modem&dup=0.5&burst=0&timeout=3",
            "rfc2217://h:1?ign_set_control&poll_modem&timeout=3",
            LineOptions(dup=0.5),
        ),
        (
            "socket://h:1?frame_dup=1&frame_cut=.25&frame_swap=0.125&only=up",
            "socket://h:1",
            LineOptions(frame_dup=1, frame_cut=0.25, frame_swap=0.125, only=Direction.UP),
        ),
        (
            "qemu://stm32f405?silence=100:5s&silence=7:20ms&vanish=0:1s&vanish=9:0s:power",
            "qemu://stm32f405",
            LineOptions(
                silences=(Silence(100, 5.0), Silence(7, 0.02)), vanishings=(Vanishing(0, 1.0), Vanishing(9, 0.0, True))
            ),
        ),
    ],
)
def test_what_is_the_lines(url, port, options):
    assert split_url(url) == (port, options)
    assert port_url(url) == port


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("baud=", "option 'baud': '' is no rate"),
        ("baud=fast", "'fast' is no rate; write bits a second, such as 921600"),
        ("baud=0", "no rate"),
        ("cable=-5", "option 'cable': '-5' is no rate"),
        ("rtt=16", "option 'rtt': '16' is no time; write it as 5s, 16ms or 250us"),
        ("rtt=-1ms", "no time"),
        ("rtt=nans", "no time"),
        ("rtt=1_0ms", "no time"),
        ("rtt=2h", "no time"),
        ("jitter=ms", "option 'jitter': 'ms' is no time"),
        ("jitter=3601s", "no time"),
        ("drop=1.5", "option 'drop': '1.5' is no probability; write a number of 0 to 1, such as 1e-4"),
        ("flip=-1e-3", "no probability"),
        ("flip=nan", "no probability"),
        ("burst=", "no probability"),
        ("frame_cut=1%", "no probability"),
        ("seed=-1", "option 'seed': '-1' is no whole number"),
        ("seed=x", "no whole number"),
        ("seed=1&seed=1", "option 'seed' is given twice"),
        ("only=left", "option 'only': 'left' is no direction; write up"),
        ("silence=5s", "'5s' is not BYTES:TIME"),
        ("silence=5:5", "option 'silence': '5' is no time"),
        ("silence=5:1s:power", "not BYTES:TIME"),
        ("vanish=-5:1s", "option 'vanish': '-5' is no whole number"),
        ("vanish=5:1s:reset", "not BYTES:TIME or BYTES:TIME:power"),
    ],
)
def test_what_makes_no_sense(option, what):
    with pytest.raises(UsageError) as caught:
        split_url(f"sim://native?{option}")
    assert what in str(caught.value)
    assert str(caught.value).startswith(f"sim://native?{option}: ")


@pytest.mark.parametrize("url", ["sim://native?dorp=1e-4", "qemu://stm32f405?rtt=1ms&dorp=1", "/dev/ttyUSB0?dorp=1"])
def test_an_unknown_option_names_those_there_are(url):
    with pytest.raises(PortError, match="unknown option 'dorp'") as caught:
        open_transport(url)
    assert f"the line has {', '.join(NAMES)}" in str(caught.value)
    if "sim" in url:
        assert "the port has arena, ram, body" in str(caught.value)


def test_what_a_port_cannot_have():
    with pytest.raises(PortError, match="only sim://native can; name a rate"):
        open_transport("qemu://stm32f405?baud=auto")
    with pytest.raises(PortError, match="baud=auto"):
        open_transport("loop://?baud=auto")
    with pytest.raises(UsageError, match="can lose its power"):
        open_transport("loop://?vanish=5:1s:power")


def test_a_port_without_options_has_no_line_before_it():
    transport = open_transport("loop://")
    assert isinstance(transport, SerialTransport)
    transport.close()


def test_a_board_is_known_through_the_line():
    assert _built_here("qemu://stm32f405?rtt=1ms&icount=3&drop=1e-5") == find_board("stm32f405").port
    assert _built_here("qemu://stm32f405?rtt=1ms&elf=a.elf") == ""
