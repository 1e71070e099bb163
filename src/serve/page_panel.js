// Owns the sampler's panel: what may be set, in which range, and what is said about it.  Only
// what the person changed is sent; for the rest the server's own defaults hold.
'use strict';

const panel = (() => {
  // `slide`: the slider's range, where it is not the field's; `none`: an empty box means that
  const fields = [
    {key: 'temperature', label: 'Temperature', min: 0, max: 2, step: 0.05, usual: 0.8,
      hint: 'Lower is more predictable; 0 always takes the likeliest token.'},
    {key: 'top_k', label: 'Top-k', min: 0, max: 100000, slide: 200, step: 1, usual: 40,
      hint: 'Only the k likeliest tokens; 0: all.'},
    {key: 'top_p', label: 'Top-p', min: 0, max: 1, step: 0.01, usual: 0.95,
      hint: 'Only the likeliest that together have this probability; 1: all.'},
    {key: 'min_p', label: 'Min-p', min: 0, max: 1, step: 0.01, usual: 0.05,
      hint: 'Only those at least this fraction as likely as the likeliest; 0: all.'},
    {key: 'typical_p', label: 'Typical', min: 0, max: 1, step: 0.01, usual: 1,
      hint: 'Only tokens about as surprising as usual that together have this probability; 1: all.'},
    {key: 'repeat_penalty', label: 'Repeat penalty', min: 0.5, max: 2, step: 0.05, usual: 1,
      hint: 'Above 1, tokens seen lately become less likely.'},
    {key: 'repeat_last_n', label: 'Penalty window', min: 0, max: 4096, slide: 512, step: 1, usual: 64,
      hint: 'Tokens that the penalties look back on.'},
    {key: 'frequency_penalty', label: 'Frequency penalty', min: -2, max: 2, step: 0.1, usual: 0,
      hint: 'Against each time a token was used.'},
    {key: 'presence_penalty', label: 'Presence penalty', min: -2, max: 2, step: 0.1, usual: 0,
      hint: 'Against tokens that were used at all.'},
    {key: 'dry_multiplier', label: 'DRY', min: 0, max: 100, slide: 2, step: 0.1, usual: 0,
      hint: 'Against going on with what was said before, the more the longer it is; 0: off.'},
    {key: 'mirostat', label: 'Mirostat', min: 0, max: 2, step: 2, usual: 0,
      hint: '2 keeps the surprise near a target, instead of top-k, top-p, min-p and typical; 0: off.'},
    {key: 'mirostat_tau', label: 'Mirostat\u2019s target', min: 0, max: 100, slide: 10, step: 0.1, usual: 5,
      hint: 'The surprise of a token, in bits.'},
    {key: 'seed', label: 'Seed', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, none: 'random',
      hint: 'The same seed, the same answer.'},
    {key: 'max_tokens', label: 'Longest answer', min: 1, max: 1000000, step: 1, none: 'no limit',
      hint: 'In tokens; without a limit it ends where the context does.'},
  ];
  let settings = null, defaults = {}, onChange = () => {};

  const usual = (f) => Number.isFinite(defaults[f.key]) ? defaults[f.key] : f.usual;
  const value = (f) => settings.sampling[f.key] ?? usual(f);
  const digits = (f) => f.step < 0.1 ? 2 : f.step < 1 ? 1 : 0;

  // 0.30000000000000004 is no number that anybody wants to see.
  function tidy(x) {
    return x === undefined ? '' : String(+x.toFixed(4));
  }

  function complaint(f, text) {
    const x = Number(text);
    if (!text.trim()) return f.none ? '' : 'A number, please.';
    if (!Number.isFinite(x)) return 'This is no number.';
    if (x < f.min || x > f.max) return 'From ' + f.min + ' to ' + f.max + '.';
    if (f.step === 1 && !Number.isInteger(x)) return 'A whole number, please.';
    if (f.step > 1 && (x - f.min) % f.step) return f.min + ' or ' + (f.min + f.step) + '.';
    return '';
  }

  // ---- one field ----

  function build(f) {
    const id = 'set-' + f.key;
    f.box = make('input', {id, type: 'text', autocomplete: 'off', placeholder: f.none ?? '',
      inputmode: f.min < 0 ? 'text' : digits(f) ? 'decimal' : 'numeric',
      'aria-describedby': id + '-hint', input: () => take(f, f.box.value.replace(',', '.')),
      blur: () => show(f)});
    f.line = make('p', {id: id + '-hint', class: 'hint'}, f.hint);
    f.row = make('div', {class: 'field'}, make('label', {for: id}, f.label), f.box);
    if (!f.none) {
      f.slider = make('input', {type: 'range', min: f.min, max: f.slide ?? f.max, step: f.step,
        'aria-label': f.label, input: () => { f.box.value = tidy(+f.slider.value);
          take(f, f.slider.value); }});
      f.row.append(f.slider);
    }
    f.row.append(f.line);
    $('fields').append(f.row);
  }

  function complain(f, what) {
    if (what) f.box.setAttribute('aria-invalid', 'true');
    else f.box.removeAttribute('aria-invalid');
    f.line.classList.toggle('bad', what !== '');
    f.line.textContent = what || f.hint;
  }

  // What was typed, where it is a value.
  function take(f, text) {
    const what = complaint(f, text);
    complain(f, what);
    if (what) return;
    if (!text.trim() || (!f.none && Number(text) === usual(f))) delete settings.sampling[f.key];
    else settings.sampling[f.key] = Number(text);
    if (f.slider) f.slider.value = Number(text);
    mark(f);
    onChange();
  }

  function mark(f) {
    f.row.classList.toggle('changed', settings.sampling[f.key] !== undefined);
    $('reset').disabled = !Object.keys(settings.sampling).length;
  }

  function show(f) {
    f.box.value = tidy(value(f));
    if (f.slider) f.slider.value = value(f);
    complain(f, '');
    mark(f);
  }

  function reset() {
    const before = settings.sampling;
    settings.sampling = {};
    fields.forEach(show);
    onChange();
    notice('Everything is as the server has it.', 'Undo', () => {
      settings.sampling = before;
      fields.forEach(show);
      onChange();
    });
  }

  // Values of another version of this page may be out of range, or of no field at all.
  function forgetStrangers() {
    for (const [key, x] of Object.entries(settings.sampling)) {
      const f = fields.find((g) => g.key === key);
      if (!f || complaint(f, String(x))) delete settings.sampling[key];
    }
  }

  return {
    begin(kept, change) {
      settings = kept;
      onChange = change;
      forgetStrangers();
      fields.forEach(build);
      fields.forEach(show);
      $('reset').addEventListener('click', reset);
      $('settings').addEventListener('submit', (e) => e.preventDefault());
    },
    // What the server draws with where a request says nothing.
    setDefaults(found) {
      defaults = found;
      for (const f of fields) if (document.activeElement !== f.box) show(f);
    },
    // Members of a request.
    sampling: () => ({...settings.sampling}),
  };
})();
