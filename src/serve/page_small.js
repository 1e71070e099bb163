// Owns "How small can it go?": one prompt, a column for each model that was chosen, from the
// largest file to the smallest.  All columns get the same sampler and the same seed, so that
// models which agree give the same answer, and where one begins to differ can be told.
'use strict';

const small = (() => {
  const FIRST = 4; // columns when nobody has chosen yet
  let settings = null, columns = [], run = null, onAway = () => {}, onTalk = () => {};

  const bySize = (a, b) => (b.bytes ?? 0) - (a.bytes ?? 0);

  // ---- what is asked ----

  // A few models over the whole range of sizes, the largest and the smallest among them.
  function usual(list) {
    if (list.length <= FIRST) return list.map((m) => m.id);
    return Array.from({length: FIRST}, (_, k) =>
      list[Math.round(k * (list.length - 1) / (FIRST - 1))].id);
  }

  function chosen() {
    const list = [...models.all()].sort(bySize), names = settings.small.names ?? usual(list);
    return list.filter((m) => names.includes(m.id));
  }

  function choose() {
    const ticked = $('column-choice').querySelectorAll('input:checked');
    settings.small.names = [...ticked].map((i) => i.value);
    store.saveSettings(settings);
    showState();
  }

  function showChoice() {
    const here = chosen();
    const held = document.activeElement?.closest('#column-choice') && document.activeElement.value;
    $('column-choice').replaceChildren(...[...models.all()].sort(bySize).map((m) => {
      const input = make('input', {type: 'checkbox', value: m.id, change: choose});
      input.checked = here.includes(m);
      return make('label', {class: 'chip'}, input,
        make('span', {}, make('b', {}, m.id), ' ',
          make('small', {}, words.bytes(m.bytes) + ', ' + words.bits(m.bits))));
    }));
    if (held) $('column-choice').querySelector('[value="' + CSS.escape(held) + '"]')?.focus();
  }

  function showState() {
    const ready = $('ask-box').value.trim() && chosen().length;
    $('ask-stop').hidden = !run;
    $('ask-send').hidden = run !== null;
    $('ask-send').disabled = !ready;
    $('order-note').textContent = settings.small.order === 'once'
      ? 'They share the processor: each is slower than it would be alone.'
      : 'Each model has the processor to itself: its speed is its own.';
    if (!columns.length) showHelp();
  }

  function showHelp() {
    const n = models.all().length;
    $('results').replaceChildren(n === 1
      ? make('p', {class: 'soft help'}, 'This server has one model. Start it with several to ',
        'compare them: ', make('code', {}, 'runt serve -m large=a.gguf -m small=b.gguf'))
      : make('p', {class: 'soft help'}, n ? 'The answers will stand here, side by side.' : ''));
  }

  // ---- columns ----

  function build(m, largest) {
    const c = {model: m, content: '', state: 'waiting', said: '', since: 0, took: 0, usage: null};
    const share = m.bytes && largest.bytes ? m.bytes / largest.bytes : 0;
    c.text = make('div', {class: 'text'});
    c.rate = make('dd', {}, '–');
    c.note = make('p', {class: 'note'});
    c.talk = make('button', {class: 'quiet', type: 'button', hidden: true,
      click: () => onTalk(c.prompt, versionOf(c))}, 'Go on with this one');
    const bar = make('div', {class: 'bar', 'aria-hidden': 'true'}, make('span'));
    bar.firstChild.style.width = Math.max(100 * share, 1) + '%';
    const part = m === largest || !share ? '' : ' (' + (share < 0.095 ? (100 * share).toFixed(1)
      : Math.round(100 * share)) + '% of ' + largest.id + ')';
    c.element = make('section', {class: 'column', 'aria-label': m.id},
      make('h3', {}, m.id),
      bar,
      make('dl', {},
        figure('Size', make('dd', {}, words.bytes(m.bytes), make('span', {class: 'unseen'}, part))),
        figure('Per weight', make('dd', {}, words.bits(m.bits))),
        figure('Speed', c.rate)),
      c.text, c.note, c.talk);
    return c;
  }

  function figure(name, value) {
    return make('div', {}, make('dt', {}, name), value);
  }

  function versionOf(c) {
    return {content: c.content, model: c.model.id, end: c.state === 'done' ? 'stop' : 'stopped',
      error: '', failed: '', tokens: c.usage?.completion_tokens ?? null,
      rate: api.rateOf(c.usage), total: c.usage?.total_tokens ?? null,
      letters: c.content.length + c.prompt.length};
  }

  function update(c) {
    const running = c.state === 'running';
    c.element.setAttribute('aria-busy', String(running));
    c.element.classList.toggle('running', running);
    renderText(c.text, c.content);
    c.note.classList.toggle('bad', c.state === 'failed');
    c.note.textContent = c.state === 'waiting' ? 'Waiting for its turn …'
      : running && !c.content ? c.said || 'Reading …' : running ? '' : c.said;
    c.rate.textContent = c.usage ? words.rate(api.rateOf(c.usage)) : '–';
    c.talk.hidden = running || !c.content;
  }

  // Words of `text` that stand in `other` too, before the first that differs.
  function sameWords(text, other) {
    const a = text.trim().split(/\s+/), b = other.trim().split(/\s+/);
    let n = 0;
    while (n < a.length && n < b.length && a[n] === b[n]) n++;
    return {n, all: n === a.length && n === b.length};
  }

  // Beside the largest one's answer, once both are there.
  function compare() {
    const [first, ...rest] = columns;
    for (const c of rest) {
      if (c.state !== 'done' || first.state !== 'done' || !c.content || !first.content) continue;
      const same = sameWords(c.content, first.content);
      c.said = c.ended + (same.all ? 'The same answer as ' + first.model.id + '.'
        : same.n ? 'As ' + first.model.id + ' for ' + words.count(same.n, 'word') + '.'
          : 'Differs from ' + first.model.id + ' from the first word.');
      update(c);
    }
  }

  // ---- asking ----

  async function answer(c, request, job) {
    let drawn = false;
    c.state = 'running';
    c.since = performance.now();
    update(c);
    const on = {
      signal: job.signal,
      text(piece) {
        if (job.signal.aborted) return;
        c.content += piece;
        if (!drawn) requestAnimationFrame(() => {
          drawn = false;
          if (c.state === 'running') update(c);
        });
        drawn = true;
      },
      wait(seconds) {
        c.said = 'The server is busy. Trying again in ' + words.count(seconds, 'second') + ' …';
        update(c);
      },
    };
    try {
      const result = await api.chat({...request, model: c.model.id}, on);
      c.usage = result.usage;
      c.state = 'done';
      const total = result.usage?.total_tokens ?? 0, full = total >= (c.model.context ?? Infinity);
      c.ended = result.end !== 'length' ? '' : full ? 'Its context is full. '
        : 'Stopped at the longest answer allowed. ';
      c.said = c.ended || (c.content ? '' : 'It said nothing.');
      say(c.model.id + ' answered: ' + (c.content || 'nothing'));
    } catch (e) {
      c.state = e.kind === 'stopped' ? 'stopped' : 'failed';
      c.said = e.kind === 'context' ? 'The prompt does not fit into its context.' : e.message;
      if (e.kind === 'away' || e.kind === 'broken') onAway();
      if (!(e instanceof Failure)) throw e;
    } finally {
      update(c);
      compare();
    }
  }

  async function start() {
    const list = chosen(), prompt = $('ask-box').value.trim();
    if (run || !prompt || !list.length) return;
    const abort = new AbortController(), job = {signal: abort.signal, abort};
    const system = settings.system.trim();
    const request = {seed: Math.floor(Math.random() * 2 ** 31), ...panel.sampling(), messages: [
      ...(system ? [{role: 'system', content: system}] : []), {role: 'user', content: prompt}]};
    run = job;
    settings.small.prompt = prompt;
    store.saveSettings(settings);
    columns = list.map((m) => Object.assign(build(m, list[0]), {prompt}));
    $('results').style.setProperty('--columns', Math.min(columns.length, 4));
    $('results').replaceChildren(...columns.map((c) => c.element));
    columns.forEach(update);
    showState();
    say('Asking ' + words.count(list.length, 'model') + '.');
    try {
      if (settings.small.order === 'once')
        await Promise.all(columns.map((c) => answer(c, request, job)));
      else
        for (const c of columns) await answer(c, request, job);
    } finally {
      run = null;
      showState();
      models.refresh().catch(() => {});
    }
  }

  $('ask').addEventListener('submit', (e) => {
    e.preventDefault();
    start();
  });
  $('ask-box').addEventListener('input', () => {
    fitHeight($('ask-box'));
    showState();
  });
  $('ask-box').addEventListener('keydown', (e) => {
    if (e.key !== 'Enter' || e.shiftKey || e.isComposing || e.keyCode === 229) return;
    e.preventDefault();
    start();
  });
  $('ask-stop').addEventListener('click', () => {
    run?.abort.abort();
    focusBox($('ask-box'));
  });
  for (const input of document.querySelectorAll('[name=order]'))
    input.addEventListener('change', () => {
      settings.small.order = input.value;
      store.saveSettings(settings);
      showState();
    });

  return {
    begin(kept, talk, away) {
      settings = kept;
      onTalk = talk;
      onAway = away;
      $('ask-box').value = settings.small.prompt;
      document.querySelector('[name=order][value=' + settings.small.order + ']').checked = true;
    },
    show() {
      showChoice();
      showState();
      fitHeight($('ask-box'));
    },
    stop: () => run?.abort.abort(),
    isRunning: () => run !== null,
  };
})();
