#include <stdint.h>
#include <string.h>

/* Without this GCC sees through the loops below, and calls the very function they are in. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

/* A word that may overlay anything. */
typedef uint32_t __attribute__((may_alias)) word;
enum { WORD_BYTES = sizeof(word) };

static inline int on_words(const void *a, const void *b)
{
    return (((uintptr_t)a | (uintptr_t)b) & (WORD_BYTES - 1u)) == 0;
}

void *memcpy(void *to, const void *from, size_t count)
{
    uint8_t *out = to;
    const uint8_t *in = from;

    if (on_words(to, from)) {
        for (; count >= WORD_BYTES; count -= WORD_BYTES, out += WORD_BYTES, in += WORD_BYTES) {
            *(word *)(void *)out = *(const word *)(const void *)in;
        }
    }
    for (; count > 0; count--) {
        *out++ = *in++;
    }
    return to;
}

/* Words go where both begin on one; the last count % 4 bytes come first when it is done from the end. */
void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *out = to;
    const uint8_t *in = from;

    if ((uintptr_t)out - (uintptr_t)in >= count) {
        return memcpy(to, from, count); /* in ascending order, which is what memcpy above does */
    }
    if (on_words(to, from)) {
        for (; count % WORD_BYTES != 0; count--) {
            out[count - 1u] = in[count - 1u];
        }
        for (; count > 0; count -= WORD_BYTES) {
            *(word *)(void *)(out + count - WORD_BYTES) = *(const word *)(const void *)(in + count - WORD_BYTES);
        }
    }
    for (; count > 0; count--) {
        out[count - 1u] = in[count - 1u];
    }
    return to;
}

void *memset(void *to, int byte, size_t count)
{
    uint8_t *out = to;
    const word fill = (uint8_t)byte * (word)0x01010101u;

    for (; count > 0 && ((uintptr_t)out & (WORD_BYTES - 1u)) != 0; count--) {
        *out++ = (uint8_t)byte;
    }
    for (; count >= WORD_BYTES; count -= WORD_BYTES, out += WORD_BYTES) {
        *(word *)(void *)out = fill;
    }
    for (; count > 0; count--) {
        *out++ = (uint8_t)byte;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const uint8_t *left = a;
    const uint8_t *right = b;

    for (size_t i = 0; i < count; i++) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}
