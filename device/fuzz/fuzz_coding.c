/* libFuzzer target: any bytes decoded with any table, held against a decoder written from docs/protocol.md. An input is
 *     u8 flags      bit 0: runs, bit 1: codes, bit 2: the table's lengths are those of a complete code
 *     u16 count     decoded bytes that are asked for
 *     u8 length, bytes of which the table is made
 *     the coded bytes; they also say in which pieces they are decoded */
#include "fuzz_common.h"

enum { MOST_BYTES = 4096, NO_NODE = -1, NODES = 2 * BL_CODE_SYMBOLS };

/* A tree of codes: where each bit leads, and the symbol of a leaf. */
typedef struct {
    int next[NODES][2];
    int symbol[NODES];
    int nodes;
} tree;

typedef struct {
    const uint8_t *data;
    size_t length;
    size_t bits; /* taken */
    const tree *codes; /* NULL: bytes are no codes */
} source;

static unsigned length_of(const uint8_t *lengths, unsigned symbol)
{
    return lengths[symbol / 2u] >> 4u * (symbol & 1u) & 15u;
}

/* RFC 1951, 3.2.2. Returns whether the code is complete, or of one symbol with length 1. */
static bool make_tree(tree *t, const uint8_t *lengths)
{
    unsigned count[BL_MAX_CODE_BITS + 1] = {0};
    unsigned next_code[BL_MAX_CODE_BITS + 1] = {0};
    unsigned code = 0, symbols = 0;
    double space = 0.0;

    for (unsigned symbol = 0; symbol < BL_CODE_SYMBOLS; symbol++) {
        unsigned length = length_of(lengths, symbol);
        if (length > 0) {
            count[length]++;
            symbols++;
            space += 1.0 / (double)(1u << length);
        }
    }
    if (!(space == 1.0 || (symbols == 1 && count[1] == 1))) {
        return false;
    }
    for (unsigned bits = 1; bits <= BL_MAX_CODE_BITS; bits++) {
        code = (code + count[bits - 1u]) << 1;
        next_code[bits] = code;
    }
    t->nodes = 1;
    t->next[0][0] = t->next[0][1] = t->symbol[0] = NO_NODE;
    for (unsigned symbol = 0; symbol < BL_CODE_SYMBOLS; symbol++) {
        unsigned length = length_of(lengths, symbol);
        int node = 0;
        code = length > 0 ? next_code[length]++ : 0;
        for (unsigned bit = length; bit-- > 0;) {
            int *next = &t->next[node][code >> bit & 1u];
            if (*next == NO_NODE) {
                *next = t->nodes++;
                t->next[*next][0] = t->next[*next][1] = t->symbol[*next] = NO_NODE;
            }
            node = *next;
        }
        if (length > 0) {
            t->symbol[node] = (int)symbol;
        }
    }
    return true;
}

/* The next byte, or -1. */
static int take_byte(source *s)
{
    int node = 0;

    if (s->codes == NULL) {
        if (s->bits / 8u >= s->length) {
            return -1;
        }
        s->bits += 8;
        return s->data[s->bits / 8u - 1u];
    }
    while (s->codes->symbol[node] == NO_NODE) {
        if (s->bits / 8u >= s->length) {
            return -1;
        }
        node = s->codes->next[node][s->data[s->bits / 8u] >> s->bits % 8u & 1u];
        s->bits++;
        if (node == NO_NODE) {
            return -1;
        }
    }
    return s->codes->symbol[node];
}

/* All of it. Returns whether it is right. */
static bool decode(source *s, bool runs, uint8_t *to, size_t count)
{
    size_t done = 0;

    while (done < count) {
        int byte = take_byte(s);
        size_t bytes = 1;
        bool zeros = false;
        if (byte < 0) {
            return false;
        }
        if (runs) {
            zeros = byte >= 128;
            bytes = zeros ? (size_t)byte - 127u : (size_t)byte + 1u;
            if (bytes > count - done) {
                return false;
            }
        }
        for (size_t i = 0; i < bytes; i++) {
            int value = !runs ? byte : zeros ? 0 : take_byte(s);
            if (value < 0) {
                return false;
            }
            to[done++] = (uint8_t)value;
        }
    }
    return (s->bits + 7u) / 8u == s->length;
}

