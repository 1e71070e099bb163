// Owns the conversation that is shown, and the answers that are being written, in this and in
// other conversations.  A job writes into its conversation, whether that is shown or not.
'use strict';

const chat = (() => {
  const SAVE_EVERY = 1000; // ms, while an answer is written
  const jobs = new Map();  // id of a chat: the job that writes into it
  let settings = null, current = null, onSaved = () => {};
  let leaving = false; // the page goes, and with it every connection
  let elements = new Map(); // message: its element
  let following = true;     // the newest line is kept in sight

  const model = () => models.nearest(current.model || settings.model);
  const contextOf = (answer) => models.find(answer.model)?.context;

  function fresh() {
    const now = Date.now();
    return {id: store.newId(), title: '', created: now, updated: now, model: settings.model,
      system: settings.system, skip: 0, messages: []};
  }

  function save(c) {
    const said = store.put(c);
    if (said === 'dropped')
      notice('There is no more room in this browser: the oldest conversation was removed.');
    if (said === 'full')
      notice('This conversation is too large to be kept. Export it, if you want to.', 'Export',
        () => saveFile('conversation.json', store.toFile(c)));
    onSaved();
  }

  // A conversation that is still empty is not kept.
  function touched(c) {
    c.updated = Date.now();
    if (c.messages.length) save(c);
  }

  // ---- drawing ----

  const act = {
    again: (m) => answerAgain(m),
    turn(m, by) {
      m.at += by;
      touched(current);
      update(m);
      elements.get(m).querySelector('.versions button:not(:disabled)')?.focus();
    },
    edit: (m) => edit(m),
    fresh: () => open(null),
  };

  function elementOf(m) {
    return m.role === 'user' ? message.userElement(m, act) : message.answerElement();
  }

  function draw(m) {
    const e = elements.get(m), job = jobs.get(current.id);
    if (!e || m.role === 'user') return;
    const context = contextOf(message.shown(m));
    message.updateAnswer(e, m, act, context, job?.message === m ? job.waiting : '');
  }

  function update(m) {
    draw(m);
    if (following) toEnd();
  }

  function render() {
    const list = [];
    elements = new Map();
    current.messages.forEach((m, i) => {
      if (i && i === current.skip) list.push(message.divider());
      elements.set(m, elementOf(m));
      list.push(elements.get(m));
    });
    $('messages').replaceChildren(...list);
    $('empty').hidden = list.length > 0;
    current.messages.forEach(draw);
    showState();
    if (following) toEnd();
  }

  // What depends on whether an answer is being written, and on the model.
  function showState() {
    const running = jobs.has(current.id), m = model();
    $('stop').hidden = !running;
    $('send').hidden = running;
    $('send').disabled = !$('box').value.trim();
    $('box').placeholder = m && m.tells && !m.template ? 'Write a beginning; the model goes on'
      : 'Write a message';
    if (!$('chat').hidden) document.title = current.title ? current.title + ' – runt' : 'runt';
    models.display(m?.id ?? null);
    showContext(m);
    showEmpty(m);
  }

  function showContext(m) {
    const last = current.messages.findLast((x) => x.role === 'assistant');
    const total = last && message.shown(last).total;
    $('context').textContent = total && m?.context
      ? 'Context: ' + total + ' of ' + m.context + ' tokens' : '';
    $('context').classList.toggle('bad', total >= 0.9 * m?.context);
  }

  const IDEAS = {
    talk: ['Tell me a story about a very small pig.', 'What is the sea like?',
      'Give me one piece of advice.', 'What shall we talk about?'],
    goOn: ['Once upon a time, there was a little dog named', 'The secret of happiness is',
      'One day, a girl found a small box. In it'],
  };

  function showEmpty(m) {
    if ($('empty').hidden) return;
    const plain = m?.tells && !m.template;
    $('empty-title').textContent = plain ? 'Begin a text' : 'Say something';
    $('empty-facts').textContent = !m ? '' : [m.id, m.bytes && words.bytes(m.bytes),
      m.bits && words.bits(m.bits) + ' per weight', m.context && m.context + ' tokens of context']
      .filter(Boolean).join(' · ');
    $('empty-note').textContent = plain
      ? 'This model has no chat template: it continues what you write.'
      : 'It runs on the server of this page. Conversations are kept in this browser.';
    $('ideas').replaceChildren(...IDEAS[plain ? 'goOn' : 'talk'].map((text) =>
      make('li', {}, make('button', {type: 'button', click: () => takeIdea(text)}, text))));
  }

  // ---- keeping the newest line in sight ----

  function toEnd() {
    const s = $('scroll');
    s.scrollTop = s.scrollHeight;
  }

  $('scroll').addEventListener('scroll', () => {
    const s = $('scroll');
    following = s.scrollHeight - s.scrollTop - s.clientHeight < 40;
    $('latest').hidden = following;
  }, {passive: true});
  new ResizeObserver(() => { if (following) toEnd(); }).observe($('scroll'));
  $('latest').addEventListener('click', () => {
    following = true;
    toEnd();
    $('scroll').focus({preventScroll: true});
  });

  // ---- what the model is sent ----

  function sent(c, upTo) {
    const list = c.system.trim() ? [{role: 'system', content: c.system.trim()}] : [];
    for (const m of c.messages.slice(c.skip, upTo)) {
      const content = m.role === 'user' ? m.content : message.shown(m).content;
      if (content) list.push({role: m.role, content});
    }
    return list;
  }

  // Leave out the oldest question and its answer; false if nothing but the last one is left.
  function forgetOne(c, upTo) {
    let next = c.skip + 1;
    while (next < upTo && c.messages[next].role !== 'user') next++;
    if (next >= upTo) return false;
    c.skip = next;
    return true;
  }

  const length = (list) => list.reduce((n, m) => n + m.content.length, 0);

  // A context that is nearly full would leave no room to answer: the oldest messages are left
  // out until, by the tokens that the last answer counted, a quarter of it is free.
  function makeRoom(c, upTo, context) {
    const last = c.messages.slice(c.skip, upTo).findLast((m) => m.role === 'assistant');
    const total = last && message.shown(last).total;
    if (!total || !context) return;
    const each = total / Math.max(message.shown(last).letters, 1);
    while (length(sent(c, upTo)) * each > 0.75 * context && forgetOne(c, upTo));
  }

  // ---- jobs ----

  function finish(job, result) {
    const answer = job.answer, usage = result.usage;
    answer.tokens = usage?.completion_tokens ?? null;
    answer.total = usage?.total_tokens ?? null;
    answer.rate = api.rateOf(usage);
    answer.end = result.end === 'length' ? 'length' : 'stop';
    const context = contextOf(answer);
    if (answer.end === 'length' && context && answer.total >= context) answer.end = 'context';
  }

  // Ask until it fits.
  async function ask(job) {
    const c = job.chat, upTo = c.messages.indexOf(job.message);
    let drawn = c.skip;
    makeRoom(c, upTo, contextOf(job.answer));
    for (;;) {
      const list = sent(c, upTo);
      if (drawn !== c.skip && c === current) render();
      drawn = c.skip;
      try {
        const result = await api.chat({model: job.answer.model, messages: list,
          ...panel.sampling()}, job);
        job.answer.letters = length(list) + job.answer.content.length;
        return result;
      } catch (e) {
        if (e.kind !== 'context' || !forgetOne(c, upTo)) throw e;
      }
    }
  }

  function fail(job, e) {
    const answer = job.answer;
    answer.end = e.kind === 'stopped' ? 'stopped' : 'error';
    answer.failed = e.kind ?? '';
    answer.error = e.kind === 'context'
      ? 'This message alone does not fit into the model’s context of ' +
        words.count(contextOf(answer) ?? 0, 'token') + '.'
      : e.message;
    if (e.kind === 'away' || e.kind === 'broken') onAway();
  }

  let onAway = () => {};

  async function run(job) {
    let drawn = false, saved = Date.now();
    const show = () => {
      drawn = false;
      if (job.chat === current && job.answer.end === 'running') update(job.message);
    };
    job.text = (piece) => {
      if (job.signal.aborted) return;
      job.answer.content += piece;
      if (!drawn) requestAnimationFrame(show);
      drawn = true;
      if (Date.now() - saved > SAVE_EVERY) {
        store.put(job.chat);
        saved = Date.now();
      }
    };
    job.wait = (seconds) => {
      job.waiting = 'The server is busy. Trying again in ' + words.count(seconds, 'second') + ' …';
      show();
    };
    job.open = () => { job.waiting = ''; };
    try {
      finish(job, await ask(job));
    } catch (e) {
      if (leaving) return;
      fail(job, e);
      if (!(e instanceof Failure)) throw e;
    } finally {
      if (!leaving && jobs.get(job.chat.id) === job) over(job);
    }
  }

  // What is half written is kept as such.  A page that comes back out of the browser's cache
  // has lost its connections.
  addEventListener('pagehide', () => {
    leaving = true;
    for (const job of jobs.values()) store.put(job.chat);
  });
  addEventListener('pageshow', (e) => { if (e.persisted) location.reload(); });

  function over(job) {
    const answer = job.answer, end = message.ending(answer, contextOf(answer));
    jobs.delete(job.chat.id);
    touched(job.chat);
    if (job.chat === current) {
      update(job.message);
      showState();
      say(answer.content ? answer.model + ' answered: ' + answer.content + ' ' + end : end);
    }
    models.refresh().catch(() => {}); // its speed has changed, or the list has
  }

  // Write an answer into message `m` of conversation `c`, a new version of it.
  function begin(c, m) {
    const answer = {content: '', model: model().id, end: 'running', error: '', failed: '',
      tokens: null, rate: null, total: null, letters: null};
    const failed = m.versions[m.at];
    if (failed && failed.end === 'error' && !failed.content) m.versions.splice(m.at, 1);
    if (m.versions.length === store.MAX_VERSIONS) m.versions.shift();
    m.versions.push(answer);
    m.at = m.versions.length - 1;
    const abort = new AbortController();
    const job = {chat: c, message: m, answer: m.versions[m.at], abort, signal: abort.signal,
      waiting: ''};
    jobs.set(c.id, job);
    following = true;
    touched(c);
    render();
    run(job);
  }

  // ---- what the person does ----

  function ready() {
    if (!model()) {
      notice('There is no model to ask: the server does not answer.');
      onAway();
    }
    return model() && !jobs.has(current.id);
  }

  function send(text) {
    if (!text || !ready()) return false;
    if (!current.title) current.title = titleOf(text);
    const m = {role: 'assistant', at: 0, versions: []};
    current.messages.push({role: 'user', content: text}, m);
    current.model = model().id;
    say('Sent.');
    begin(current, m);
    return true;
  }

  function takeIdea(text) {
    if (send(text)) focusBox($('box'));
  }

  // The first words, or, of a word without an end, its first letters: whole ones, be they flags
  // or families, which are several code points.
  function titleOf(text) {
    const line = text.trim().slice(0, 2000).replace(/\s+/g, ' ');
    const letters = Array.from(new Intl.Segmenter().segment(line), (s) => s.segment);
    return letters.length > 60 ? letters.slice(0, 58).join('').replace(/\s\S*$/, '') + ' …' : line;
  }

  function stop(c = current) {
    jobs.get(c.id)?.abort.abort();
  }

  // Undo what removed messages.
  function restore(c, before, skip) {
    jobs.get(c.id)?.abort.abort();
    jobs.delete(c.id);
    c.messages = before;
    c.skip = skip;
    touched(c);
    if (c === current) render();
  }

  // Remove what stands behind message i, with a way back.
  function cutAfter(i, why) {
    const c = current, before = structuredClone(c.messages), skip = c.skip;
    c.messages.length = i + 1;
    if (c.skip > i) c.skip = 0;
    if (before.length > i + 1) notice(why, 'Undo', () => restore(c, before, skip));
  }

  function answerAgain(m) {
    if (!ready()) return;
    cutAfter(current.messages.indexOf(m), 'What followed this answer was removed.');
    begin(current, m);
    focusBox($('box'));
  }

  function edit(m) {
    if (jobs.has(current.id)) stop();
    const e = elements.get(m);
    const {row, box} = message.editor(m.content, (text) => {
      if (text === null) {
        row.replaceWith(e);
        e.querySelector('[aria-label^=Edit]').focus();
      } else editDone(m, text);
    });
    e.replaceWith(row);
    fitHeight(box);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  function editDone(m, text) {
    const i = current.messages.indexOf(m);
    if (!ready() || i < 0) return;
    cutAfter(i, 'What followed this message was removed.');
    if (current.title === titleOf(m.content)) current.title = titleOf(text);
    current.messages[i] = {role: 'user', content: text};
    current.messages.push({role: 'assistant', at: 0, versions: []});
    begin(current, current.messages[i + 1]);
    focusBox($('box'));
  }

  // Show a conversation, or a new one.
  function open(c) {
    current = c ?? fresh();
    following = true;
    store.tab('open', current.id);
    $('system').value = current.system;
    render();
    $('latest').hidden = true;
    onSaved();
    focusBox($('box'));
  }

  // ---- the box ----

  function fromBox() {
    if (!send($('box').value.trim())) return;
    $('box').value = '';
    fitHeight($('box'));
    showState();
  }

  $('compose').addEventListener('submit', (e) => {
    e.preventDefault();
    fromBox();
  });
  $('box').addEventListener('input', () => {
    fitHeight($('box'));
    $('send').disabled = !$('box').value.trim();
  });
  $('box').addEventListener('keydown', (e) => {
    if (e.isComposing || e.keyCode === 229) return; // Safari's way to say the same
    if (e.key === 'Enter' && !e.shiftKey) {
      e.preventDefault();
      fromBox();
    } else if (e.key === 'ArrowUp' && !$('box').value && !jobs.has(current.id)) {
      e.preventDefault();
      editLast();
    }
  });
  $('stop').addEventListener('click', () => {
    stop();
    focusBox($('box'));
  });
  $('system').addEventListener('input', () => {
    current.system = settings.system = $('system').value;
    store.saveSettings(settings);
    touched(current);
  });

  function editLast() {
    const last = current.messages.findLast((m) => m.role === 'user');
    if (last) edit(last);
  }

  function againLast() {
    const last = current.messages.findLast((m) => m.role === 'assistant');
    if (last) answerAgain(last);
  }

  return {
    open, stop, editLast, againLast, showState,
    begin(kept, saved, away) {
      settings = kept;
      onSaved = saved;
      onAway = away;
    },
    current: () => current,
    isRunning: (id) => jobs.has(id),
    // A conversation that is to go: nothing writes into it any more.
    drop(id) {
      jobs.get(id)?.abort.abort();
      jobs.delete(id);
    },
    setModel(id) {
      current.model = settings.model = id;
      current.skip = 0; // its context may be larger
      touched(current);
      showState();
    },
    // The first words of a conversation that was begun elsewhere on the page.
    start(prompt, answer) {
      open({...fresh(), model: answer.model, title: titleOf(prompt), messages: [
        {role: 'user', content: prompt}, {role: 'assistant', at: 0, versions: [answer]}]});
      touched(current);
    },
    titleOf,
  };
})();
