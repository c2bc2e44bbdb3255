#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* POLLRDHUP */
#endif

#include "native_line.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* That the other side has closed, though bytes wait to be read: where it has no name, poll tells it unasked. */
#if !defined(POLLRDHUP)
#define POLLRDHUP 0
#endif

bool native_line_init(native_line *line, int fd, int rate_fd, uint8_t *input, size_t capacity)
{
    memset(line, 0, sizeof *line);
    line->fd = fd;
    line->rate_fd = rate_fd;
    line->input = input;
    line->input_capacity = capacity;
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) >= 0;
}

/* Take what the socket holds, as far as there is room. */
static void receive(native_line *line)
{
    ssize_t count;

    if (line->input_begin > 0) {
        memmove(line->input, line->input + line->input_begin, line->input_end - line->input_begin);
        line->input_end -= line->input_begin;
        line->input_begin = 0;
    }
    if (line->input_end == line->input_capacity) {
        return;
    }
    count = recv(line->fd, line->input + line->input_end, line->input_capacity - line->input_end, 0);
    if (count > 0) {
        line->input_end += (size_t)count;
    } else if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        line->closed = true;
    }
}

static void wait_for(native_line *line, bool writable, int timeout_ms)
{
    struct pollfd entry = {.fd = line->fd, .events = 0, .revents = 0};

    if (writable) {
        entry.events |= POLLOUT;
    }
    if (line->input_end - line->input_begin < line->input_capacity) {
        entry.events |= POLLIN;
    }
    (void)poll(&entry, 1, timeout_ms);
    if (entry.revents & (POLLIN | POLLHUP | POLLERR)) {
        receive(line);
    }
}

size_t native_line_read(native_line *line, uint8_t *data, size_t capacity)
{
    size_t count;

    if (line->input_begin == line->input_end) {
        receive(line);
    }
    count = line->input_end - line->input_begin;
    count = count < capacity ? count : capacity;
    memcpy(data, line->input + line->input_begin, count);
    line->input_begin += count;
    return count;
}

void native_line_send(native_line *line, const uint8_t *data, size_t length)
{
    while (length > 0 && !line->closed) {
        ssize_t count = send(line->fd, data, length, MSG_NOSIGNAL);
        if (count > 0) {
            data += count;
            length -= (size_t)count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            wait_for(line, true, -1);
        } else if (errno != EINTR) {
            line->closed = true;
        }
    }
}

void native_line_wait(native_line *line, int timeout_ms)
{
    wait_for(line, false, timeout_ms);
}

void native_line_forget(native_line *line)
{
    line->input_begin = 0;
    line->input_end = 0;
}

void native_line_tell_rate(native_line *line, uint32_t baud)
{
    uint8_t bytes[4];

    for (unsigned i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(baud >> 8u * i);
    }
    /* Four bytes go into a pipe at once or not at all. One whose reader is gone has nobody to tell. */
    if (line->rate_fd >= 0 && write(line->rate_fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes) {
        line->rate_fd = -1;
    }
}

void native_line_hang(native_line *line)
{
    struct pollfd entry = {.fd = line->fd, .events = POLLRDHUP, .revents = 0};

    do {
        (void)poll(&entry, 1, -1);
    } while (!(entry.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)));
    line->closed = true;
}

int native_line_accept(uint16_t port)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int fd;
    int on = 1;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        return -1;
    }
    (void)printf("%u\n", (unsigned)ntohs(address.sin_port));
    (void)fflush(stdout);
    fd = accept(listener, NULL, NULL);
    (void)close(listener);
    if (fd >= 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fd;
}
