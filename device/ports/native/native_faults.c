#include "native_faults.h"

const fault *faults_find(const faults *all, fault_kind kind)
{
    for (unsigned i = 0; i < all->count; i++) {
        if (all->list[i].kind == kind) {
            return &all->list[i];
        }
    }
    return NULL;
}

bool faults_due(const faults *all, fault_kind kind, uint32_t frames)
{
    const fault *f = faults_find(all, kind);

    return f != NULL && frames >= f->after;
}

double faults_random(faults *all)
{
    uint32_t x = all->random != 0 ? all->random : 1u;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    all->random = x;
    return (double)x / 4294967296.0;
}

/* --- a wrong line -------------------------------------------------------------------------------------------------- */

size_t faults_apply_line(faults *all, uint32_t frames, uint8_t *bytes, size_t length)
{
    const fault *noise = faults_find(all, FAULT_NOISE);
    size_t kept = 0;

    for (size_t i = 0; faults_due(all, FAULT_GARBAGE, frames) && i < length; i++) {
        bytes[i] = (uint8_t)(faults_random(all) * 256.0);
    }
    if (noise == NULL) {
        return length;
    }
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = bytes[i];
        if (faults_random(all) < noise->drop) {
            continue;
        }
        if (faults_random(all) < noise->flip) {
            byte ^= (uint8_t)(1u << (unsigned)(faults_random(all) * 8.0));
        }
        bytes[kept++] = byte;
    }
    return kept;
}

/* --- wrong memory ------------------------------------------------------------------------------------------------- */

static bool is_bias_tensor(const uint8_t *arena, const bl_image_header *header, uint32_t tensor)
{
    for (uint16_t i = 0; i < header->layers; i++) {
        bl_image_layer layer;
        bl_image_read_layer(arena, i, &layer);
        if (layer.biases == tensor) {
            return true;
        }
    }
    return false;
}

/* Bit of an element's code that is flipped if none was asked for: one that surely matters. */
static uint32_t weighty_bit(const bl_format *format)
{
    if (format->kind == BL_FORMAT_FLOAT) {
        return format->mantissa_bits > 0 ? format->mantissa_bits - 1u : 0;
    }
    return format->kind == BL_FORMAT_INTEGER ? format->width / 2u : 0;
}

static const char *flip_code(const fault *f, uint8_t *arena, const bl_image_tensor *t)
{
    uint32_t row = f->element / t->columns;
    uint32_t column = f->element % t->columns;
    uint8_t *codes = arena + t->data + row * t->row_bytes;
    uint32_t bit = f->has_bit ? f->bit : weighty_bit(&t->format);

    if (t->chunk != 0) {
        return "the tensor's codes are not in the image: its weights are streamed";
    }
    if (row >= t->rows) {
        return "the tensor has no such element";
    }
    if (t->format.packing == BL_PACKING_TRITS) {
        static const uint8_t powers[BL_TRITS_PER_BYTE] = {1, 3, 9, 27, 81};
        uint8_t *byte = codes + column / BL_TRITS_PER_BYTE;
        uint8_t power = powers[column % BL_TRITS_PER_BYTE];
        /* A trit has no bits: the next digit, 2 becomes 0. */
        *byte = (uint8_t)(*byte / power % 3u == 2u ? *byte - 2u * power : *byte + power);
        return NULL;
    }
    if (bit >= t->format.width) {
        return "the format has no such bit";
    }
    bit += column * t->format.width;
    codes[bit / 8u] ^= (uint8_t)(1u << (bit % 8u));
    return NULL;
}

static const char *raise_scale(const fault *f, uint8_t *arena, const bl_image_tensor *t)
{
    uint32_t first = f->has_element ? f->element : 0;
    uint32_t last = f->has_element ? f->element : t->groups - 1u;

    if (t->scale_kind == BL_SCALE_NONE || last >= t->groups) {
        return "the tensor has no such scale";
    }
    for (uint32_t group = first; group <= last; group++) {
        uint8_t *scale = arena + t->scales + 4u * group;
        bl_store_u32(scale, bl_load_u32(scale) + (uint32_t)f->ulp);
    }
    return NULL;
}

const char *faults_apply_image(const faults *all, uint8_t *arena)
{
    bl_image_header header;
    const char *problem = NULL;

    bl_image_read_header(arena, &header);
    for (unsigned i = 0; problem == NULL && i < all->count; i++) {
        const fault *f = &all->list[i];
        bl_image_tensor tensor;
        if (f->kind == FAULT_LAYER && f->number >= header.layers) {
            return "the image has no such layer";
        }
        if (f->kind != FAULT_CODE && f->kind != FAULT_BIAS && f->kind != FAULT_SCALE) {
            continue;
        }
        if (f->number >= header.tensors) {
            return "the image has no such tensor";
        }
        if (f->kind != FAULT_SCALE &&
            is_bias_tensor(arena, &header, f->number) != (f->kind == FAULT_BIAS)) {
            return f->kind == FAULT_BIAS ? "the tensor holds no biases" : "the tensor holds biases";
        }
        bl_image_read_tensor(arena, header.layers, (uint16_t)f->number, &tensor);
        problem = f->kind == FAULT_SCALE ? raise_scale(f, arena, &tensor) : flip_code(f, arena, &tensor);
    }
    return problem;
}

