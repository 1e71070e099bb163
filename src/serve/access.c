/* Owns the decisions that are made from headers alone. */
#include "serve/access.h"

#include "serve/api.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* Every byte of what was given is looked at, whatever the key is. */
static unsigned differ(const char *given, size_t n, const char *key)
{
    size_t n_key = strlen(key);
    unsigned diff = n != n_key;
    for (size_t i = 0; i < n && n_key; i++)
        diff |= (unsigned char)given[i] ^ (unsigned char)key[i % n_key];
    return diff | !n_key;
}

bool access_key_ok(const char *authorization, const char *const *keys, size_t n_keys)
{
    unsigned found = 0;
    if (!n_keys)
        return true;
    if (!authorization || strncasecmp(authorization, "Bearer ", 7))
        return false;
    const char *given = authorization + 7;
    given += strspn(given, " ");
    size_t n = strlen(given);
    while (n && given[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n_keys; i++)
        found |= !differ(given, n, keys[i]);
    return found;
}

const char *access_origin(const char *origin, const char *const *origins,
                          size_t n_origins)
{
    const char *any = NULL;
    for (size_t i = 0; origin && i < n_origins; i++) {
        if (!strcmp(origins[i], "*"))
            any = origins[i];
        else if (!strcasecmp(origins[i], origin))
            return origins[i];
    }
    return any;
}

static bool usable(const char *id)
{
    size_t n = id ? strspn(id, "abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
                  : 0;
    return n && n <= 64 && !id[n];
}

void access_request_id(const char *given, char out[static ACCESS_ID_SIZE])
{
    uint32_t r[3];
    if (usable(given)) {
        snprintf(out, ACCESS_ID_SIZE, "%s", given);
        return;
    }
    if (getrandom(r, sizeof r, GRND_NONBLOCK) != sizeof r)
        for (size_t i = 0; i < 3; i++)
            r[i] = (uint32_t)(api_seconds() * 1e9) * (uint32_t)(2 * i + 1);
    snprintf(out, ACCESS_ID_SIZE, "req_%08x%08x%08x", r[0], r[1], r[2]);
}

size_t access_read_keys(char *text, const char **keys, size_t max)
{
    size_t n = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\r\n", &rest); line;
         line = strtok_r(NULL, "\r\n", &rest)) {
        size_t len;
        line += strspn(line, " \t");
        for (len = strlen(line); len && isspace((unsigned char)line[len - 1]);)
            line[--len] = 0;
        if (!*line || *line == '#')
            continue;
        if (n < max)
            keys[n] = line;
        n++;
    }
    return n;
}
