/* What a family of boards brings to the sketch. One of arduino_avr.cpp, arduino_esp32.cpp and arduino_other.cpp is not
 * empty, by the architecture. C++11: the oldest compiler that it is built with is GCC 5. */
#ifndef ARDUINO_BOARD_H
#define ARDUINO_BOARD_H

#include "bl_port.h"

/* Baud of the line; one over USB takes any. */
#ifndef BL_BAUD
#define BL_BAUD 115200
#endif

/* Name of the board, as the catalogue has it (host/bitloop/boards). */
#ifndef BL_BOARD
#define BL_BOARD arduino
#endif

#define ARDUINO_TEXT(macro) ARDUINO_TEXT_OF(macro)
#define ARDUINO_TEXT_OF(text) #text

/* Bytes of arena to use at most: `qemu://` writes another number here. In BL_CONST memory; read it with
 * arduino_arena_cap. */
extern "C" const uint32_t bl_port_arena_cap;

/* That many bytes, a multiple of 4. */
uint32_t arduino_arena_cap(void);

/* Start line and timer, and fill in all but the identity. The port is zero before. */
void arduino_start(bl_port *port);

/* Call `serve`, which never returns, where nothing disturbs it. */
void arduino_run(void (*serve)(void));

/* Wait for bytes; may end without any. */
void arduino_wait(void);

/* Called after each piece of work, an image at most. */
void arduino_worked(void);

#endif /* ARDUINO_BOARD_H */
