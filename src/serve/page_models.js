// Owns the list of models: what the server says of them, and the picker.
'use strict';

const models = (() => {
  let list = [], chosen = null;
  let onChoice = () => {}, onList = () => {};

  // The server's entry, with what it does not say as null.
  function understand(entry) {
    const more = entry.runt ?? {}, number = (x) => Number.isFinite(x) ? x : null;
    return {id: entry.id, bytes: number(more.file_bytes), bits: number(more.bits_per_weight),
      weights: number(more.n_weights), context: number(more.n_ctx),
      template: typeof more.template === 'string' ? more.template : null,
      rate: number(more.tokens_per_second), tells: entry.runt !== undefined,
      sampler: more.sampler ?? {}};
  }

  async function refresh() {
    list = (await api.models()).map(understand);
    show();
    onList();
  }

  function find(id) {
    return list.find((m) => m.id === id);
  }

  // The model of that name, or the server's first one; null before there is a list.
  function nearest(id) {
    return find(id) ?? list[0] ?? null;
  }

  function facts(m) {
    return [words.bytes(m.bytes), words.bits(m.bits), words.rate(m.rate)]
      .filter((figure) => figure !== '–').join(' · ');
  }

  // ---- the picker ----

  function row(m) {
    const input = make('input', {type: 'radio', name: 'model', value: m.id,
      change: () => choose(m.id)});
    input.checked = input.autofocus = m.id === chosen; // of the popover, when it opens
    return make('label', {class: 'option',
      click: (e) => { if (e.detail && e.target !== input) $('models').hidePopover(); }},
    input,
    make('b', {}, m.id),
    make('span', {class: 'figure'}, words.bytes(m.bytes)),
    make('span', {class: 'figure'}, words.bits(m.bits)),
    make('span', {class: 'figure'}, words.rate(m.rate)),
    m.tells && !m.template
      ? make('small', {}, 'no chat template: it continues what you write') : '');
  }

  function show() {
    const m = find(chosen);
    $('model-name').textContent = m?.id ?? chosen ?? '…';
    $('model-facts').textContent = m ? facts(m) : '';
    const held = document.activeElement?.name === 'model';
    $('model-list').replaceChildren(...list.map(row));
    if (held) $('model-list').querySelector(':checked')?.focus();
  }

  function choose(id) {
    chosen = id;
    onChoice(id);
    show();
  }

  $('models').addEventListener('toggle', (e) => {
    if (e.newState === 'open') placeBeside($('models'), $('model'));
  });
  $('models').addEventListener('keydown', (e) => {
    if (e.key === 'Enter') {
      e.preventDefault();
      $('models').hidePopover();
    }
  });

  return {
    refresh, find, nearest, facts,
    all: () => list,
    // Show which one is in use, without telling anybody.
    display(id) {
      chosen = id;
      show();
    },
    onChoice(f) { onChoice = f; },
    onList(f) { onList = f; },
  };
})();
