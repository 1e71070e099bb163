/* Owns the page of curves: scales, ticks, lines, what stands around them. */
#include "report/plot.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "report/plot_page.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* In the drawing's own units. */
enum { WIDTH = 900, HEIGHT = 300, LEFT = 70, RIGHT = 884, TOP = 12, BOTTOM = 262 };
enum { COLOURS = 6, BUCKETS = 700 };

static const struct panel {
    const char *title;
    enum plot_series series;
    bool smooth; /* raw numbers faint, their moving mean on top */
    bool least;  /* mark the least */
} panels[] = {
    {"Training loss", PLOT_LOSS, true, false},
    {"Validation loss", PLOT_VAL, false, true},
    {"Gradient norm", PLOT_NORM, true, false},
    {"Learning rate", PLOT_LR, false, false},
    {"Tokens per second", PLOT_SPEED, true, false},
};

struct scale {
    double x0, x1, y0, y1;
};

static void put_escaped(struct strbuf *b, const char *s)
{
    for (; *s; s++)
        if (*s == '<')
            sb_str(b, "&lt;");
        else if (*s == '&')
            sb_str(b, "&amp;");
        else if (*s == '"')
            sb_str(b, "&quot;");
        else
            sb_char(b, (unsigned char)*s < 0x20 ? ' ' : *s);
}

/* ---- numbers of a panel ---- */

/* The mean of a fiftieth of the run around each number. */
static double *smoothed(const struct plot_run *r, const double *v)
{
    size_t reach = r->n / 100 < 1 ? 1 : r->n / 100, n = 0, to = 0;
    double *out = mem_array(r->n, sizeof *out), sum = 0;
    for (size_t i = 0; out && i < r->n; i++) {
        for (; to < r->n && to <= i + reach; to++)
            if (isfinite(v[to])) {
                sum += v[to];
                n++;
            }
        if (i > reach && isfinite(v[i - reach - 1])) {
            sum -= v[i - reach - 1];
            n--;
        }
        out[i] = isfinite(v[i]) ? sum / (double)n : (double)NAN;
    }
    return out;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static size_t count(const struct plot_run *r, enum plot_series s)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        n += isfinite(r->value[s][i]);
    return n;
}

/* All steps; the numbers from the least to the 99.5th in a hundred, so that one bad
 * step does not flatten the rest. */
static bool find_scale(const struct plot_run *runs, size_t n_runs, enum plot_series s,
                       struct scale *out, struct runt_err *err, int *rc)
{
    size_t n = 0, at = 0;
    struct scale c = {(double)INFINITY, -(double)INFINITY, 0, 0};
    for (size_t k = 0; k < n_runs; k++)
        n += count(&runs[k], s);
    if (!n)
        return false;
    double *all = mem_array(n, sizeof *all);
    if (!all) {
        *rc = err_nomem(err, "a plot");
        return false;
    }
    for (size_t k = 0; k < n_runs; k++)
        for (size_t i = 0; i < runs[k].n; i++) {
            c.x0 = fmin(c.x0, (double)runs[k].steps[i]);
            c.x1 = fmax(c.x1, (double)runs[k].steps[i]);
            if (isfinite(runs[k].value[s][i]))
                all[at++] = runs[k].value[s][i];
        }
    qsort(all, n, sizeof *all, by_size);
    c.y0 = all[0];
    c.y1 = all[n - 1 - n / 200];
    mem_free(all);
    if (s == PLOT_LR || s == PLOT_SPEED)
        c.y0 = fmin(c.y0, 0);
    double gap = c.y1 > c.y0 ? (c.y1 - c.y0) * 0.05 : fabs(c.y0) * 0.1 + 1e-9;
    c.y1 += gap;
    c.y0 -= s == PLOT_LR || s == PLOT_SPEED ? 0 : gap;
    c.x1 = c.x1 > c.x0 ? c.x1 : c.x0 + 1;
    *out = c;
    return true;
}

static double at_x(const struct scale *s, double x)
{
    return LEFT + (x - s->x0) / (s->x1 - s->x0) * (RIGHT - LEFT);
}

static double at_y(const struct scale *s, double y)
{
    double v = BOTTOM - (y - s->y0) / (s->y1 - s->y0) * (BOTTOM - TOP);
    return v < -1e4 ? -1e4 : v > 1e4 ? 1e4 : v;
}

/* ---- lines ---- */

/* Which of many points are drawn: of each bucket of neighbours the least and the
 * largest, and all that are no numbers, which are gaps. */