/* --- wrong arithmetic --------------------------------------------------------------------------------------------- */

/* Floats as integers in the same order, and back. */
static int32_t ordered(uint32_t bits)
{
    return bits & 0x80000000u ? -(int32_t)(bits & 0x7FFFFFFFu) : (int32_t)bits;
}

static uint32_t from_ordered(int32_t value)
{
    return value < 0 ? 0x80000000u | (uint32_t)-value : (uint32_t)value;
}

/* The element of greatest magnitude: one that the layers behind do not leave out. */
static uint32_t weighty_element(const float *values, uint32_t count)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < count; i++) {
        if ((bl_float_bits(values[i]) & 0x7FFFFFFFu) > (bl_float_bits(values[best]) & 0x7FFFFFFFu)) {
            best = i;
        }
    }
    return best;
}

void faults_apply_layer(const faults *all, uint16_t layer, uint32_t image, float *output, uint32_t count)
{
    for (unsigned i = 0; i < all->count; i++) {
        const fault *f = &all->list[i];
        uint32_t element;
        if (f->kind != FAULT_LAYER || f->number != layer || (f->has_image && f->image != image)) {
            continue;
        }
        element = f->has_element ? f->element : weighty_element(output, count);
        if (element < count) {
            output[element] = bl_float_from_bits(from_ordered(ordered(bl_float_bits(output[element])) + f->ulp));
        }
    }
}

/* --- wrong answers ------------------------------------------------------------------------------------------------ */

/* The value of a field of a HELLO part, or NULL if the part does not hold it. */
static uint8_t *hello_field(uint8_t *body, size_t length, uint8_t tag)
{
    size_t at = 2;

    while (at + 2 <= length && at + 2 + body[at + 1] <= length) {
        if (body[at] == tag) {
            return body + at + 2;
        }
        at += 2u + body[at + 1];
    }
    return NULL;
}

static void flip_hello_hash(uint8_t *body, size_t length, uint8_t tag)
{
    uint8_t *hash = hello_field(body, length, tag);

    if (hash != NULL) {
        hash[0] ^= 1u;
    }
}

static void deny_layer_kind(uint8_t *body, size_t length, uint32_t kind)
{
    uint8_t *kinds = hello_field(body, length, BL_HELLO_LAYER_KINDS);

    if (kinds != NULL && kind < 32) {
        bl_store_u32(kinds, bl_load_u32(kinds) & ~((uint32_t)1 << kind));
    }
}

bool faults_change_frames(const faults *all)
{
    return faults_find(all, FAULT_VERSION) != NULL || faults_find(all, FAULT_HASH_IMAGE) != NULL ||
           faults_find(all, FAULT_HASH_FIRMWARE) != NULL || faults_find(all, FAULT_WITHOUT) != NULL;
}

size_t faults_apply_frame(const faults *all, uint8_t *frame, size_t length)
{
    uint8_t *body = frame + BL_FRAME_HEADER_BYTES;
    size_t body_length = length - BL_FRAME_HEADER_BYTES;
    const fault *version = faults_find(all, FAULT_VERSION);

    if (frame[0] == BL_MSG_HELLO && version != NULL) {
        if (body[0] != 0) {
            return 0;
        }
        /* What a device of another protocol answers to HELLO_REQUEST. */
        frame[0] = BL_MSG_ERROR;
        bl_store_u16(body, (uint16_t)BL_BAD_PROTOCOL);
        body[2] = BL_MSG_HELLO_REQUEST;
        body[3] = 0;
        bl_store_u32(body + 4, version->number);
        bl_store_u32(body + 8, 0);
        return BL_FRAME_HEADER_BYTES + 12;
    }
    if (frame[0] == BL_MSG_HELLO && faults_find(all, FAULT_HASH_FIRMWARE) != NULL) {
        flip_hello_hash(body, body_length, BL_HELLO_FIRMWARE_HASH);
    }
    if (frame[0] == BL_MSG_HELLO && faults_find(all, FAULT_WITHOUT) != NULL) {
        deny_layer_kind(body, body_length, faults_find(all, FAULT_WITHOUT)->number);
    }
    if (faults_find(all, FAULT_HASH_IMAGE) != NULL) {
        if (frame[0] == BL_MSG_HELLO) {
            flip_hello_hash(body, body_length, BL_HELLO_IMAGE_HASH);
        } else if (frame[0] == BL_MSG_UPLOAD_DONE) {
            body[0] ^= 1u;
        }
    }
    return length;
}
