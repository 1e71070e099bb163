/* Owns the page: which panels there are, their drawings, what stands around them, and
 * the data for the script (page.js), which draws the same lines again when asked for
 * another axis or smoothing.
 *
 * A drawing's units are thousandths of its width and height; it is stretched to
 * whatever place there is, and its words are ordinary text beside it, so that they have
 * one size on every screen. */
#include "report/plot.h"

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "report/page_parts.h" /* page_style, page_script: made from page.css, page.js */
#include "report/plot_impl.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum {
    UNITS = 1000,
    N_COLOURS = 7,       /* page.css has as many */
    RAW_LINEAR = 600,    /* stretches of which a curve's extremes are drawn */
    RAW_LOG = 250,       /* and more of its beginning */
    SMOOTH_LINEAR = 220, /* smooth ones need fewer */
    SMOOTH_LOG = 80,
    N_LEVELS = 5,
    LEVEL = 2, /* the one that is drawn without a script */
    MAX_DOTS = 80,
};

/* Of a run's length: how far the smoothing reaches. */
static const double levels[N_LEVELS] = {0, 0.005, 0.015, 0.04, 0.12};

static const struct panel {
    enum plot_series series;
    const char *title;
    bool smooth; /* the numbers faint, their means on top */
    bool least;  /* dots, and a mark at the least */
} panels[] = {
    {PLOT_LOSS, "Training loss", true, false},
    {PLOT_VAL, "Validation loss", false, true},
    {PLOT_NORM, "Gradient norm", true, false},
    {PLOT_LR, "Learning rate", false, false},
    {PLOT_SPEED, "Tokens per second", true, false},
};

/* One run's curve in one panel. */
struct line {
    const struct plot_curve *curve;
    size_t run;
    double *height;         /* 0..1, NAN for a gap */
    double *soft[N_LEVELS]; /* the same, smoothed; NULL where the panel is not */
    bool *keep;             /* of the curve's numbers */
};

struct page {
    struct strbuf *out;
    const struct plot_run *runs;
    size_t n_runs;
    struct plot_axis steps;
};

/* ---- text ---- */

static void put_text(struct strbuf *b, const char *s)
{
    for (size_t n = strlen(s), len; n; s += len, n -= len) {
        len = utf8_len(s, n);
        if (!len || (unsigned char)*s < 0x20 || *s == 0x7f) {
            sb_str(b, "\xef\xbf\xbd"); /* U+FFFD */
            len = 1;
        } else if (*s == '<') {
            sb_str(b, "&lt;");
        } else if (*s == '>') {
            sb_str(b, "&gt;");
        } else if (*s == '&') {
            sb_str(b, "&amp;");
        } else if (*s == '"') {
            sb_str(b, "&quot;");
        } else {
            sb_put(b, s, len);
        }
    }
}

/* Its name, or its path where another run has the same name. */
static void put_name(const struct page *p, size_t run)
{
    const struct plot_run *r = &p->runs[run];
    size_t n_same = 0;
    for (size_t k = 0; k < p->n_runs; k++)
        n_same += !strcmp(p->runs[k].name, r->name);
    put_text(p->out, n_same > 1 ? r->path : r->name);
}

/* "c2 d1": the colour of a run, and the dashes of those that share one. */
static void put_style(struct strbuf *b, size_t run)
{
    sb_printf(b, "c%zu d%zu", run % N_COLOURS, run / N_COLOURS % 3);
}

/* ---- lines ---- */

static void line_free(struct line *l)
{
    for (int i = 0; i < N_LEVELS; i++)
        mem_free(l->soft[i]);
    mem_free(l->height);
    mem_free(l->keep);
}

