#include "native_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_USAGE = 2, GO_ON = -1 };

static const char usage[] =
    "usage: bitloop-sim (--fd N | --port N) [options]\n"
    "  --fd N           serve the inherited stream socket N\n"
    "  --port N         listen on 127.0.0.1, port N (0: any), print the port, serve the first who connects\n"
    "  --arena BYTES    memory for image, activations, tables and queue (default 16777216)\n"
    "  --body BYTES     longest frame body, 64 to 65535 (default 4096)\n"
    "  --window BYTES   received bytes that are held while the core is busy (default 65536)\n"
    "  --boot-count N   boot counter (default 1)\n"
    "  --board NAME     name of the board (default native)\n"
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
    "      reset:after=N                         after N frames everything is forgotten and the device boots again\n"
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

static int parse_option(native_options *o, const char *option, const char *value, bool *has_line)
{
    uint32_t number = 0;
    bool good = true;

    if (strcmp(option, "--fd") == 0) {
        good = !*has_line && parse_number(value, 0, 1u << 20, &number);
        o->fd = (int)number;
        *has_line = true;
    } else if (strcmp(option, "--port") == 0) {
        good = !*has_line && parse_number(value, 0, 65535, &number);
        o->port = (uint16_t)number;
        o->listens = true;
        *has_line = true;
    } else if (strcmp(option, "--arena") == 0) {
        good = parse_number(value, 0, 0x7FFFFFFFu, &o->arena_bytes);
    } else if (strcmp(option, "--body") == 0) {
        good = parse_number(value, BL_MIN_BODY_BYTES, 65535, &number);
        o->body_bytes = (uint16_t)number;
    } else if (strcmp(option, "--window") == 0) {
        good = parse_number(value, BL_MIN_BODY_BYTES, 0x7FFFFFFFu, &o->window_bytes);
    } else if (strcmp(option, "--boot-count") == 0) {
        good = parse_number(value, 0, 0xFFFFFFFFu, &o->boot_count);
    } else if (strcmp(option, "--board") == 0 || strcmp(option, "--board-name") == 0) {
        o->board = value;
    } else if (strcmp(option, "--fault") == 0) {
        const char *problem = faults_add(&o->faults, value);
        if (problem != NULL) {
            return fail(problem, value);
        }
    } else {
        return fail("an unknown option", option);
    }
    return good ? GO_ON : fail("not a value for this option", option);
}

int native_options_parse(native_options *o, int argc, char **argv)
{
    bool has_line = false;

    memset(o, 0, sizeof *o);
    o->arena_bytes = 16777216;
    o->body_bytes = 4096;
    o->window_bytes = 65536;
    o->boot_count = 1;
    o->board = "native";
    for (int i = 1; i < argc; i += 2) {
        int status;
        if (strcmp(argv[i], "--help") == 0) {
            (void)fputs(usage, stdout);
            return 0;
        }
        if (i + 1 == argc) {
            return fail("a value is missing, or the option is unknown", argv[i]);
        }
        status = parse_option(o, argv[i], argv[i + 1], &has_line);
        if (status != GO_ON) {
            return status;
        }
    }
    if (!has_line) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return GO_ON;
}
