// What a page can do besides being looked at: read-outs under the pointer, a logarithmic
// axis of steps, another smoothing, runs switched off.  Lines are drawn as plot.c draws them.
(function () {
  'use strict';
  var main = document.querySelector('main');
  var from = +main.dataset.from, to = +main.dataset.to;
  var isLog = false, level = +document.getElementById('level').value, off = {};
  var names = [].map.call(document.querySelectorAll('.legend button'), function (b) {
    return b.textContent;
  });

  // Where a step lies, 0 to 1; the logarithmic axis begins at step 1.
  function across(step) {
    if (!isLog) return (step - from) / (to - from);
    var lo = Math.max(from, 1), hi = Math.max(to, lo + 1);
    return Math.log(Math.max(step, lo) / lo) / Math.log(hi / lo);
  }

  function height(panel, v) {
    if (v === null) return null;
    var ln = Math.log, f = panel.log ? (ln(v) - ln(panel.lo)) / (ln(panel.hi) - ln(panel.lo))
      : (v - panel.lo) / (panel.hi - panel.lo);
    return 1000 * Math.min(Math.max(f, 0), 1);
  }

  function path(steps, heights) {
    var d = '', pen = false;
    for (var i = 0; i < steps.length; i++) {
      var is = heights[i] !== null;
      if (is) {
        d += (pen ? 'L' : 'M') + (1000 * across(steps[i])).toFixed(1) + ' ' +
          (1000 - heights[i]).toFixed(1);
        if (!pen && (i + 1 === steps.length || heights[i + 1] === null)) d += 'h0';
      }
      pen = is;
    }
    return d;
  }

  function label(v) {
    return v >= 1e6 ? v / 1e6 + 'M' : v >= 1e3 ? v / 1e3 + 'k' : String(v);
  }

  function decades() {
    var lo = Math.max(from, 1), hi = Math.max(to, lo + 1), html = '';
    var factors = hi / lo > 3000 ? [1] : [1, 2, 5];
    for (var p = 1; p <= hi; p *= 10) {
      factors.forEach(function (f) {
        if (f * p >= lo && f * p <= hi)
          html += '<span style="left:' + 100 * across(f * p) + '%">' + label(f * p) + '</span>';
      });
    }
    return html;
  }

  function redraw(f) {
    var heights = f.panel.runs.map(function (run) {
      return run.values.map(function (v) { return height(f.panel, v); });
    });
    f.svg.querySelectorAll('path[data-run]').forEach(function (p) {
      var run = f.panel.runs[p.dataset.run], soft = run.soft[level];
      if (p.classList.contains('line') && soft)
        p.setAttribute('d', path(soft.steps, soft.heights));
      else if (p.classList.contains('line') || p.classList.contains('raw'))
        p.setAttribute('d', path(run.steps, heights[p.dataset.run]));
      else
        p.setAttribute('d', p.getAttribute('d').replace(/^M\S+/,
          'M' + (1000 * across(p.dataset.step)).toFixed(1)));
      p.classList.toggle('off', !!off[p.dataset.run]);
    });
    if (f.best) f.best.style.left = 100 * across(f.best.dataset.step) + '%';
    f.xs.innerHTML = isLog ? decades() : f.linear;
  }

  // The number nearest to a place on the axis.
  function nearest(run, x) {
    var lo = 0, hi = run.steps.length - 1;
    if (hi < 0) return -1;
    while (lo < hi) {
      var middle = (lo + hi) >> 1;
      if (across(run.steps[middle]) < x) lo = middle + 1; else hi = middle;
    }
    return lo && x - across(run.steps[lo - 1]) < across(run.steps[lo]) - x ? lo - 1 : lo;
  }

  function readout(v) {
    return v === null ? '\u2013' : String(+v.toPrecision(5));
  }

  function add(parent, name, text) {
    var e = parent.appendChild(document.createElement(name));
    if (text !== undefined) e.textContent = text;
    return e;
  }

  function point(f, e) {
    var r = f.area.getBoundingClientRect(), x = (e.clientX - r.left) / r.width, at = null;
    f.tip.textContent = '';
    var head = add(f.tip, 'div');
    f.panel.runs.forEach(function (run, k) {
      var i = off[k] ? -1 : nearest(run, x);
      if (i < 0) return;
      if (at === null || Math.abs(across(run.steps[i]) - x) < Math.abs(across(at) - x))
        at = run.steps[i];
      var row = add(f.tip, 'div'), key = add(row, 'i');
      key.className = 'key c' + k % 7 + ' d' + (Math.floor(k / 7) % 3);
      if (names.length > 1) add(row, 'span', names[k]);
      add(row, 'b', readout(run.values[i]));
    });
    if (at === null || x < -0.02 || x > 1.02) return leave();
    add(head, 'span', 'step ' + at);
    figures.forEach(function (g) {
      g.cursor.style.left = 100 * across(at) + '%';
      g.cursor.hidden = false;
      g.tip.hidden = g !== f;
    });
    var place = across(at) * r.width;
    f.tip.style.left = place > r.width / 2 ? 'auto' : place + 12 + 'px';
    f.tip.style.right = place > r.width / 2 ? r.width - place + 12 + 'px' : 'auto';
  }

  function leave() {
    figures.forEach(function (g) { g.cursor.hidden = g.tip.hidden = true; });
  }

  var figures = [].map.call(document.querySelectorAll('figure'), function (figure) {
    var f = {
      panel: JSON.parse(figure.querySelector('script').textContent),
      svg: figure.querySelector('svg'), area: figure.querySelector('.area'),
      xs: figure.querySelector('.xs'), best: figure.querySelector('.best')
    };
    f.linear = f.xs.innerHTML;
    f.cursor = add(f.area, 'div');
    f.cursor.className = 'cursor';
    f.tip = add(f.area, 'div');
    f.tip.className = 'tip';
    f.cursor.hidden = f.tip.hidden = true;
    f.area.addEventListener('pointermove', function (e) { point(f, e); });
    f.area.addEventListener('pointerdown', function (e) { point(f, e); });
    f.area.addEventListener('pointerleave', leave);
    return f;
  });

  document.querySelector('.tools').hidden = false;
  document.getElementById('log').addEventListener('change', function () {
    isLog = this.checked;
    figures.forEach(redraw);
  });
  document.getElementById('level').addEventListener('input', function () {
    level = +this.value;
    figures.forEach(redraw);
  });
  document.body.classList.add('live');
  document.querySelectorAll('.legend button').forEach(function (b) {
    b.addEventListener('click', function () {
      off[b.dataset.run] = !off[b.dataset.run];
      b.classList.toggle('off', off[b.dataset.run]);
      b.setAttribute('aria-pressed', String(!off[b.dataset.run]));
      figures.forEach(redraw);
    });
  });
})();