static int line_make(const struct plot_curve *c, size_t run, const struct panel *p,
                     const struct plot_axis *axis, struct line *l, struct runt_err *err)
{
    bool ok;
    *l = (struct line){.curve = c, .run = run};
    l->height = mem_array(c->n, sizeof *l->height);
    l->keep = mem_array(c->n, sizeof *l->keep);
    ok = l->height && l->keep;
    for (size_t i = 0; ok && i < c->n; i++)
        l->height[i] =
            isfinite(c->values[i]) ? plot_at(axis, c->values[i]) : (double)NAN;
    for (int k = 0; ok && p->smooth && k < N_LEVELS; k++) {
        l->soft[k] = mem_array(c->n, sizeof *l->soft[k]);
        ok = l->soft[k];
        if (ok)
            plot_smooth(l->height, c->n, levels[k] * (double)c->n, l->soft[k]);
    }
    if (ok)
        return 0;
    line_free(l);
    return err_nomem(err, "a plot");
}

/* The next number that is drawn, from i on. */
static size_t next_kept(const struct line *l, size_t i)
{
    while (i < l->curve->n && !l->keep[i])
        i++;
    return i;
}

/* A path through the numbers that are kept; one between two gaps becomes a dot. */
static void put_path(const struct page *p, const struct line *l, const double *height,
                     const char *class)
{
    struct strbuf *b = p->out;
    bool pen = false;
    sb_printf(b, "<path class=\"%s ", class);
    put_style(b, l->run);
    sb_printf(b, "\" data-run=\"%zu\" d=\"", l->run);
    for (size_t i = next_kept(l, 0), next; i < l->curve->n; i = next) {
        next = next_kept(l, i + 1);
        bool is = isfinite(height[i]);
        if (is)
            sb_printf(b, "%c%.1f %.1f", pen ? 'L' : 'M',
                      UNITS * plot_at(&p->steps, (double)l->curve->steps[i]),
                      UNITS * (1 - height[i]));
        if (is && !pen && (next == l->curve->n || !isfinite(height[next])))
            sb_str(b, "h0");
        pen = is;
    }
    sb_str(b, "\"/>\n");
}

/* The least of a curve that has a number. */
static size_t least_of(const struct plot_curve *c)
{
    size_t best = 0;
    for (size_t i = 1; i < c->n; i++)
        if (!isfinite(c->values[best]) || c->values[i] < c->values[best])
            best = i;
    return best;
}

static bool has_number(const struct plot_curve *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (isfinite(c->values[i]))
            return true;
    return false;
}

static void put_dot(const struct page *p, const struct line *l, size_t i,
                    const char *class)
{
    sb_printf(p->out, "<path class=\"%s ", class);
    put_style(p->out, l->run);
    sb_printf(p->out,
              "\" data-run=\"%zu\" data-step=\"%" PRIu64 "\" d=\"M%.1f %.1fh0\"/>\n",
              l->run, l->curve->steps[i],
              UNITS * plot_at(&p->steps, (double)l->curve->steps[i]),
              UNITS * (1 - l->height[i]));
}

static void put_dots(const struct page *p, const struct line *l)
{
    if (l->curve->n <= MAX_DOTS)
        for (size_t i = 0; i < l->curve->n; i++)
            if (isfinite(l->height[i]))
                put_dot(p, l, i, "dot");
    if (!has_number(l->curve))
        return;
    put_dot(p, l, least_of(l->curve), "ring");
    put_dot(p, l, least_of(l->curve), "hole");
}

/* ---- axes ---- */

static void put_axes(const struct page *p, const struct plot_axis *axis)
{
    char label[PLOT_LABEL];
    struct strbuf *b = p->out;
    struct plot_ticks t = plot_find_ticks(axis, 6, false);
    sb_str(b, "<div class=\"ys\">");
    for (size_t i = 0; i < t.n; i++)
        sb_printf(b, "<span style=\"bottom:%.2f%%\">%s</span>",
                  100 * plot_at(axis, t.at[i]), plot_label(t.at[i], t.step, label));
    sb_str(b, "</div>\n<div class=\"xs\">");
    t = plot_find_ticks(&p->steps, 8, true);
    for (size_t i = 0; i < t.n; i++)
        sb_printf(b, "<span style=\"left:%.2f%%\">%s</span>",
                  100 * plot_at(&p->steps, t.at[i]),
                  plot_label(t.at[i], t.step, label));
    sb_str(b, "</div>\n");
}

