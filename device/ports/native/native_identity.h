/* Who this build is. The build passes BL_FIRMWARE_HASH as 32 numbers: SHA-256 over device/core and this port. */
#ifndef NATIVE_IDENTITY_H
#define NATIVE_IDENTITY_H

#include <stdint.h>

/* The host's caches are large: a table for every code of up to 8 bits. */
#define NATIVE_TABLE_BITS 8

#ifndef BL_FIRMWARE_VERSION
#define BL_FIRMWARE_VERSION "0.1.0"
#endif

static const char native_firmware_version[] = BL_FIRMWARE_VERSION;

#if defined(BL_FIRMWARE_HASH)
static const uint8_t native_firmware_hash[32] = {BL_FIRMWARE_HASH};
#else
#define native_firmware_hash NULL
#endif

static const char native_isa[] =
#if defined(__x86_64__) || defined(_M_X64)
    "x86_64";
#elif defined(__aarch64__) || defined(_M_ARM64)
    "aarch64";
#elif defined(__riscv)
    "riscv";
#else
    "host";
#endif

#endif /* NATIVE_IDENTITY_H */
