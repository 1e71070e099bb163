/* Owns what is done to a curve before it is drawn. */
#include "report/plot_impl.h"

#include <math.h>

static void keep_extremes(const double *v, size_t from, size_t to, bool *keep)
{
    size_t least = to, most = to, gap = to;
    for (size_t i = from; i < to; i++) {
        if (!isfinite(v[i])) {
            gap = gap == to ? i : gap;
            continue;
        }
        least = least == to || v[i] < v[least] ? i : least;
        most = most == to || v[i] > v[most] ? i : most;
    }
    if (least < to)
        keep[least] = keep[most] = true;
    if (gap < to)
        keep[gap] = true;
}

void plot_thin(const double *v, size_t n, size_t n_linear, size_t n_log, bool *keep)
{
    bool all = n <= 2 * n_linear;
    for (size_t i = 0; i < n; i++)
        keep[i] = all;
    if (all)
        return;
    for (size_t k = 0; k < n_linear; k++)
        keep_extremes(v, k * n / n_linear, (k + 1) * n / n_linear, keep);
    for (size_t k = 0, from = 0; k < n_log; k++) {
        size_t to = (size_t)pow((double)n, (double)(k + 1) / (double)n_log);
        to = to < n ? to : n;
        keep_extremes(v, from, to, keep);
        from = to;
    }
    keep[0] = keep[n - 1] = true;
}

void plot_smooth(const double *v, size_t n, double reach, double *out)
{
    double sum = 0, weight = 0;
    for (size_t i = 0; i < n; i++) {
        double decay = exp(-1 / fmin(reach, 1 + (double)i / 8));
        bool is = isfinite(v[i]);
        sum = sum * decay + (is ? v[i] : 0);
        weight = weight * decay + is;
        out[i] = is ? sum / weight : (double)NAN;
    }
}