static void put_grid(struct strbuf *b, const struct plot_axis *axis)
{
    struct plot_ticks t = plot_find_ticks(axis, 6, false);
    sb_str(b, "<path class=\"grid\" d=\"");
    for (size_t i = 0; i < t.n; i++)
        sb_printf(b, "M0 %.1fH%d", UNITS * (1 - plot_at(axis, t.at[i])), UNITS);
    sb_str(b, "\"/>\n");
}

/* ---- what the script reads ---- */

static void put_number(struct strbuf *b, const char *format, double v)
{
    if (isfinite(v))
        sb_printf(b, format, v);
    else
        sb_str(b, "null");
}

/* "name":[...] of the numbers that are kept. */
static void put_array(struct strbuf *b, const char *name, const struct line *l,
                      const double *v, double unit, const char *format)
{
    const char *between = "";
    sb_printf(b, "\"%s\":[", name);
    for (size_t i = next_kept(l, 0); i < l->curve->n; i = next_kept(l, i + 1)) {
        sb_str(b, between);
        put_number(b, format, v ? unit * v[i] : (double)l->curve->steps[i]);
        between = ",";
    }
    sb_char(b, ']');
}

static void keep_raw(struct line *l)
{
    plot_thin(l->curve->values, l->curve->n, RAW_LINEAR, RAW_LOG, l->keep);
}

static void keep_soft(struct line *l, int level)
{
    plot_thin(l->soft[level], l->curve->n, SMOOTH_LINEAR, SMOOTH_LOG, l->keep);
}

static void put_data(struct strbuf *b, struct line *l)
{
    sb_char(b, '{');
    keep_raw(l);
    put_array(b, "steps", l, NULL, 1, "%.0f");
    sb_char(b, ',');
    put_array(b, "values", l, l->curve->values, 1, "%.7g");
    sb_str(b, ",\"soft\":[");
    for (int k = 0; k < N_LEVELS && l->soft[k]; k++) {
        keep_soft(l, k);
        sb_str(b, k ? ",{" : "{");
        put_array(b, "steps", l, NULL, 1, "%.0f");
        sb_char(b, ',');
        put_array(b, "heights", l, l->soft[k], UNITS, "%.1f");
        sb_char(b, '}');
    }
    sb_str(b, "]}");
}

/* ---- panels ---- */

static void put_drawing(const struct page *p, const struct panel *panel,
                        const struct plot_axis *axis, struct line *lines)
{
    struct strbuf *b = p->out;
    sb_printf(b,
              "<div class=\"area\"><svg viewBox=\"0 0 %d %d\" "
              "preserveAspectRatio=\"none\" role=\"img\" aria-label=\"%s\">\n",
              UNITS, UNITS, panel->title);
    put_grid(b, axis);
    for (size_t k = 0; k < p->n_runs && panel->smooth; k++) {
        keep_raw(&lines[k]);
        put_path(p, &lines[k], lines[k].height, "raw");
    }
    for (size_t k = 0; k < p->n_runs; k++) {
        if (panel->smooth)
            keep_soft(&lines[k], LEVEL);
        else
            keep_raw(&lines[k]);
        put_path(p, &lines[k], panel->smooth ? lines[k].soft[LEVEL] : lines[k].height,
                 "line");
    }
    for (size_t k = 0; k < p->n_runs && panel->least; k++)
        put_dots(p, &lines[k]);
    sb_str(b, "</svg>");
    if (panel->least && p->n_runs == 1) {
        const struct plot_curve *c = lines[0].curve;
        size_t best = least_of(c);
        double x = plot_at(&p->steps, (double)c->steps[best]);
        sb_printf(b,
                  "<span class=\"best%s\" data-step=\"%" PRIu64
                  "\" style=\"left:%.2f%%;bottom:%.2f%%\">%.4g at "
                  "step %" PRIu64 "</span>",
                  x > 0.75   ? " left"
                  : x < 0.25 ? " right"
                             : "",
                  c->steps[best], 100 * x, 100 * lines[0].height[best], c->values[best],
                  c->steps[best]);
    }
    sb_str(b, "</div>\n");
}

