/* Text of last words, built without a library. */
#ifndef BL_TEXT_H
#define BL_TEXT_H

#include <stdint.h>

/* Both return where the text goes on; no zero byte is written. */
static inline uint8_t *bl_text_put(uint8_t *at, const char *text)
{
    while (*text != 0) {
        *at++ = (uint8_t)*text++;
    }
    return at;
}

/* `name`, then `word` in eight hexadecimal digits. */
static inline uint8_t *bl_text_put_word(uint8_t *at, const char *name, uint32_t word)
{
    at = bl_text_put(at, name);
    for (unsigned shift = 32; shift > 0;) {
        shift -= 4;
        *at++ = (uint8_t)"0123456789abcdef"[(word >> shift) & 15u];
    }
    return at;
}

#endif /* BL_TEXT_H */
