/* Generated from host/bitloop/spec.py by scripts/generate. Do not edit. */
#ifndef BL_SPEC_H
#define BL_SPEC_H

#define BL_PROTOCOL_MAJOR 1
#define BL_PROTOCOL_MINOR 2
#define BL_FRAME_HEADER_BYTES 4
#define BL_FRAME_CRC_BYTES 4
#define BL_FRAME_OVERHEAD_BYTES 8
#define BL_MIN_BODY_BYTES 64
#define BL_HASH_BYTES 32
#define BL_NO_LAYER 0xFFFFu
#define BL_NO_INDEX 0xFFFFu
#define BL_NO_OFFSET 0xFFFFFFFFu
#define BL_MAX_RANGES 7
#define BL_BAUD_TRIAL_MS 1000
#define BL_BAUD_NOISE_MS 2000
#define BL_BAUD_SILENCE_MS 10000
#define BL_MAX_BAUD_ERROR_PERMILLE 20
#define BL_TENSOR_HASH_BYTES 8
#define BL_BASE_HASH_BYTES 16
#define BL_MAX_CODE_BITS 15
#define BL_CODE_SYMBOLS 256
#define BL_CODE_LENGTHS_BYTES 128
#define BL_MAX_RUN 128
#define BL_IMAGE_MAGIC "BLI1"
#define BL_IMAGE_VERSION 2
#define BL_IMAGE_HEADER_BYTES 64
#define BL_LAYER_RECORD_BYTES 56
#define BL_TENSOR_RECORD_BYTES 52
#define BL_IMAGE_CRC_BYTES 4
#define BL_IMAGE_ALIGNMENT 4
#define BL_ARENA_ALIGNMENT 4
#define BL_CHUNK_MARGIN_BYTES 4
#define BL_MAX_IMAGE_BYTES 0x10000000u
#define BL_MAX_DIMENSION 65535
#define BL_MODEL_MAGIC "BLM1"
#define BL_MODEL_VERSION 1
#define BL_MAX_MODEL_BYTES 0x10000000u
#define BL_MAX_EXPONENT_BITS 8
#define BL_MAX_MANTISSA_BITS 23
#define BL_MIN_INTEGER_BITS 2
#define BL_MAX_INTEGER_BITS 16
#define BL_TRITS_PER_BYTE 5
#define BL_CANONICAL_NAN 0x7FC00000u

/* First byte of a frame; requests (host to device) have bit 7 clear, answers and events have it set. */
enum {
    BL_MSG_HELLO_REQUEST = 0x1,
    BL_MSG_ECHO_REQUEST = 0x2,
    BL_MSG_UPLOAD_BEGIN = 0x10,
    BL_MSG_UPLOAD_DATA = 0x11,
    BL_MSG_UPLOAD_END = 0x12,
    BL_MSG_RUN_BEGIN = 0x20,
    BL_MSG_RUN_DATA = 0x21,
    BL_MSG_RUN_ACK = 0x22,
    BL_MSG_RUN_END = 0x23,
    BL_MSG_READ_ACTIVATION = 0x24,
    BL_MSG_STATS_REQUEST = 0x30,
    BL_MSG_BAUD_REQUEST = 0x41,
    BL_MSG_BAUD_COMMIT = 0x42,
    BL_MSG_STREAM_DATA = 0x50,
    BL_MSG_TENSORS_REQUEST = 0x60,
    BL_MSG_UPLOAD_DELTA = 0x61,
    BL_MSG_UPLOAD_COPY = 0x62,
    BL_MSG_CODE_TABLE = 0x70,
    BL_MSG_UPLOAD_CODED = 0x71,
    BL_MSG_RUN_CODED = 0x72,
    BL_MSG_STREAM_CODED = 0x73,
    BL_MSG_HELLO = 0x81,
    BL_MSG_ECHO = 0x82,
    BL_MSG_UPLOAD_READY = 0x90,
    BL_MSG_UPLOAD_ACK = 0x91,
    BL_MSG_UPLOAD_DONE = 0x92,
    BL_MSG_RUN_READY = 0xa0,
    BL_MSG_RUN_CREDIT = 0xa1,
    BL_MSG_RESULT = 0xa2,
    BL_MSG_RUN_DONE = 0xa3,
    BL_MSG_ACTIVATION = 0xa4,
    BL_MSG_STATS = 0xb0,
    BL_MSG_LOG = 0xc0,
    BL_MSG_BAUD_READY = 0xc1,
    BL_MSG_BAUD_DONE = 0xc2,
    BL_MSG_TENSORS = 0xe0,
    BL_MSG_UPLOAD_COPIED = 0xe2,
    BL_MSG_CODE_READY = 0xf0,
    BL_MSG_ERROR = 0xff,
};