/* By the core, in pieces of which `sizes` tells (NULL: in one); some are passed over if `some` is true. */
static bool decode_by_core(uint8_t kind, const uint8_t *table, const uint8_t *data, size_t length, uint8_t *to,
                           uint16_t count, const uint8_t *sizes, bool some)
{
    bl_coding coding;
    uint16_t done = 0;

    bl_coding_begin(&coding, kind, table, data, (uint16_t)length, count);
    for (size_t i = 0; done < count; i++) {
        uint16_t left = (uint16_t)(count - done);
        uint16_t piece = sizes != NULL && length > 0 ? (uint16_t)(1u + sizes[i % length]) : left;
        piece = piece < left ? piece : left;
        if (!bl_coding_read(&coding, some && i % 2u == 1u ? NULL : to + done, piece)) {
            return false;
        }
        done = (uint16_t)(done + piece);
        fuzz_require(coding.left == count - done, "it knows what is left");
    }
    return bl_coding_is_done(&coding);
}

/* A table of these lengths; NULL if they are no code. See that the core finds the same. */
static const uint8_t *make_table(const uint8_t *lengths, uint8_t *table, tree *t)
{
    bool good = make_tree(t, lengths);
    uint8_t other[BL_CODE_LENGTHS_BYTES];

    memcpy(bl_coding_lengths(table), lengths, BL_CODE_LENGTHS_BYTES);
    fuzz_require(bl_coding_make_table(table) == good, "the core takes what is a code");
    if (!good) {
        return NULL;
    }
    memcpy(other, lengths, sizeof other);
    other[lengths[0] % BL_CODE_LENGTHS_BYTES] ^= 1u;
    fuzz_require(bl_coding_table_has(table, 0, lengths, BL_CODE_LENGTHS_BYTES), "a table has its lengths");
    fuzz_require(!bl_coding_table_has(table, 0, other, BL_CODE_LENGTHS_BYTES), "and no others");
    return table;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tree codes;
    uint8_t lengths[BL_CODE_LENGTHS_BYTES] = {0};
    uint8_t *table = malloc(BL_CODE_TABLE_BYTES);
    const uint8_t *made = NULL;
    uint8_t kind;
    uint16_t count;
    size_t bytes;

    fuzz_require(table != NULL, "there is memory");
    if (size >= 4) {
        kind = data[0] & (BL_CODING_RUNS | BL_CODING_CODES);
        count = (uint16_t)(bl_load_u16(data + 1) % (MOST_BYTES + 1u));
        bytes = data[3] < size - 4 ? data[3] : size - 4;
        if (data[0] & 4u) {
            fuzz_code_lengths(data + 4, bytes, lengths);
        } else {
            memcpy(lengths, data + 4, bytes < sizeof lengths ? bytes : sizeof lengths);
        }
        made = make_table(lengths, table, &codes);
        data += 4 + bytes;
        size -= 4 + bytes;
        if (count > 0 && (made != NULL || !(kind & BL_CODING_CODES))) {
            source s = {data, size, 0, kind & BL_CODING_CODES ? &codes : NULL};
            uint8_t *expected = malloc(count);
            uint8_t *whole = malloc(count); /* of exactly its size: the sanitizers watch its ends */
            uint8_t *pieces = malloc(count);
            uint8_t *some = malloc(count);
            bool good = decode(&s, (kind & BL_CODING_RUNS) != 0, expected, count);
            fuzz_require(decode_by_core(kind, made, data, size, whole, count, NULL, false) == good, "as the page says");
            fuzz_require(decode_by_core(kind, made, data, size, pieces, count, data, false) == good, "in pieces too");
            fuzz_require(decode_by_core(kind, made, data, size, some, count, data, true) == good, "or some of them");
            fuzz_require(!good || (memcmp(whole, expected, count) == 0 && memcmp(pieces, expected, count) == 0),
                         "the bytes are right");
            free(expected);
            free(whole);
            free(pieces);
            free(some);
        }
    }
    free(table);
    return 0;
}
