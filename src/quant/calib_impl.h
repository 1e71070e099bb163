#ifndef RUNT_QUANT_CALIB_IMPL_H
#define RUNT_QUANT_CALIB_IMPL_H

#include "model/model.h"
#include "quant/calib.h"

enum { CALIB_TOKENS = 131072, CALIB_MAX_WINDOW = 1024, CALIB_SAVE_SECONDS = 60 };

/* Tokens of a window as the options and the model's context say. */
static inline size_t calib_window(const runt_model *m, const struct calib_options *o)
{
    size_t n_ctx = m->shape.n_ctx;
    return o->window ? o->window : n_ctx < CALIB_MAX_WINDOW ? n_ctx : CALIB_MAX_WINDOW;
}

/* Remove what calib_sample left beside the calibration file `save` for going on. */
void calib_text_forget(const char *save);

#endif
