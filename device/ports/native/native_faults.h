/* Faults of the simulated device, injected below and around the core (docs/device.md, "Faults"). */
#ifndef NATIVE_FAULTS_H
#define NATIVE_FAULTS_H

#include "../../core/bl_server.h"

#define NATIVE_FAULTS_MAX 16

typedef enum {
    FAULT_LAYER,    /* an output of a layer is some ulp off */
    FAULT_CODE,     /* a bit of a stored code is flipped, after the checks */
    FAULT_BIAS,     /* the same, in a bias tensor */
    FAULT_SCALE,    /* scales are some ulp off, after the checks */
    FAULT_HASH_IMAGE,
    FAULT_HASH_FIRMWARE,
    FAULT_PROBE,    /* one probe result has a wrong bit */
    FAULT_VERSION,  /* the device speaks another protocol */
    FAULT_WITHOUT,  /* the device says that it does not know a kind of layer */
    FAULT_SILENT,   /* these five begin when `after` frames have been sent */
    FAULT_GARBAGE,
    FAULT_CRASH,
    FAULT_FREEZE,
    FAULT_RESET,    /* and again each time that `every` more were */
    FAULT_NOISE,    /* sent bytes are lost or have a bit flipped */
    FAULT_LOG       /* a LOG frame and raw text at boot */
} fault_kind;

typedef struct {
    fault_kind kind;
    uint32_t number; /* layer, tensor, probe case or version */
    int32_t ulp;
    bool has_image;
    bool has_element;
    bool has_bit;
    bool has_after;
    uint32_t image;
    uint32_t element;
    uint32_t bit;
    uint32_t after;
    uint32_t every; /* 0: once */
    double drop;
    double flip;
} fault;

typedef struct {
    fault list[NATIVE_FAULTS_MAX];
    unsigned count;
    uint32_t random; /* state of a xorshift generator */
} faults;

/* Add a fault as written on the command line. Returns NULL, or what is wrong with it. */
const char *faults_add(faults *all, const char *spec);

/* The first fault of a kind, or NULL. */
const fault *faults_find(const faults *all, fault_kind kind);

/* Has a fault of this kind begun, now that `frames` were sent? */
bool faults_due(const faults *all, fault_kind kind, uint32_t frames);

/* Make noise of what is about to be sent. Returns the new length, which is not longer. */
size_t faults_apply_line(faults *all, uint32_t frames, uint8_t *bytes, size_t length);

/* Change the arena after an image was accepted. Returns NULL, or why a fault does not fit the image. */
const char *faults_apply_image(const faults *all, uint8_t *arena);

/* Change a layer's output; `image` is the image's index in the run. */
void faults_apply_layer(const faults *all, uint16_t layer, uint32_t image, float *output, uint32_t count);

/* Is there a fault that changes frames? */
bool faults_change_frames(const faults *all);

/* Change a decoded frame that is about to be sent; its CRC is rewritten afterwards. Returns the new length (without
 * CRC), or 0: the frame is not to be sent. `length` is without CRC too. */
size_t faults_apply_frame(const faults *all, uint8_t *frame, size_t length);

/* A random number, uniform in [0, 1). */
double faults_random(faults *all);

#endif /* NATIVE_FAULTS_H */
