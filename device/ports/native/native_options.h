/* The command line of bitloop-sim. */
#ifndef NATIVE_OPTIONS_H
#define NATIVE_OPTIONS_H

#include "native_faults.h"

typedef struct {
    bool listens;          /* else `fd` is an inherited socket */
    int fd;
    uint16_t port;         /* 0: any */
    uint32_t arena_bytes;
    uint16_t body_bytes;
    uint32_t window_bytes;
    uint32_t boot_count;
    const char *board;
    faults faults;
} native_options;

/* Read the command line. Returns -1 to go on, or what the program is to exit with; problems are written to stderr. */
int native_options_parse(native_options *options, int argc, char **argv);

#endif /* NATIVE_OPTIONS_H */