static void put_panel(const struct page *p, const struct panel *panel,
                      const struct plot_axis *axis, double most, struct line *lines)
{
    struct strbuf *b = p->out;
    char label[PLOT_LABEL];
    sb_printf(b, "<figure><figcaption>%s", panel->title);
    if (axis->log)
        sb_str(b, "<small>logarithmic</small>");
    if (most > axis->hi)
        sb_printf(b, "<small>up to %s, beyond the scale</small>",
                  plot_label(most, 0, label));
    sb_str(b, "</figcaption>\n<div class=\"plot\">");
    put_drawing(p, panel, axis, lines);
    put_axes(p, axis);
    sb_printf(b,
              "</div>\n<script type=\"application/json\">{\"lo\":%.17g,\"hi\":%.17g,"
              "\"log\":%s,\"runs\":[",
              axis->lo, axis->hi, axis->log ? "true" : "false");
    for (size_t k = 0; k < p->n_runs; k++) {
        if (k)
            sb_str(b, ",\n");
        put_data(b, &lines[k]);
    }
    sb_str(b, "]}</script></figure>\n");
}

static int add_panel(const struct page *p, const struct panel *panel,
                     struct runt_err *err)
{
    struct plot_axis axis;
    double most;
    bool any;
    size_t n = 0;
    int rc =
        plot_values_axis(p->runs, p->n_runs, panel->series, &axis, &most, &any, err);
    if (rc || !any)
        return rc;
    struct line *lines = mem_array(p->n_runs, sizeof *lines);
    if (!lines)
        return err_nomem(err, "a plot");
    for (; n < p->n_runs && !rc; n += !rc)
        rc = line_make(&p->runs[n].curves[panel->series], n, panel, &axis, &lines[n],
                       err);
    if (!rc)
        put_panel(p, panel, &axis, most, lines);
    for (size_t k = 0; k < n; k++)
        line_free(&lines[k]);
    mem_free(lines);
    return rc;
}

/* ---- around them ---- */

static void put_legend(const struct page *p)
{
    struct strbuf *b = p->out;
    sb_str(b, "<div class=\"bar\"><div class=\"legend\">");
    for (size_t k = 0; k < p->n_runs; k++) {
        sb_printf(b, "<button type=\"button\" data-run=\"%zu\"><i class=\"key ", k);
        put_style(b, k);
        sb_str(b, "\"></i>");
        put_name(p, k);
        sb_str(b, "</button>");
    }
    sb_printf(
        b,
        "</div><div class=\"tools\" hidden><label>smoothing <input type=\"range\" "
        "id=\"level\" autocomplete=\"off\" min=\"0\" max=\"%d\" "
        "value=\"%d\"></label><label><input "
        "type=\"checkbox\" id=\"log\" autocomplete=\"off\"> logarithmic "
        "steps</label></div></div>\n",
        N_LEVELS - 1, LEVEL);
}

/* Left open, for more to come. */
static void put_cell(struct strbuf *b, const char *head, int decimals, double v)
{
    char label[PLOT_LABEL];
    sb_printf(b, "<td data-head=\"%s\">", head);
    if (!isfinite(v))
        sb_str(b, "&ndash;");
    else if (decimals && fabs(v) >= 1000)
        sb_str(b, plot_label(v, 0, label));
    else
        sb_printf(b, "%.*f", decimals, v);
}

