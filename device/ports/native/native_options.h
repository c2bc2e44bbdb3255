/* The command line of bitloop-sim. */
#ifndef NATIVE_OPTIONS_H
#define NATIVE_OPTIONS_H

#include "native_faults.h"
#include "native_limits.h"

typedef struct {
    int32_t fd;            /* an inherited socket; -1: it listens */
    int32_t port;          /* on 127.0.0.1; 0: any, -1: it does not listen */
    uint32_t arena_bytes;
    uint16_t body_bytes;
    uint16_t send_body_bytes;
    uint32_t window_bytes;
    uint32_t boot_count;
    const char *board;
    uint32_t compute_us;   /* the least that an image takes */
    int32_t rate_fd;         /* -1: the line's rate cannot be changed */
    uint32_t boot_baud;
    uint32_t max_baud;
    native_limits limits;
    faults faults;
} native_options;

/* Read the command line. Returns -1 to go on, or what the program is to exit with; problems are written to stderr. */
int native_options_parse(native_options *options, int argc, char **argv);

#endif /* NATIVE_OPTIONS_H */
