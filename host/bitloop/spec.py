"""Every number that the host and the device share.

``device/core/bl_spec.h`` and the tables in ``docs/`` are generated from this module by ``scripts/generate``;
``scripts/check`` fails where they differ. Numbers only: arithmetic is written twice and held together by vectors.
All multi-byte fields, in images and on the line, are little-endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

# --- protocol -----------------------------------------------------------------------------------------------------

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 2

FRAME_HEADER_BYTES = 4  # type u8, sequence u8, session u16
FRAME_CRC_BYTES = 4
FRAME_OVERHEAD_BYTES = FRAME_HEADER_BYTES + FRAME_CRC_BYTES
MIN_BODY_BYTES = 64  # the least body length a device may offer
HASH_BYTES = 32  # SHA-256
NO_LAYER = 0xFFFF
NO_INDEX = 0xFFFF
NO_OFFSET = 0xFFFFFFFF
MAX_RANGES = 7  # of bytes held beyond `next`, which an acknowledgement tells: as many as the least body has room for
BAUD_TRIAL_MS = 1000  # without a frame for so long after a change of rate that is not committed, the first rate is back
BAUD_NOISE_MS = 2000  # the same once it is committed, where bytes arrive but no frame
BAUD_SILENCE_MS = 10000  # the same where nothing arrives; time in which the device computes does not count
MAX_BAUD_ERROR_PERMILLE = 20  # of a rate that a device makes of its clock
TENSOR_HASH_BYTES = 8  # of the SHA-256 of a piece of the image that a device holds
BASE_HASH_BYTES = 16  # of the SHA-256 of the image that a delta begins with
MAX_CODE_BITS = 15  # of a canonical Huffman code
CODE_SYMBOLS = 256
CODE_LENGTHS_BYTES = CODE_SYMBOLS // 2  # a nibble a symbol, the even one in the low bits
MAX_RUN = 128  # bytes of one token of Coding.RUNS


class MessageType(IntEnum):
    """First byte of a frame; requests (host to device) have bit 7 clear, answers and events have it set."""

    HELLO_REQUEST = 0x01
    ECHO_REQUEST = 0x02
    UPLOAD_BEGIN = 0x10
    UPLOAD_DATA = 0x11
    UPLOAD_END = 0x12
    RUN_BEGIN = 0x20
    RUN_DATA = 0x21
    RUN_ACK = 0x22
    RUN_END = 0x23
    READ_ACTIVATION = 0x24
    STATS_REQUEST = 0x30
    BAUD_REQUEST = 0x41
    BAUD_COMMIT = 0x42
    STREAM_DATA = 0x50
    TENSORS_REQUEST = 0x60
    UPLOAD_DELTA = 0x61
    UPLOAD_COPY = 0x62
    CODE_TABLE = 0x70
    UPLOAD_CODED = 0x71
    RUN_CODED = 0x72
    STREAM_CODED = 0x73
    HELLO = 0x81
    ECHO = 0x82
    UPLOAD_READY = 0x90
    UPLOAD_ACK = 0x91
    UPLOAD_DONE = 0x92
    RUN_READY = 0xA0
    RUN_CREDIT = 0xA1
    RESULT = 0xA2
    RUN_DONE = 0xA3
    ACTIVATION = 0xA4
    STATS = 0xB0
    LOG = 0xC0
    BAUD_READY = 0xC1
    BAUD_DONE = 0xC2
    TENSORS = 0xE0
    UPLOAD_COPIED = 0xE2
    CODE_READY = 0xF0
    ERROR = 0xFF


class HelloTag(IntEnum):
    """Tagged fields of HELLO: tag u8, length u8, value. A reader skips tags it does not know."""

    PROTOCOL = 1  # u16 major, u16 minor
    FIRMWARE_VERSION = 2  # text
    FIRMWARE_HASH = 3  # 32 bytes: SHA-256 over the sources the firmware was built from
    BOARD = 4  # text
    ISA = 5  # text
    CLOCK_HZ = 6  # u32
    TIMER = 7  # u8 TimerUnit, u32 ticks a second
    PROBE_CRC = 8  # u32: CRC-32 of the probe's results
    PROBE_RESULTS = 9  # u32 each
    ARENA_BYTES = 10  # u32
    BODY_BYTES = 11  # u16: longest frame body the device receives
    WINDOW_BYTES = 12  # u32: bytes of encoded frames it can buffer while busy
    CAPABILITIES = 13  # u32, Capability
    LAYER_KINDS = 14  # u32, bit LayerKind
    FORMAT_KINDS = 15  # u32, bit FormatKind
    LAYOUTS = 16  # u8 each, preferred first
    PACKINGS = 17  # u8 each, preferred ternary packing first
    TABLE_BITS = 18  # u8: widest code for which the device wants a decode table in the arena (0: never)
    RESET_CAUSE = 19  # u8 ResetCause
    BOOT_COUNT = 20  # u32
    IMAGE_HASH = 21  # 32 bytes: SHA-256 of the image it holds; absent when none
    STATIC_BYTES = 22  # u32: the firmware's own state, without the arena
    LIMITS = 23  # u16 layers, u16 tensors
    SIMULATED = 24  # u8: 1 when this is no chip
    SEND_BODY_BYTES = 25  # u16: longest frame body the device sends; absent: BODY_BYTES
    CODINGS = 26  # u8, bits of Coding: what the device decodes; absent: none
    RANGES = 27  # u8: most ranges of bytes that it keeps beyond a gap; absent: none
    BAUD = 28  # u32 bits a second now, u32 most; absent: the rate cannot be changed


class StatsTag(IntEnum):
    """Tagged fields of STATS, laid out as in HELLO; each a u32."""

    FRAMES_RECEIVED = 1
    FRAMES_SENT = 2
    CRC_ERRORS = 3
    FRAMING_ERRORS = 4
    OVERRUNS = 5
    STALE_FRAMES = 6  # frames of another session
    IMAGES_RUN = 7
    ARENA_PEAK_BYTES = 8  # highest arena byte written since the upload, plus one
    STACK_PEAK_BYTES = 9  # since the session began; absent where the stack is not the firmware's
    BOOT_COUNT = 10
    STATIC_BYTES = 11
    HEAP_FREE_LEAST_BYTES = 12  # since boot; absent where there is no heap


class Capability(IntFlag):
    """What a device can do beyond the minimum."""

    LAYER_TICKS = 1
    ACTIVATIONS = 2
    THROUGHPUT = 4
    STACK_PEAK = 8
    STREAMED_WEIGHTS = 16
    DELTA_UPLOAD = 32


class Coding(IntFlag):
    """How bytes of a coded frame are written (docs/protocol.md); both: runs first, then codes over their bytes."""

    RUNS = 1  # zeros run-length coded
    CODES = 2  # canonical Huffman over bytes


class CodeTable(IntEnum):
    """What a table of codes is for."""

    WEIGHTS = 0  # images of models, and streamed weights
    PIXELS = 1


class TimerUnit(IntEnum):
    """What a tick is. Never shown as one another."""

    CYCLES = 1  # of a real chip's clock
    INSTRUCTIONS_SCALED = 2  # virtual time of an instruction-counting emulator
    HOST_NANOSECONDS = 3  # a process on the host: tells nothing of a chip
    MICROSECONDS = 4  # a chip's clock on the wall, where no finer counter is known


class ResetCause(IntEnum):
    """Why the device last started."""

    UNKNOWN = 0
    POWER_ON = 1
    PIN = 2
    SOFTWARE = 3
    WATCHDOG = 4
    BROWNOUT = 5
    FAULT = 6


class RunMode(IntEnum):
    """Timing: nothing arrives while an image is computed. Throughput: line and compute overlap."""

    TIMING = 0
    THROUGHPUT = 1


class RunOutput(IntFlag):
    """What a RESULT record holds besides label and ticks."""

    LOGITS = 1
    LAYER_TICKS = 2


class LogLevel(IntEnum):
    """Levels of the log channel."""

    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


# --- image --------------------------------------------------------------------------------------------------------

IMAGE_MAGIC = b"BLI1"
IMAGE_VERSION = 2
IMAGE_HEADER_BYTES = 64
LAYER_RECORD_BYTES = 56
TENSOR_RECORD_BYTES = 52
IMAGE_CRC_BYTES = 4
IMAGE_ALIGNMENT = 4
ARENA_ALIGNMENT = 4
CHUNK_MARGIN_BYTES = 4  # behind a chunk of streamed weights: a device may read, never write, so far
MAX_IMAGE_BYTES = 1 << 28
MAX_DIMENSION = 65535

MODEL_MAGIC = b"BLM1"
MODEL_VERSION = 1
MAX_MODEL_BYTES = 1 << 28


class LayerKind(IntEnum):
    """Layers that travel. Flatten is no operation; a final Softmax is computed on the host."""

    DENSE = 1
    CONV2D = 2
    MAX_POOL = 3
    AVERAGE_POOL = 4
    RELU = 5


class Activation(IntEnum):
    """Applied to each output of a dense or convolution layer."""

    NONE = 0
    RELU = 1


class FormatKind(IntEnum):
    """Families of element formats."""

    FLOAT = 1
    INTEGER = 2  # also fixed point: value = (code - zero point) * 2^-fraction_bits
    TERNARY = 3
    BINARY = 4


class TopCodes(IntEnum):
    """What the highest exponent means in a float format."""

    IEEE = 0  # infinities and NaNs
    FN = 1  # finite, but all-ones is NaN (OCP E4M3)
    FINITE = 2  # every code is a number


class Packing(IntEnum):
    """How codes lie in bytes."""

    BITS = 0  # little-endian bit stream: code i at bits [i*width, (i+1)*width), bit k in byte k>>3 at k&7
    TRITS = 1  # 5 ternary digits (value + 1) a byte, least significant first


class Layout(IntEnum):
    """Order of a weight tensor in an image."""

    IN_MAJOR = 1  # a row an input (dense: H,W,C; convolution: ky,kx,channel), its columns the outputs
    OUT_MAJOR = 2  # reserved


class ScaleKind(IntEnum):
    """What the decoded codes are multiplied by."""

    NONE = 0
    POW2 = 1
    FP32 = 2


class Granularity(IntEnum):
    """How many scales a tensor has."""

    TENSOR = 0
    CHANNEL = 1  # one an output


class TensorFlag(IntFlag):
    """Bits of a tensor record."""

    SIGNED = 1
    SUBNORMALS = 2
    AFFINE = 4  # has zero points


MAX_EXPONENT_BITS = 8
MAX_MANTISSA_BITS = 23
MIN_INTEGER_BITS = 2
MAX_INTEGER_BITS = 16
TRITS_PER_BYTE = 5
CANONICAL_NAN = 0x7FC00000


# --- status -------------------------------------------------------------------------------------------------------


class Status(IntEnum):
    """What the core returns (negative: refused) and an ERROR frame carries, with two details."""

    OK = 0
    BAD_MAGIC = -1
    BAD_VERSION = -2
    BAD_LENGTH = -3
    BAD_CRC = -4
    BAD_HASH = -5
    BAD_HEADER = -6
    BAD_LAYER_KIND = -7
    BAD_LAYER_SHAPE = -8
    BAD_LAYER_CHAIN = -9
    BAD_TENSOR_INDEX = -10
    BAD_TENSOR_FORMAT = -11
    BAD_TENSOR_BOUNDS = -12
    BAD_CODE = -13
    BAD_SCALE = -14
    BAD_ARENA = -15
    TOO_MANY = -16
    NO_MEMORY = -17
    BAD_FRAME = -32
    BAD_TYPE = -33
    BAD_BODY = -34
    BAD_STATE = -35
    BAD_OFFSET = -36
    BAD_PROTOCOL = -37
    NO_MODEL = -38
    BAD_ARGUMENT = -39
    PROBE_FAILED = -40
    BAD_CODING = -41
    BAD_CODE_TABLE = -42


STATUS_TEXTS: dict[Status, str] = {
    Status.OK: "ok",
    Status.BAD_MAGIC: "the image does not start with the magic bytes",
    Status.BAD_VERSION: "the image has a version this firmware does not know",
    Status.BAD_LENGTH: "the image's length field and its length differ",
    Status.BAD_CRC: "the CRC-32 of the image, or of a streamed tensor, is wrong (detail: tensor)",
    Status.BAD_HASH: "the image's SHA-256 is not the announced one",
    Status.BAD_HEADER: "the image's header is inconsistent (detail: byte offset of the field)",
    Status.BAD_LAYER_KIND: "this firmware does not know the layer (details: layer, kind)",
    Status.BAD_LAYER_SHAPE: "a layer's shape is impossible (details: layer, byte offset in its record)",
    Status.BAD_LAYER_CHAIN: "a layer does not take what the one before gives (detail: layer)",
    Status.BAD_TENSOR_INDEX: "a layer names a tensor that is not there or does not fit it (details: layer, tensor)",
    Status.BAD_TENSOR_FORMAT: "a tensor's format is unknown or not exact in binary32 (details: tensor, byte offset)",
    Status.BAD_TENSOR_BOUNDS: "a tensor lies outside the image or has the wrong length (details: tensor, byte offset)",
    Status.BAD_CODE: "a tensor holds a code that is no finite number (details: tensor, element)",
    Status.BAD_SCALE: "a scale is not finite and positive, or a zero point is out of range (details: tensor, group)",
    Status.BAD_ARENA: "a layer's buffer lies outside of the arena or over another (details: layer, byte offset)",
    Status.TOO_MANY: "the image has more layers or tensors than the firmware takes (details: found, most)",
    Status.NO_MEMORY: "the model does not fit (details: bytes needed, bytes there)",
    Status.BAD_FRAME: "a frame was damaged",
    Status.BAD_TYPE: "the firmware does not know this request (detail: type)",
    Status.BAD_BODY: "a request's body has the wrong length (details: found, expected)",
    Status.BAD_STATE: "the request makes no sense now (detail: state)",
    Status.BAD_OFFSET: "data arrived beyond what was announced (details: offset, end)",
    Status.BAD_PROTOCOL: "host and firmware speak different major versions (details: major, minor of the firmware)",
    Status.NO_MODEL: "no model is loaded",
    Status.BAD_ARGUMENT: "an argument is out of range (detail: byte offset in the body)",
    Status.PROBE_FAILED: "the arithmetic probe failed: results of this device are not exact",
    Status.BAD_CODING: "coded bytes cannot be decoded (details: coding, bytes decoded)",
    Status.BAD_CODE_TABLE: "a table of codes is no prefix code, or none was sent (detail: table)",
}

# --- arithmetic probe ---------------------------------------------------------------------------------------------

PROBE_CASES: tuple[tuple[str, int], ...] = (
    ("fused multiply-add: fl(fl(a*a) + c), a = 1+2^-12, c = -(1+2^-11)", 0x00000000),
    ("subnormal product: fl(2^-126 * 0.5)", 0x00400000),
    ("subnormal sum: 2^-149 + 2^-149", 0x00000002),
    ("tie to even, down: fl(1 + 2^-24)", 0x3F800000),
    ("tie to even, up: fl((1+2^-23) + 2^-24)", 0x3F800002),
    ("negative zero: -1 * +0", 0x80000000),
    ("opposite zeros: +0 + -0", 0x00000000),
    ("division: fl(1 / 3)", 0x3EAAAAAB),
    ("integer to float, tie to even: 16777217", 0x4B800000),
    ("overflow: FLT_MAX + FLT_MAX", 0x7F800000),
    ("pixel: fl(77 / 255)", 0x3E9A9A9B),
)
"""Name and expected bits of each case the firmware computes at boot from volatile operands (docs/arithmetic.md)."""