static bool is_drawn(const double *v, size_t n, size_t i)
{
    if (n <= 2 * BUCKETS || !isfinite(v[i]))
        return true;
    size_t bucket = i * BUCKETS / n, from = (bucket * n + BUCKETS - 1) / BUCKETS,
           to = ((bucket + 1) * n + BUCKETS - 1) / BUCKETS;
    while (!isfinite(v[from])) /* at i at the latest it is one */
        from++;
    size_t least = from, most = from;
    for (size_t k = from; k < to; k++) {
        least = v[k] < v[least] ? k : least;
        most = v[k] > v[most] ? k : most;
    }
    return i == least || i == most;
}

/* `sparse`: numbers that are rare are joined over the lines between them. */
static void put_line(struct strbuf *b, const struct scale *s, const struct plot_run *r,
                     const double *v, bool sparse, const char *class, size_t colour)
{
    bool pen = false;
    sb_printf(b, "<path class=\"%s c%zu\" d=\"", class, colour % COLOURS);
    for (size_t i = 0; i < r->n; i++) {
        if (!isfinite(v[i]))
            pen = pen && sparse;
        else if (is_drawn(v, r->n, i)) {
            sb_printf(b, "%c%.1f %.1f", pen ? 'L' : 'M', at_x(s, (double)r->steps[i]),
                      at_y(s, v[i]));
            pen = true;
        }
    }
    sb_str(b, "\"/>\n");
}

static void put_least(struct strbuf *b, const struct scale *s, const struct plot_run *r,
                      const double *v, size_t colour)
{
    size_t best = r->n;
    for (size_t i = 0; i < r->n; i++)
        if (isfinite(v[i]) && (best == r->n || v[i] < v[best]))
            best = i;
    if (best == r->n)
        return;
    double x = at_x(s, (double)r->steps[best]), y = at_y(s, v[best]);
    sb_printf(b, "<circle class=\"best c%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n",
              colour % COLOURS, x, y);
    sb_printf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%.4g</text>\n", x,
              y - 10, x > RIGHT - 40 ? "end" : "middle", v[best]);
}

/* ---- axes ---- */

/* 1, 2 or 5 times a power of ten, so that there are at most `most` of them. */
static double tick_step(double span, int most)
{
    double step = pow(10, floor(log10(span / most)));
    static const double factors[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++)
        if (span / (step * factors[i]) <= most)
            return step * factors[i];
    return step * 10;
}

static void put_axes(struct strbuf *b, const struct scale *s)
{
    double step = tick_step(s->y1 - s->y0, 6);
    for (double k = ceil(s->y0 / step); k * step <= s->y1; k++) {
        double y = at_y(s, k * step);
        sb_printf(b,
                  "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                  "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n",
                  LEFT, RIGHT, y, y, LEFT - 8, y + 4, k * step + 0.0);
    }
    step = fmax(tick_step(s->x1 - s->x0, 8), 1);
    for (double k = ceil(s->x0 / step); k * step <= s->x1; k++) {
        double x = at_x(s, k * step);
        sb_printf(b,
                  "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>"
                  "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.10g</text>\n",
                  x, x, BOTTOM, BOTTOM + 5, x, BOTTOM + 24, k * step + 0.0);
    }
}

/* ---- the page ---- */

/* What the script reads: the points that are drawn, as the log has them. */
static void put_points(struct strbuf *b, const struct scale *s,
                       const struct plot_run *runs, size_t n_runs,
                       enum plot_series series)
{
    sb_printf(
        b,
        "<script type=\"application/json\">{\"width\":%d,\"left\":%d,\"right\":%d,"
        "\"top\":%d,\"bottom\":%d,\"from\":%.17g,\"to\":%.17g,\"runs\":[",
        WIDTH, LEFT, RIGHT, TOP, BOTTOM, s->x0, s->x1);
    for (size_t k = 0; k < n_runs; k++) {
        const double *v = runs[k].value[series];
        bool first = true;
        sb_printf(b, "%s{\"points\":[", k ? "," : "");
        for (size_t i = 0; i < runs[k].n; i++) {
            if (!isfinite(v[i]) || !is_drawn(v, runs[k].n, i))
                continue;
            sb_printf(b, "%s[%" PRIu64 ",%.6g]", first ? "" : ",", runs[k].steps[i],
                      v[i]);
            first = false;
        }
        sb_str(b, "]}");
    }
    sb_str(b, "]}</script>\n");
}