/* Tagged fields of HELLO: tag u8, length u8, value. A reader skips tags it does not know. */
enum {
    BL_HELLO_PROTOCOL = 0x1,
    BL_HELLO_FIRMWARE_VERSION = 0x2,
    BL_HELLO_FIRMWARE_HASH = 0x3,
    BL_HELLO_BOARD = 0x4,
    BL_HELLO_ISA = 0x5,
    BL_HELLO_CLOCK_HZ = 0x6,
    BL_HELLO_TIMER = 0x7,
    BL_HELLO_PROBE_CRC = 0x8,
    BL_HELLO_PROBE_RESULTS = 0x9,
    BL_HELLO_ARENA_BYTES = 0xa,
    BL_HELLO_BODY_BYTES = 0xb,
    BL_HELLO_WINDOW_BYTES = 0xc,
    BL_HELLO_CAPABILITIES = 0xd,
    BL_HELLO_LAYER_KINDS = 0xe,
    BL_HELLO_FORMAT_KINDS = 0xf,
    BL_HELLO_LAYOUTS = 0x10,
    BL_HELLO_PACKINGS = 0x11,
    BL_HELLO_TABLE_BITS = 0x12,
    BL_HELLO_RESET_CAUSE = 0x13,
    BL_HELLO_BOOT_COUNT = 0x14,
    BL_HELLO_IMAGE_HASH = 0x15,
    BL_HELLO_STATIC_BYTES = 0x16,
    BL_HELLO_LIMITS = 0x17,
    BL_HELLO_SIMULATED = 0x18,
    BL_HELLO_SEND_BODY_BYTES = 0x19,
    BL_HELLO_CODINGS = 0x1a,
    BL_HELLO_RANGES = 0x1b,
    BL_HELLO_BAUD = 0x1c,
};

/* Tagged fields of STATS, laid out as in HELLO; each a u32. */
enum {
    BL_STATS_FRAMES_RECEIVED = 0x1,
    BL_STATS_FRAMES_SENT = 0x2,
    BL_STATS_CRC_ERRORS = 0x3,
    BL_STATS_FRAMING_ERRORS = 0x4,
    BL_STATS_OVERRUNS = 0x5,
    BL_STATS_STALE_FRAMES = 0x6,
    BL_STATS_IMAGES_RUN = 0x7,
    BL_STATS_ARENA_PEAK_BYTES = 0x8,
    BL_STATS_STACK_PEAK_BYTES = 0x9,
    BL_STATS_BOOT_COUNT = 0xa,
    BL_STATS_STATIC_BYTES = 0xb,
    BL_STATS_HEAP_FREE_LEAST_BYTES = 0xc,
};

/* What a device can do beyond the minimum. */
enum {
    BL_CAP_LAYER_TICKS = 0x1,
    BL_CAP_ACTIVATIONS = 0x2,
    BL_CAP_THROUGHPUT = 0x4,
    BL_CAP_STACK_PEAK = 0x8,
    BL_CAP_STREAMED_WEIGHTS = 0x10,
    BL_CAP_DELTA_UPLOAD = 0x20,
};

/* How bytes of a coded frame are written (docs/protocol.md); both: runs first, then codes over their bytes. */
enum {
    BL_CODING_RUNS = 0x1,
    BL_CODING_CODES = 0x2,
};

