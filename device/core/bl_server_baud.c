#include "bl_server_internal.h"

static bool can_change(const bl_server *server)
{
    return server->port->nearest_baud != NULL;
}

static bool is_changed(const bl_server *server)
{
    return can_change(server) && server->baud.asked != server->port->boot_baud;
}

/* A frame whose beginning came at another rate is none. */
static void change(bl_server *server, uint32_t baud)
{
    bl_server_baud *b = &server->baud;

    server->port->set_baud(server->port->context, baud);
    bl_server_begin_decoder(server);
    b->asked = baud;
    b->committed = false;
    b->polled_ms = server->port->milliseconds(server->port->context);
    b->silent_ms = 0;
    b->noise_ms = 0;
    b->noise = false;
}

uint32_t bl_server_baud_now(const bl_server *server)
{
    if (!is_changed(server)) {
        return server->port->boot_baud;
    }
    return server->port->nearest_baud(server->port->context, server->baud.asked);
}

void bl_server_baud_request(bl_server *server, const bl_request *request)
{
    const bl_port *port = server->port;
    uint32_t asked;
    uint32_t rate;

    if (!can_change(server)) {
        bl_server_error(server, request, BL_BAD_TYPE, request->type, 0);
        return;
    }
    if (!bl_server_expect(server, request, 4)) {
        return;
    }
    asked = bl_load_u32(request->body);
    rate = asked > 0 && asked <= port->max_baud ? port->nearest_baud(port->context, asked) : 0;
    if (rate == 0) {
        bl_server_error(server, request, BL_BAD_ARGUMENT, 0, 0);
        return;
    }
    bl_store_u32(bl_server_body(server), rate);
    bl_server_answer(server, request, BL_MSG_BAUD_READY, 4);
    change(server, asked);
}

void bl_server_baud_commit(bl_server *server, const bl_request *request)
{
    if (!can_change(server)) {
        bl_server_error(server, request, BL_BAD_TYPE, request->type, 0);
        return;
    }
    if (!bl_server_expect(server, request, 4)) {
        return;
    }
    if (bl_load_u32(request->body) != server->baud.asked) {
        bl_server_error(server, request, BL_BAD_STATE, server->state, 0);
        return;
    }
    server->baud.committed = true;
    bl_store_u32(bl_server_body(server), server->baud.asked);
    bl_server_answer(server, request, BL_MSG_BAUD_DONE, 4);
}

/* Milliseconds up to BL_BAUD_SILENCE_MS, where they stay. */
static uint16_t add(uint16_t sum, uint32_t more)
{
    return more < (uint32_t)(BL_BAUD_SILENCE_MS - sum) ? (uint16_t)(sum + more) : BL_BAUD_SILENCE_MS;
}

static bool is_lost(const bl_server_baud *b)
{
    if (!b->committed) {
        return b->silent_ms >= BL_BAUD_TRIAL_MS;
    }
    return b->silent_ms >= BL_BAUD_SILENCE_MS || b->noise_ms >= BL_BAUD_NOISE_MS;
}

void bl_server_baud_poll(bl_server *server, bool bytes_came, bool frame_came)
{
    bl_server_baud *b = &server->baud;
    uint32_t now;
    uint32_t passed;

    if (!is_changed(server)) {
        return;
    }
    now = server->port->milliseconds(server->port->context);
    passed = now - b->polled_ms;
    b->polled_ms = now;
    if (frame_came) {
        b->silent_ms = 0;
        b->noise_ms = 0;
        b->noise = false;
        return;
    }
    b->silent_ms = add(b->silent_ms, passed);
    b->noise_ms = b->noise ? add(b->noise_ms, passed) : 0;
    b->noise = b->noise || bytes_came;
    if (is_lost(b)) {
        change(server, server->port->boot_baud);
    }
}

void bl_server_baud_skip(bl_server *server)
{
    if (is_changed(server)) {
        server->baud.polled_ms = server->port->milliseconds(server->port->context);
    }
}