static int put_panel(struct strbuf *b, const struct panel *p,
                     const struct plot_run *runs, size_t n_runs, struct runt_err *err)
{
    struct scale s;
    int rc = 0;
    if (!find_scale(runs, n_runs, p->series, &s, err, &rc))
        return rc;
    sb_printf(
        b,
        "<figure><figcaption>%s</figcaption>\n"
        "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n"
        "<clipPath id=\"p%d\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>"
        "</clipPath>\n",
        p->title, WIDTH, HEIGHT, p->title, p->series, LEFT, TOP, RIGHT - LEFT,
        BOTTOM - TOP);
    put_axes(b, &s);
    sb_printf(b, "<g clip-path=\"url(#p%d)\">\n", p->series);
    for (size_t k = 0; k < n_runs && p->smooth; k++)
        put_line(b, &s, &runs[k], runs[k].value[p->series], false, "raw", k);
    for (size_t k = 0; k < n_runs && !rc; k++) {
        const double *v = runs[k].value[p->series];
        double *soft = p->smooth ? smoothed(&runs[k], v) : NULL;
        if (p->smooth && !soft)
            rc = err_nomem(err, "a plot");
        else
            put_line(b, &s, &runs[k], soft ? soft : v, p->least, "line", k);
        mem_free(soft);
    }
    sb_str(b, "</g>\n");
    for (size_t k = 0; k < n_runs && p->least; k++)
        put_least(b, &s, &runs[k], runs[k].value[p->series], k);
    sb_str(b, "</svg>\n");
    put_points(b, &s, runs, n_runs, p->series);
    sb_str(b, "</figure>\n");
    return rc;
}

static double last_of(const struct plot_run *r, enum plot_series s)
{
    for (size_t i = r->n; i-- > 0;)
        if (isfinite(r->value[s][i]))
            return r->value[s][i];
    return (double)NAN;
}

static double least_of(const struct plot_run *r, enum plot_series s)
{
    double least = (double)NAN;
    for (size_t i = 0; i < r->n; i++)
        least = fmin(least, isfinite(r->value[s][i]) ? r->value[s][i] : (double)NAN);
    return least;
}

static void put_cell(struct strbuf *b, double v)
{
    if (isfinite(v))
        sb_printf(b, "<td>%.4f</td>", v);
    else
        sb_str(b, "<td>&ndash;</td>");
}

static void put_table(struct strbuf *b, const struct plot_run *runs, size_t n_runs)
{
    sb_str(b,
           "<div class=\"wide\"><table><tr><th>run</th><th>steps</th><th>last loss</th>"
           "<th>last validation</th><th>best validation</th></tr>\n");
    for (size_t k = 0; k < n_runs; k++) {
        sb_printf(b, "<tr><td><b class=\"key c%zu\"></b>", k % COLOURS);
        put_escaped(b, runs[k].name);
        sb_printf(b, "</td><td>%" PRIu64 "</td>", runs[k].steps[runs[k].n - 1]);
        put_cell(b, last_of(&runs[k], PLOT_LOSS));
        put_cell(b, last_of(&runs[k], PLOT_VAL));
        put_cell(b, least_of(&runs[k], PLOT_VAL));
        sb_str(b, "</tr>\n");
    }
    sb_str(b, "</table></div>\n");
}

int plot_write(const char *path, const char *title, const struct plot_run *runs,
               size_t n_runs, struct runt_err *err)
{
    struct strbuf b = {0};
    struct file_out *f;
    int rc = 0;
    sb_str(&b,
           "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
           "<title>");
    put_escaped(&b, title);
    sb_str(&b, "</title>\n<style>\n");
    sb_str(&b, plot_style);
    sb_str(&b, "</style></head><body>\n<h1>");
    put_escaped(&b, title);
    sb_str(&b, "</h1>\n");
    put_table(&b, runs, n_runs);
    for (size_t i = 0; i < sizeof panels / sizeof *panels && !rc; i++)
        rc = put_panel(&b, &panels[i], runs, n_runs, err);
    sb_str(&b, "<script>\n");
    sb_str(&b, plot_script);
    sb_str(&b, "</script>\n</body></html>\n");
    if (!rc && b.failed)
        rc = err_nomem(err, "a plot");
    if (!rc)
        rc = file_out_open(path, &f, err);
    if (!rc && (rc = file_out_write(f, b.data, b.len, err)))
        file_out_abort(f);
    else if (!rc)
        rc = file_out_commit(f, err);
    sb_free(&b);
    return rc;
}
