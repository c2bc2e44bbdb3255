#include "native_options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_USAGE = 2, GO_ON = -1 };

static const char usage[] =
    "usage: bitloop-sim (--fd N | --port N) [options]\n"
    "  --fd N           serve the inherited stream socket N\n"
    "  --port N         listen on 127.0.0.1, port N (0: any), print the port, serve the first who connects\n"
    "  --arena BYTES    memory for image, activations, tables and queue (default 16777216)\n"
    "  --body BYTES     longest frame body that is received, 64 to 65535 (default 4096)\n"
    "  --send-body BYTES  longest one that is sent (default: the same)\n"
    "  --window BYTES   received bytes that are held while the core is busy (default 65536)\n"
    "  --boot-count N   boot counter (default 1)\n"
    "  --board NAME     name of the board (default native)\n"
    "  --compute-us N   an image takes N microseconds on the wall at least; nothing is read meanwhile (default 0)\n"
    "  --codings N      of the codings (1: runs, 2: codes) those of N are known; --no-codings: none\n"
    "  --ranges N       no more than N ranges beyond a gap are told, 0 to 7\n"
    "  --no-delta       no delta upload\n"
    "  --rate-fd N      the line's rate can be changed: each change is written to N, as a u32, little-endian\n"
    "  --boot-baud N, --max-baud N  the rate after a reset (default 115200), and the most (default 2000000)\n"
    "  --fault SPEC     inject a fault; may be repeated:\n"
    "      layer:K,ulp:N[,image:I][,element:E]   an output of device layer K is N ulp off\n"
    "                                            (every image; the element of greatest magnitude)\n"
    "      code:T[,element:E][,bit:B]            a bit of a code of weight tensor T is flipped after the checks\n"
    "      bias:T[,element:E][,bit:B]            the same in bias tensor T\n"
    "      scale:T[,element:G][,ulp:N]           scale G (all) of tensor T is N ulp off (the next binary32 up)\n"
    "      hash:image, hash:firmware             a hash is told wrongly\n"
    "      probe:K                               case K of the arithmetic probe is wrong\n"
    "      version:N                             the device speaks protocol major N\n"
    "      without:K                             layer kind K is not among those the device says it knows\n"
    "      silent:after=N, garbage:after=N       after N frames nothing, or garbage, is sent\n"
    "      crash:after=N                         the process ends after N frames\n"
    "      freeze:after=N                        after N frames the device does nothing any more\n"
    "      reset:after=N[,every=M], reset:every=M\n"
    "                                            after N frames everything is forgotten and the device boots again;\n"
    "                                            and after M more, each time\n"
    "      drop=P[,seed=S], flip=P[,seed=S]      sent bytes are lost, or have a bit flipped, with probability P\n"
    "      log                                   a LOG frame and raw text at boot\n";

static int fail(const char *problem, const char *argument)
{
    (void)fprintf(stderr, "bitloop-sim: %s: %s\n", problem, argument);
    return EXIT_USAGE;
}

static bool parse_number(const char *text, uint32_t least, uint32_t most, uint32_t *value)
{
    unsigned long long number;
    char *end;

    errno = 0;
    number = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || number < least || number > most) {
        return false;
    }
    *value = (uint32_t)number;
    return true;
}

/* An option without a value? */
static bool parse_flag(native_options *o, const char *option)
{
    if (strcmp(option, "--no-codings") == 0) {
        o->limits.codings = 0;
        return true;
    }
    if (strcmp(option, "--no-delta") == 0) {
        o->limits.no_delta = true;
        return true;
    }
    return false;
}

#define NUMBER(member) offsetof(native_options, member), sizeof(((native_options *)0)->member)

