/* The simulated device's line: a stream socket, with a window of received bytes, and the rate that it would have. */
#ifndef NATIVE_LINE_H
#define NATIVE_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int fd;
    int rate_fd;          /* is told each change of the rate; -1: the rate is nobody's business */
    bool closed;
    uint8_t *input;       /* received bytes [begin, end) that the core has not read */
    size_t input_capacity;
    size_t input_begin;
    size_t input_end;
} native_line;

/* Serve `fd`, which becomes non-blocking. `input` has `capacity` bytes. Returns false if it is no socket to be used. */
bool native_line_init(native_line *line, int fd, int rate_fd, uint8_t *input, size_t capacity);

/* Up to `capacity` received bytes, without waiting. */
size_t native_line_read(native_line *line, uint8_t *data, size_t capacity);

/* Send all of it, and receive meanwhile. Gives up when the other side closes. */
void native_line_send(native_line *line, const uint8_t *data, size_t length);

/* Wait until there is something to read, for `timeout_ms` at most; -1: for ever. */
void native_line_wait(native_line *line, int timeout_ms);

/* What was received and not read is lost. */
void native_line_forget(native_line *line);

/* Tell the rate, behind all that was sent before. */
void native_line_tell_rate(native_line *line, uint32_t baud);

/* Neither read nor write until the other side closes. */
void native_line_hang(native_line *line);

/* Wait on 127.0.0.1, port `port` (0: any), print the port, and return the socket of who connects first; -1 with errno
 * set if that cannot be done. */
int native_line_accept(uint16_t port);

#endif /* NATIVE_LINE_H */
