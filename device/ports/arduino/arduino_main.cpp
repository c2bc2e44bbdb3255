/* The sketch, for every board that runs Arduino: fills in a bl_port and serves. */
#include <Arduino.h>

#include "arduino_board.h"
#include "bl_server.h"
#include "identity.h"

static const char board_name[] BL_CONST = ARDUINO_TEXT(BL_BOARD);

/* Read through volatile, or from flash: the compiler must not know the number. */
__attribute__((used)) const uint32_t bl_port_arena_cap BL_CONST = 0xFFFFFFFFu;

static bl_server server;
static bl_port port;

uint32_t arduino_arena_cap(void)
{
    return bl_const_u32((const volatile uint32_t *)&bl_port_arena_cap) & ~(uint32_t)3u;
}

static void serve(void)
{
    arduino_start(&port);
    port.firmware_version = bl_firmware_version;
    port.firmware_hash = bl_firmware_hash;
    port.board = board_name;
    port.ternary_packing = BL_PACKING_BITS;
    bl_server_init(&server, &port);
    for (;;) {
        if (bl_server_poll(&server)) {
            arduino_worked();
        } else {
            arduino_wait();
        }
    }
}

void setup(void)
{
    arduino_run(serve);
}

void loop(void)
{
}