/* Options that are a number, of 1, 2 or 4 bytes. */
static const struct {
    const char *name;
    size_t offset;
    size_t bytes;
    uint32_t least;
    uint32_t most;
} numbers[] = {
    {"--fd", NUMBER(fd), 0, 1u << 20},
    {"--port", NUMBER(port), 0, 65535},
    {"--arena", NUMBER(arena_bytes), 0, 0x7FFFFFFFu},
    {"--body", NUMBER(body_bytes), BL_MIN_BODY_BYTES, 65535},
    {"--send-body", NUMBER(send_body_bytes), BL_MIN_BODY_BYTES, 65535},
    {"--window", NUMBER(window_bytes), BL_MIN_BODY_BYTES, 0x7FFFFFFFu},
    {"--boot-count", NUMBER(boot_count), 0, 0xFFFFFFFFu},
    {"--compute-us", NUMBER(compute_us), 0, 0xFFFFFFFFu},
    {"--codings", NUMBER(limits.codings), 0, BL_CODING_RUNS | BL_CODING_CODES},
    {"--ranges", NUMBER(limits.ranges), 0, BL_MAX_RANGES},
    {"--rate-fd", NUMBER(rate_fd), 0, 1u << 20},
    {"--boot-baud", NUMBER(boot_baud), 1, 0x7FFFFFFFu},
    {"--max-baud", NUMBER(max_baud), 1, 0x7FFFFFFFu},
};

static void set_number(uint8_t *at, size_t bytes, uint32_t number)
{
    uint8_t byte = (uint8_t)number;
    uint16_t half = (uint16_t)number;

    memcpy(at, bytes == 1 ? (const void *)&byte : bytes == 2 ? (const void *)&half : (const void *)&number, bytes);
}

static int parse_option(native_options *o, const char *option, const char *value)
{
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        uint32_t number;
        if (strcmp(option, numbers[i].name) == 0) {
            if (!parse_number(value, numbers[i].least, numbers[i].most, &number)) {
                return fail("not a value for this option", option);
            }
            set_number((uint8_t *)o + numbers[i].offset, numbers[i].bytes, number);
            return GO_ON;
        }
    }
    if (strcmp(option, "--board") == 0 || strcmp(option, "--board-name") == 0) {
        o->board = value;
        return GO_ON;
    }
    if (strcmp(option, "--fault") == 0) {
        const char *problem = faults_add(&o->faults, value);
        return problem != NULL ? fail(problem, value) : GO_ON;
    }
    return fail("an unknown option", option);
}

/* What one option alone cannot tell. */
static int judge(native_options *o, bool has_baud)
{
    if (o->send_body_bytes == 0) {
        o->send_body_bytes = o->body_bytes;
    }
    if (o->fd >= 0 && o->port >= 0) {
        return fail("only one of these makes sense", "--fd, --port");
    }
    if (o->fd < 0 && o->port < 0) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (has_baud && o->rate_fd < 0) {
        return fail("this needs --rate-fd", "--boot-baud, --max-baud");
    }
    if (o->boot_baud > o->max_baud) {
        return fail("the rate at boot is above the most", "--boot-baud, --max-baud");
    }
    return GO_ON;
}

int native_options_parse(native_options *o, int argc, char **argv)
{
    bool has_baud = false;

    memset(o, 0, sizeof *o);
    o->fd = -1;
    o->port = -1;
    o->arena_bytes = 16777216;
    o->body_bytes = 4096;
    o->window_bytes = 65536;
    o->boot_count = 1;
    o->board = "native";
    o->rate_fd = -1;
    o->boot_baud = 115200;
    o->max_baud = 2000000;
    o->limits = native_limits_none();
    for (int i = 1; i < argc; i++) {
        int status;
        if (strcmp(argv[i], "--help") == 0) {
            (void)fputs(usage, stdout);
            return 0;
        }
        if (parse_flag(o, argv[i])) {
            continue;
        }
        if (i + 1 == argc) {
            return fail("a value is missing, or the option is unknown", argv[i]);
        }
        has_baud = has_baud || strcmp(argv[i], "--boot-baud") == 0 || strcmp(argv[i], "--max-baud") == 0;
        status = parse_option(o, argv[i], argv[i + 1]);
        if (status != GO_ON) {
            return status;
        }
        i++;
    }
    return judge(o, has_baud);
}
