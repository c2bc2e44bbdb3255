/* Reading a fault as it is written on the command line: KIND[:ARGUMENT][,KEY:VALUE]..., with ':' and '=' meaning the
 * same. */
#include "native_faults.h"

#include <stdlib.h>

static bool take_word(const char **text, const char *word)
{
    size_t length = strlen(word);

    if (strncmp(*text, word, length) != 0 || ((*text)[length] >= 'a' && (*text)[length] <= 'z')) {
        return false;
    }
    *text += length;
    return true;
}

static bool take_separator(const char **text)
{
    if (**text != ':' && **text != '=') {
        return false;
    }
    (*text)++;
    return true;
}

static bool take_number(const char **text, int64_t least, int64_t most, int64_t *value)
{
    char *end;
    long long number = strtoll(*text, &end, 0);

    if (end == *text || number < least || number > most) {
        return false;
    }
    *text = end;
    *value = number;
    return true;
}

static bool take_probability(const char **text, double *value)
{
    char *end;

    *value = strtod(*text, &end);
    if (end == *text || !(*value >= 0.0 && *value <= 1.0)) {
        return false;
    }
    *text = end;
    return true;
}

/* One KEY:VALUE behind the kind. */
static const char *take_option(faults *all, fault *f, const char **text)
{
    int64_t value = 0;

    if (take_word(text, "ulp")) {
        if (!take_separator(text) || !take_number(text, -1000000, 1000000, &value) || value == 0) {
            return "ulp: a whole number that is not 0 is expected";
        }
        f->ulp = (int32_t)value;
        return NULL;
    }
    if (take_word(text, "drop")) {
        return take_separator(text) && take_probability(text, &f->drop) ? NULL : "drop: a probability is expected";
    }
    if (take_word(text, "flip")) {
        return take_separator(text) && take_probability(text, &f->flip) ? NULL : "flip: a probability is expected";
    }
    if (take_word(text, "image")) {
        f->has_image = true;
        return take_separator(text) && take_number(text, 0, UINT32_MAX, &value) ? (f->image = (uint32_t)value, NULL)
                                                                                : "image: a number is expected";
    }
    if (take_word(text, "element")) {
        f->has_element = true;
        return take_separator(text) && take_number(text, 0, UINT32_MAX, &value) ? (f->element = (uint32_t)value, NULL)
                                                                                : "element: a number is expected";
    }
    if (take_word(text, "bit")) {
        f->has_bit = true;
        return take_separator(text) && take_number(text, 0, 31, &value) ? (f->bit = (uint32_t)value, NULL)
                                                                        : "bit: 0 to 31 is expected";
    }
    if (take_word(text, "after")) {
        f->has_after = true;
        return take_separator(text) && take_number(text, 0, UINT32_MAX, &value) ? (f->after = (uint32_t)value, NULL)
                                                                                : "after: a number of frames is expected";
    }
    if (f->kind == FAULT_RESET && take_word(text, "every")) {
        if (!take_separator(text) || !take_number(text, 1, UINT32_MAX, &value)) {
            return "every: a number of frames from 1 on is expected";
        }
        f->every = (uint32_t)value;
        return NULL;
    }
    if (take_word(text, "seed")) {
        if (!take_separator(text) || !take_number(text, 1, UINT32_MAX, &value)) {
            return "seed: a number from 1 on is expected";
        }
        all->random = (uint32_t)value;
        return NULL;
    }
    return "an unknown option";
}

static const char *take_kind(fault *f, const char **text)
{
    static const struct {
        const char *name;
        fault_kind kind;
    } numbered[] = {
        {"layer", FAULT_LAYER}, {"code", FAULT_CODE},   {"bias", FAULT_BIAS},
        {"scale", FAULT_SCALE}, {"probe", FAULT_PROBE}, {"version", FAULT_VERSION},
        {"without", FAULT_WITHOUT},
    }, delayed[] = {
        {"silent", FAULT_SILENT}, {"garbage", FAULT_GARBAGE}, {"crash", FAULT_CRASH},
        {"freeze", FAULT_FREEZE}, {"reset", FAULT_RESET},
    };
    int64_t value;

    for (size_t i = 0; i < sizeof numbered / sizeof numbered[0]; i++) {
        if (take_word(text, numbered[i].name)) {
            f->kind = numbered[i].kind;
            if (!take_separator(text) || !take_number(text, 0, 65535, &value)) {
                return "a number is expected behind the kind of fault";
            }
            f->number = (uint32_t)value;
            return NULL;
        }
    }
    for (size_t i = 0; i < sizeof delayed / sizeof delayed[0]; i++) {
        if (take_word(text, delayed[i].name)) {
            f->kind = delayed[i].kind;
            return NULL;
        }
    }
    if (take_word(text, "hash")) {
        (void)take_separator(text);
        if (take_word(text, "image")) {
            f->kind = FAULT_HASH_IMAGE;
            return NULL;
        }
        f->kind = FAULT_HASH_FIRMWARE;
        return take_word(text, "firmware") ? NULL : "hash: image or firmware is expected";
    }
    if (take_word(text, "log")) {
        f->kind = FAULT_LOG;
        return NULL;
    }
    f->kind = FAULT_NOISE;
    return strncmp(*text, "drop", 4) == 0 || strncmp(*text, "flip", 4) == 0 ? NULL : "an unknown kind of fault";
}

const char *faults_add(faults *all, const char *spec)
{
    fault *f = &all->list[all->count];
    const char *problem;

    if (all->count == NATIVE_FAULTS_MAX) {
        return "too many faults";
    }
    memset(f, 0, sizeof *f);
    f->ulp = 1;
    problem = take_kind(f, &spec);
    while (problem == NULL && *spec != '\0') {
        if (*spec == ',' || *spec == ':' || *spec == '=') {
            spec++;
        }
        problem = take_option(all, f, &spec);
    }
    if (problem == NULL) {
        f->after = f->has_after ? f->after : f->every;
        all->count++;
    }
    return problem;
}