/* The last number of a curve. */
static double last_of(const struct plot_curve *c)
{
    for (size_t i = c->n; i-- > 0;)
        if (isfinite(c->values[i]))
            return c->values[i];
    return (double)NAN;
}

static double mean_of(const struct plot_curve *c)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        bool is = isfinite(c->values[i]);
        sum += is ? c->values[i] : 0;
        n += is;
    }
    return n ? sum / (double)n : (double)NAN;
}

static void put_row(const struct page *p, size_t run)
{
    struct strbuf *b = p->out;
    const struct plot_run *r = &p->runs[run];
    const struct plot_curve *loss = &r->curves[PLOT_LOSS], *val = &r->curves[PLOT_VAL];
    sb_printf(b, "<tr data-run=\"%zu\"><td><i class=\"key ", run);
    put_style(b, run);
    sb_str(b, "\"></i>");
    put_name(p, run);
    sb_printf(b, "</td><td data-head=\"steps\">%" PRIu64 "</td>", r->last_step);
    put_cell(b, "last loss", 4, last_of(loss));
    if (loss->n && !isfinite(loss->values[loss->n - 1]))
        sb_str(b, " <b class=\"bad\">then not a number</b>");
    sb_str(b, "</td>");
    put_cell(b, "least validation loss", 4,
             has_number(val) ? val->values[least_of(val)] : (double)NAN);
    if (has_number(val))
        sb_printf(b, " <small>at step %" PRIu64 "</small>", val->steps[least_of(val)]);
    sb_str(b, "</td>");
    put_cell(b, "tokens per second", 0, mean_of(&r->curves[PLOT_SPEED]));
    sb_str(b, "</td></tr>\n");
}

static void put_table(const struct page *p)
{
    struct strbuf *b = p->out;
    sb_str(b, "<table><thead><tr><th>run</th><th>steps</th><th>last loss</th><th>least "
              "validation loss</th><th>tokens per second</th></tr></thead><tbody>\n");
    for (size_t k = 0; k < p->n_runs; k++)
        put_row(p, k);
    sb_str(b, "</tbody></table>\n");
}

int plot_page(const char *title, const struct plot_run *runs, size_t n_runs,
              struct strbuf *out, struct runt_err *err)
{
    struct page p = {out, runs, n_runs, plot_steps_axis(runs, n_runs)};
    int rc = 0;
    sb_str(out,
           "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
           "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    put_text(out, title);
    sb_str(out, "</title>\n<style>\n");
    sb_str(out, page_style);
    sb_str(out, "</style>\n</head>\n<body>\n<h1>");
    put_text(out, title);
    sb_str(out, "</h1>\n");
    put_legend(&p);
    sb_printf(out, "<main%s data-from=\"%.17g\" data-to=\"%.17g\">\n",
              n_runs > 2 ? " class=\"many\"" : "", p.steps.lo, p.steps.hi);
    for (size_t i = 0; i < sizeof panels / sizeof *panels && !rc; i++)
        rc = add_panel(&p, &panels[i], err);
    sb_str(out, "</main>\n");
    put_table(&p);
    sb_str(out, "<script>\n");
    sb_str(out, page_script);
    sb_str(out, "</script>\n</body>\n</html>\n");
    return !rc && out->failed ? err_nomem(err, "a plot") : rc;
}

int plot_write(const char *path, const char *title, const struct plot_run *runs,
               size_t n_runs, struct runt_err *err)
{
    struct strbuf b = {0};
    struct file_out *f = NULL;
    int rc = plot_page(title, runs, n_runs, &b, err);
    if (!rc)
        rc = file_out_open(path, &f, err);
    if (!rc)
        rc = file_out_write(f, b.data, b.len, err);
    if (!rc)
        rc = file_out_commit(f, err);
    else
        file_out_abort(f);
    sb_free(&b);
    return rc;
}
