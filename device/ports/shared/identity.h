/* Who this build is. The build passes BL_FIRMWARE_HASH as 32 numbers: SHA-256 over the sources. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include "bl_base.h"

#ifndef BL_FIRMWARE_VERSION
#define BL_FIRMWARE_VERSION "0.1.0"
#endif

static const char bl_firmware_version[] BL_CONST = BL_FIRMWARE_VERSION;

#if defined(BL_FIRMWARE_HASH)
static const uint8_t bl_firmware_hash[BL_HASH_BYTES] BL_CONST = {BL_FIRMWARE_HASH};
#else
#define bl_firmware_hash NULL
#endif

#endif /* IDENTITY_H */