/* What a table of codes is for. */
enum {
    BL_CODE_TABLE_OF_WEIGHTS = 0x0,
    BL_CODE_TABLE_OF_PIXELS = 0x1,
};

/* What a tick is. Never shown as one another. */
enum {
    BL_TIMER_CYCLES = 0x1,
    BL_TIMER_INSTRUCTIONS_SCALED = 0x2,
    BL_TIMER_HOST_NANOSECONDS = 0x3,
    BL_TIMER_MICROSECONDS = 0x4,
};

/* Why the device last started. */
enum {
    BL_RESET_UNKNOWN = 0x0,
    BL_RESET_POWER_ON = 0x1,
    BL_RESET_PIN = 0x2,
    BL_RESET_SOFTWARE = 0x3,
    BL_RESET_WATCHDOG = 0x4,
    BL_RESET_BROWNOUT = 0x5,
    BL_RESET_FAULT = 0x6,
};

/* Timing: nothing arrives while an image is computed. Throughput: line and compute overlap. */
enum {
    BL_MODE_TIMING = 0x0,
    BL_MODE_THROUGHPUT = 0x1,
};

/* What a RESULT record holds besides label and ticks. */
enum {
    BL_OUTPUT_LOGITS = 0x1,
    BL_OUTPUT_LAYER_TICKS = 0x2,
};

/* Levels of the log channel. */
enum {
    BL_LOG_DEBUG = 0x0,
    BL_LOG_INFO = 0x1,
    BL_LOG_WARNING = 0x2,
    BL_LOG_ERROR = 0x3,
};

/* Layers that travel. Flatten is no operation; a final Softmax is computed on the host. */
enum {
    BL_LAYER_DENSE = 0x1,
    BL_LAYER_CONV2D = 0x2,
    BL_LAYER_MAX_POOL = 0x3,
    BL_LAYER_AVERAGE_POOL = 0x4,
    BL_LAYER_RELU = 0x5,
};

/* Applied to each output of a dense or convolution layer. */
enum {
    BL_ACTIVATION_NONE = 0x0,
    BL_ACTIVATION_RELU = 0x1,
};

/* Families of element formats. */
enum {
    BL_FORMAT_FLOAT = 0x1,
    BL_FORMAT_INTEGER = 0x2,
    BL_FORMAT_TERNARY = 0x3,
    BL_FORMAT_BINARY = 0x4,
};

/* What the highest exponent means in a float format. */
enum {
    BL_TOP_IEEE = 0x0,
    BL_TOP_FN = 0x1,
    BL_TOP_FINITE = 0x2,
};

/* How codes lie in bytes. */
enum {
    BL_PACKING_BITS = 0x0,
    BL_PACKING_TRITS = 0x1,
};

/* Order of a weight tensor in an image. */
enum {
    BL_LAYOUT_IN_MAJOR = 0x1,
    BL_LAYOUT_OUT_MAJOR = 0x2,
};

/* What the decoded codes are multiplied by. */
enum {
    BL_SCALE_NONE = 0x0,
    BL_SCALE_POW2 = 0x1,
    BL_SCALE_FP32 = 0x2,
};

/* How many scales a tensor has. */
enum {
    BL_GRANULARITY_TENSOR = 0x0,
    BL_GRANULARITY_CHANNEL = 0x1,
};

/* Bits of a tensor record. */
enum {
    BL_TENSOR_SIGNED = 0x1,
    BL_TENSOR_SUBNORMALS = 0x2,
    BL_TENSOR_AFFINE = 0x4,
};

