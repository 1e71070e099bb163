// Owns the page as a whole: its parts are introduced to each other here, and what concerns all
// of them is decided: which view, drawers, theme, keys, and what happens when nobody answers.
'use strict';

(() => {
  const keeps = store.open(), settings = store.settings();
  const narrow = matchMedia('(max-width: 54rem)'), tight = matchMedia('(max-width: 74rem)');
  const open = {side: false, panel: false}; // drawers that lie over the page
  const save = () => store.saveSettings(settings);

  // ---- views ----

  const isSmall = () => location.hash === '#small';

  function showView() {
    const is = isSmall();
    for (const e of document.querySelectorAll(':popover-open')) e.hidePopover();
    $('chat').hidden = is;
    $('model').hidden = is;
    $('small').hidden = !is;
    $('small-title').hidden = !is;
    $('to-small').toggleAttribute('aria-current', is);
    if (is) {
      $('to-small').setAttribute('aria-current', 'page');
      small.show();
      document.title = 'How small can it go? – runt';
    } else {
      chat.showState();
    }
    document.querySelector('.skip').href = is ? '#ask-box' : '#box';
    chats.show();
  }

  addEventListener('hashchange', () => {
    closeDrawers();
    showView();
    focusBox($(isSmall() ? 'ask-box' : 'box'));
  });

  // A link to a part of the page would change the view.
  document.querySelector('.skip').addEventListener('click', (e) => {
    e.preventDefault();
    $(isSmall() ? 'ask-box' : 'box').focus();
  });

  function openChat(id) {
    closeDrawers();
    if (isSmall()) location.hash = '#chat';
    chat.open(id && store.get(id));
  }

  // ---- drawers ----

  // Beside the page where there is room, over it where there is none; then the rest is out of
  // reach until they are closed.
  function layout() {
    const side = narrow.matches ? open.side : settings.side;
    const panel = tight.matches ? open.panel : settings.panel;
    const over = (narrow.matches && side) || (tight.matches && panel);
    $('side').hidden = !side;
    $('panel').hidden = !panel;
    $('scrim').hidden = !over;
    $('stage').inert = document.querySelector('.skip').inert = over;
    $('side').inert = tight.matches && panel;
    $('side-toggle').setAttribute('aria-expanded', String(side));
    $('panel-toggle').setAttribute('aria-expanded', String(panel));
  }

  function toggle(name, query) {
    if (query.matches) {
      const to = !open[name];
      closeDrawers();
      open[name] = to;
    } else {
      settings[name] = !settings[name];
      save();
    }
    layout();
    const shown = !$(name).hidden;
    (shown ? $(name + '-close') : $(name + '-toggle')).focus();
    if (shown && !query.matches) $(name + '-toggle').focus();
  }

  function closeDrawers() {
    const name = open.side ? 'side' : open.panel ? 'panel' : null;
    open.side = open.panel = false;
    layout();
    if (name) $(name + '-toggle').focus();
    return name !== null;
  }

  $('side-toggle').addEventListener('click', () => toggle('side', narrow));
  $('panel-toggle').addEventListener('click', () => toggle('panel', tight));
  $('side-close').addEventListener('click', () => toggle('side', narrow));
  $('panel-close').addEventListener('click', () => toggle('panel', tight));
  $('scrim').addEventListener('click', closeDrawers);
  for (const query of [narrow, tight])
    query.addEventListener('change', () => { open.side = open.panel = false; layout(); });
  $('new').addEventListener('click', () => openChat(null));
  $('to-small').addEventListener('click', () => { if (isSmall()) closeDrawers(); });

  // ---- theme ----

  for (const input of document.querySelectorAll('[name=theme]')) {
    input.checked = input.value === settings.theme;
    input.addEventListener('change', () => {
      settings.theme = input.value;
      if (input.value === 'auto') delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = input.value;
      save();
    });
  }

  // ---- the server's key ----

  function showKey() {
    $('key-state').textContent = api.hasKey() ? 'Change or forget the API key' : 'API key';
  }

  // A key, or null; `wrong`: the one that was used is none of the server's.
  function askKey(wrong, why) {
    const dialog = $('key');
    $('key-why').textContent = wrong ? 'The key that was used is none of this server’s.'
      : why ?? 'Whoever runs it can give you one.';
    $('key-why').classList.toggle('bad', wrong);
    $('key-keep').checked = api.keeps();
    $('key-forget').hidden = !api.hasKey();
    $('key-box').value = dialog.returnValue = '';
    dialog.showModal();
    $('key-box').focus();
    return new Promise((resolve) => {
      dialog.addEventListener('close', () => {
        const value = $('key-box').value.trim();
        $('key-box').value = '';
        if (dialog.returnValue === 'ok' && value) api.setKey(value, $('key-keep').checked);
        showKey();
        resolve(dialog.returnValue === 'ok' && value ? value : null);
      }, {once: true});
    });
  }

  $('key-cancel').addEventListener('click', () => $('key').close());
  $('key-forget').addEventListener('click', () => {
    api.setKey(null, false);
    $('key').close();
  });
  $('key-open').addEventListener('click', () => askKey(false, 'It is sent with every question.'));

  // ---- nobody answers ----

  let looking = false;

  // Ask for the models until somebody answers.
  async function lookForServer() {
    if (looking) return;
    looking = true;
    for (let wait = 1000; ; wait = Math.min(wait * 1.5, 10000)) {
      try {
        await models.refresh();
        break;
      } catch (e) {
        showAway(e.kind === 'away' ? 'No answer from ' + location.host +
          '. The page looks for it every few seconds.' : e.message);
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    looking = false;
    if (!$('away').hidden) say('The server answers again.');
    $('away').hidden = true;
  }

  function showAway(text) {
    if ($('away').textContent !== text) $('away').textContent = text;
    $('away').hidden = false;
  }

  // ---- keyboard ----

  // With Alt+Shift, or Ctrl+Shift on a Mac, where Alt+Shift types letters.
  const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
  const CHORD = isMac ? ['Ctrl', 'Shift'] : ['Alt', 'Shift'];
  const shortcuts = {
    N: ['New conversation', () => openChat(null)],
    R: ['Answer again', () => chat.againLast()],
    E: ['Edit the last message', () => chat.editLast()],
    M: ['Choose the model', () => { if (!isSmall()) $('models').togglePopover(); }],
    P: ['Sampling and system prompt', () => toggle('panel', tight)],
    L: ['List of conversations', () => toggle('side', narrow)],
    C: ['How small can it go?, and back', () => { location.hash = isSmall() ? '#chat' : '#small'; }],
    K: ['This list', () => showKeys()],
  };

  function showKeys() {
    const keys = (...names) => make('dt', {}, ...names.flatMap((n, i) =>
      i ? [' + ', make('kbd', {}, n)] : [make('kbd', {}, n)]));
    const rows = [[['Enter'], 'Send'], [['Shift', 'Enter'], 'New line'],
      [['Esc'], 'Stop the answer'], [['↑'], 'In an empty box: edit the last message'],
      ...Object.entries(shortcuts).map(([key, [what]]) => [[...CHORD, key], what])];
    $('keys-list').replaceChildren(...rows.map(([names, what]) =>
      make('div', {}, keys(...names), make('dd', {}, what))));
    $('keys').showModal();
  }

  // The letter, also where the keyboard has no Latin ones.
  function letterOf(e) {
    return /^[a-z]$/i.test(e.key) ? e.key.toUpperCase() : e.code.replace(/^Key/, '');
  }

  function isChord(e) {
    return e.shiftKey && !e.metaKey && (isMac ? e.ctrlKey && !e.altKey : e.altKey && !e.ctrlKey);
  }

  document.addEventListener('keydown', (e) => {
    if (document.querySelector('dialog[open]')) return;
    if (e.key === 'Escape') {
      if (document.querySelector(':popover-open')) return;
      if (closeDrawers()) return;
      if (isSmall()) small.stop();
      else chat.stop();
    } else if (isChord(e) && shortcuts[letterOf(e)]) {
      e.preventDefault();
      shortcuts[letterOf(e)][1]();
    }
  });

  $('keys-open').addEventListener('click', showKeys);

  // ---- other tabs ----

  addEventListener('storage', (e) => {
    const id = store.idOf(e.key);
    if (!id || chat.isRunning(id)) return;
    const changed = store.reload(id);
    if (changed && id === chat.current().id) chat.open(store.get(id));
    else chats.show();
  });

  // ---- begin ----

  function listChanged() {
    panel.setDefaults(models.nearest(settings.model)?.sampler ?? {});
    chat.showState();
    if (isSmall()) small.show();
  }

  api.onKey(askKey);
  models.onChoice((id) => {
    chat.setModel(id);
    save();
  });
  models.onList(listChanged);
  panel.begin(settings, save);
  chat.begin(settings, () => chats.show(), lookForServer);
  chats.onOpen(openChat);
  small.begin(settings, (prompt, answer) => {
    location.hash = '#chat';
    chat.start(prompt, answer);
  }, lookForServer);
  showKey();
  layout();
  chat.open(store.get(store.tab('open')) ?? null);
  showView();
  lookForServer();
  if (!keeps) notice('This browser keeps nothing for this page: conversations end with it.');
})();
