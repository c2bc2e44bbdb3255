/* The 256 quotients fl(p / 255) as a constant, for ports whose flash is read like RAM: 1 KB of flash, no RAM. The
 * compiler rounds each quotient to nearest even, as docs/arithmetic.md wants. */
#ifndef BL_PIXEL_TABLE_H
#define BL_PIXEL_TABLE_H

#define BL_PIXELS_1(p) (float)(p) / 255.0f
#define BL_PIXELS_4(p) BL_PIXELS_1(p), BL_PIXELS_1((p) + 1), BL_PIXELS_1((p) + 2), BL_PIXELS_1((p) + 3)
#define BL_PIXELS_16(p) BL_PIXELS_4(p), BL_PIXELS_4((p) + 4), BL_PIXELS_4((p) + 8), BL_PIXELS_4((p) + 12)
#define BL_PIXELS_64(p) BL_PIXELS_16(p), BL_PIXELS_16((p) + 16), BL_PIXELS_16((p) + 32), BL_PIXELS_16((p) + 48)

static const float bl_pixel_table[256] = {
    BL_PIXELS_64(0),
    BL_PIXELS_64(64),
    BL_PIXELS_64(128),
    BL_PIXELS_64(192),
};

#endif /* BL_PIXEL_TABLE_H */