/* What the core returns (negative: refused) and an ERROR frame carries, with two details. */
typedef enum {
    BL_OK = 0,
    BL_BAD_MAGIC = -1,
    BL_BAD_VERSION = -2,
    BL_BAD_LENGTH = -3,
    BL_BAD_CRC = -4,
    BL_BAD_HASH = -5,
    BL_BAD_HEADER = -6,
    BL_BAD_LAYER_KIND = -7,
    BL_BAD_LAYER_SHAPE = -8,
    BL_BAD_LAYER_CHAIN = -9,
    BL_BAD_TENSOR_INDEX = -10,
    BL_BAD_TENSOR_FORMAT = -11,
    BL_BAD_TENSOR_BOUNDS = -12,
    BL_BAD_CODE = -13,
    BL_BAD_SCALE = -14,
    BL_BAD_ARENA = -15,
    BL_TOO_MANY = -16,
    BL_NO_MEMORY = -17,
    BL_BAD_FRAME = -32,
    BL_BAD_TYPE = -33,
    BL_BAD_BODY = -34,
    BL_BAD_STATE = -35,
    BL_BAD_OFFSET = -36,
    BL_BAD_PROTOCOL = -37,
    BL_NO_MODEL = -38,
    BL_BAD_ARGUMENT = -39,
    BL_PROBE_FAILED = -40,
    BL_BAD_CODING = -41,
    BL_BAD_CODE_TABLE = -42,
} bl_status;

/* Text of each status, for X(status, text). */
#define BL_STATUS_TEXTS(X) \
    X(BL_OK, "ok") \
    X(BL_BAD_MAGIC, "the image does not start with the magic bytes") \
    X(BL_BAD_VERSION, "the image has a version this firmware does not know") \
    X(BL_BAD_LENGTH, "the image's length field and its length differ") \
    X(BL_BAD_CRC, "the CRC-32 of the image, or of a streamed tensor, is wrong (detail: tensor)") \
    X(BL_BAD_HASH, "the image's SHA-256 is not the announced one") \
    X(BL_BAD_HEADER, "the image's header is inconsistent (detail: byte offset of the field)") \
    X(BL_BAD_LAYER_KIND, "this firmware does not know the layer (details: layer, kind)") \
    X(BL_BAD_LAYER_SHAPE, "a layer's shape is impossible (details: layer, byte offset in its record)") \
    X(BL_BAD_LAYER_CHAIN, "a layer does not take what the one before gives (detail: layer)") \
    X(BL_BAD_TENSOR_INDEX, "a layer names a tensor that is not there or does not fit it (details: layer, tensor)") \
    X(BL_BAD_TENSOR_FORMAT, "a tensor's format is unknown or not exact in binary32 (details: tensor, byte offset)") \
    X(BL_BAD_TENSOR_BOUNDS, "a tensor lies outside the image or has the wrong length (details: tensor, byte offset)") \
    X(BL_BAD_CODE, "a tensor holds a code that is no finite number (details: tensor, element)") \
    X(BL_BAD_SCALE, "a scale is not finite and positive, or a zero point is out of range (details: tensor, group)") \
    X(BL_BAD_ARENA, "a layer's buffer lies outside of the arena or over another (details: layer, byte offset)") \
    X(BL_TOO_MANY, "the image has more layers or tensors than the firmware takes (details: found, most)") \
    X(BL_NO_MEMORY, "the model does not fit (details: bytes needed, bytes there)") \
    X(BL_BAD_FRAME, "a frame was damaged") \
    X(BL_BAD_TYPE, "the firmware does not know this request (detail: type)") \
    X(BL_BAD_BODY, "a request's body has the wrong length (details: found, expected)") \
    X(BL_BAD_STATE, "the request makes no sense now (detail: state)") \
    X(BL_BAD_OFFSET, "data arrived beyond what was announced (details: offset, end)") \
    X(BL_BAD_PROTOCOL, "host and firmware speak different major versions (details: major, minor of the firmware)") \
    X(BL_NO_MODEL, "no model is loaded") \
    X(BL_BAD_ARGUMENT, "an argument is out of range (detail: byte offset in the body)") \
    X(BL_PROBE_FAILED, "the arithmetic probe failed: results of this device are not exact") \
    X(BL_BAD_CODING, "coded bytes cannot be decoded (details: coding, bytes decoded)") \
    X(BL_BAD_CODE_TABLE, "a table of codes is no prefix code, or none was sent (detail: table)")

#define BL_PROBE_COUNT 11

#endif /* BL_SPEC_H */
