/* A folder that appears whole or not at all: it is filled under another, hidden name
 * beside its place and renamed when complete. */
#ifndef RUNT_CLI_NEW_FOLDER_H
#define RUNT_CLI_NEW_FOLDER_H

#include "runt/error.h"

struct new_folder {
    char *path; /* where it will be, without slashes at the end */
    char *tmp;  /* where it is filled, NULL before new_folder_begin */
};

/* Check the place: nothing is there, or an empty folder.  For before the long part. */
int new_folder_check(const char *path, struct new_folder *out, struct runt_err *err);
int new_folder_begin(struct new_folder *f, struct runt_err *err);
int new_folder_commit(struct new_folder *f, struct runt_err *err);
/* Remove what was begun and not committed, and free; zeros are fine. */
void new_folder_end(struct new_folder *f);

#endif
